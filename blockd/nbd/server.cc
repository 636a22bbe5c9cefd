#include "blockd/nbd/server.h"

#include <algorithm>
#include <cerrno>
#include <list>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "blockd/nbd/connection.h"
#include "blockd/nbd/listen.h"

namespace blockd::nbd {
namespace {

constexpr int kNoDescriptorsPauseMs = 100;
constexpr int64_t kMaxWatchEveryMs = 500;

int64_t NowNs() { return base::SystemClock().MonotonicNs(); }

struct Socket {
  int descriptor;
  Handshake::Tls tls;
};

}  // namespace

struct Server::Impl {
  Impl(ServerSettings settings, std::shared_ptr<ExportProvider> provider, base::Metrics& registry)
      : shared(std::make_shared<Shared>(std::move(settings), std::move(provider), registry)),
        changed(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}
  ~Impl();

  void Accept();
  void AcceptOn(const Socket& socket);
  void Start(int descriptor, Handshake::Tls tls, std::string peer);
  void Watch();
  void Tell();
  Handshake::Tls TlsFor(const Listener& listener) const;
  void Add(const Listener& listener, Handshake::Tls tls);
  std::vector<std::shared_ptr<Connection>> All();

  const std::shared_ptr<Shared> shared;
  const int changed;  // an eventfd: sockets were added, or it is over
  std::thread accepting;
  std::thread watching;
  bool stopped = false;

  base::Mutex mutex;
  base::CondVar stop_watching;
  bool over GUARDED_BY(mutex) = false;
  std::vector<Socket> sockets GUARDED_BY(mutex);
};

Server::Impl::~Impl() {
  base::MutexLock lock(mutex);
  for (const Socket& socket : sockets) ::close(socket.descriptor);
  if (changed >= 0) ::close(changed);
}

void Server::Impl::Tell() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t ignored = ::write(changed, &one, sizeof(one));
}

void Server::Impl::Accept() {
  pthread_setname_np(pthread_self(), "nbd-accept");
  while (true) {
    std::vector<Socket> now;
    {
      base::MutexLock lock(mutex);
      if (over) return;
      now = sockets;
    }
    std::vector<pollfd> waiting = {{changed, POLLIN, 0}};
    for (const Socket& socket : now) waiting.push_back({socket.descriptor, POLLIN, 0});
    if (::poll(waiting.data(), waiting.size(), -1) <= 0) continue;
    if (waiting[0].revents != 0) {
      uint64_t count = 0;
      [[maybe_unused]] const ssize_t ignored = ::read(changed, &count, sizeof(count));
    }
    for (size_t i = 0; i < now.size(); ++i) {
      if (waiting[i + 1].revents != 0) AcceptOn(now[i]);
    }
  }
}

void Server::Impl::AcceptOn(const Socket& socket) {
  while (true) {
    std::string peer;
    const int descriptor = AcceptFrom(socket.descriptor, &peer);
    if (descriptor >= 0) {
      Start(descriptor, socket.tls, std::move(peer));
      continue;
    }
    if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
      LOG(kError, "nbd", "can't accept: out of descriptors or memory");
      ::poll(nullptr, 0, kNoDescriptorsPauseMs);
    }
    if (errno == EINTR || errno == ECONNABORTED) continue;
    return;
  }
}

void Server::Impl::Start(int descriptor, Handshake::Tls tls, std::string peer) {
  base::async::Gate::Pass pass = shared->threads.Enter();
  const ServerSettings& settings = shared->settings;
  // Those that have to make room need a moment to end.
  const bool full = shared->threads.inside() >
                    static_cast<int64_t>(settings.max_connections + 2 * settings.max_handshakes);
  if (!pass || full) {
    if (full) shared->metrics.refused.Add();
    ::close(descriptor);
    return;
  }
  shared->metrics.accepted.Add();
  auto connection = std::make_shared<Connection>(shared, descriptor, tls, std::move(peer));
  std::list<std::shared_ptr<Connection>>::iterator place;
  {
    base::MutexLock lock(shared->mutex);
    place = shared->connections.insert(shared->connections.end(), connection);
  }
  if (const auto oldest = shared->admission->BeginHandshake(connection)) {
    shared->metrics.dropped_handshakes.Add();
    LOG(kInfo, "nbd", "{}: too many handshakes; cut off", oldest->peer());
    oldest->Cut();
  }
  auto body = [connection, place, held = shared, pass = std::move(pass)]() mutable {
    pthread_setname_np(pthread_self(), "nbd-connection");
    connection->Serve();
    {
      base::MutexLock lock(held->mutex);
      held->connections.erase(place);
    }
    connection.reset();
    pass = {};
  };
  try {
    std::thread(std::move(body)).detach();
  } catch (const std::system_error& failure) {
    LOG(kError, "nbd", "can't start a thread for a connection: {}", failure.what());
    shared->metrics.refused.Add();
    shared->admission->EndHandshake(*connection);
    base::MutexLock lock(shared->mutex);
    shared->connections.erase(place);
  }
}

void Server::Impl::Watch() {
  pthread_setname_np(pthread_self(), "nbd-watch");
  const int64_t every_ms =
      std::clamp<int64_t>(shared->settings.request_deadline_ms / 8, 1, kMaxWatchEveryMs);
  while (true) {
    {
      base::MutexLock lock(mutex);
      if (!over) stop_watching.WaitForMs(mutex, every_ms);
      if (over) return;
    }
    for (const std::shared_ptr<Connection>& connection : All()) connection->Watch(NowNs());
    shared->metrics.memory_bytes.Set(static_cast<double>(shared->memory->used_bytes()));
  }
}

std::vector<std::shared_ptr<Connection>> Server::Impl::All() {
  base::MutexLock lock(shared->mutex);
  return {shared->connections.begin(), shared->connections.end()};
}

void Server::Impl::Add(const Listener& listener, Handshake::Tls tls) {
  {
    base::MutexLock lock(mutex);
    sockets.push_back({listener.descriptor, tls});
  }
  Tell();
}

Handshake::Tls Server::Impl::TlsFor(const Listener& listener) const {
  const ServerSettings& settings = shared->settings;
  if (settings.tls == nullptr) return Handshake::Tls::kOff;
  const bool may_be_plain = listener.loopback || settings.plain_text_beyond_loopback;
  return may_be_plain ? Handshake::Tls::kOffered : Handshake::Tls::kRequired;
}

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Server::~Server() { Stop(0); }

base::Result<std::unique_ptr<Server>> Server::Create(ServerSettings settings,
                                                     std::shared_ptr<ExportProvider> provider,
                                                     base::Metrics& registry) {
  if (settings.max_in_flight_bytes < kMaxIoBytes || settings.max_in_flight_requests == 0 ||
      settings.max_threads == 0 || settings.max_threads_per_volume == 0 ||
      settings.request_deadline_ms <= 0 || settings.max_memory_bytes < kMaxIoBytes ||
      settings.min_bytes_per_second <= 0 || settings.max_handshakes == 0 ||
      settings.max_connections_per_export == 0) {
    return base::Error(base::Code::kInvalidArgument,
                       "a limit of the NBD server is too small to serve anybody");
  }
  auto impl = std::make_unique<Impl>(std::move(settings), std::move(provider), registry);
  if (impl->changed < 0) return base::ErrnoError(errno, "eventfd");
  impl->accepting = std::thread([raw = impl.get()] { raw->Accept(); });
  impl->watching = std::thread([raw = impl.get()] { raw->Watch(); });
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

base::Result<uint16_t> Server::ListenTcp(const std::string& host, uint16_t port) {
  ASSIGN_OR_RETURN(const Listener listener, OpenTcp(host, port));
  const ServerSettings& settings = impl_->shared->settings;
  if (!listener.loopback && settings.tls == nullptr && !settings.plain_text_beyond_loopback) {
    ::close(listener.descriptor);
    return base::Error(base::Code::kInvalidArgument,
                       host + " can be reached by others: NBD needs TLS there");
  }
  impl_->Add(listener, impl_->TlsFor(listener));
  return listener.port;
}

base::Result<void> Server::ListenUnix(const std::string& path) {
  ASSIGN_OR_RETURN(const Listener listener, OpenUnix(path));
  impl_->Add(listener, impl_->TlsFor(listener));
  return {};
}

base::Result<void> Server::Revoke(std::string_view name, int64_t timeout_ms) {
  std::vector<std::shared_ptr<Connection>> cut;
  for (std::shared_ptr<Connection>& connection : impl_->All()) {
    if (!connection->Uses(name)) continue;
    connection->Cut();
    impl_->shared->metrics.revoked_connections.Add();
    LOG(kInfo, "nbd", "{}: its export was revoked; cut off", connection->peer());
    cut.push_back(std::move(connection));
  }
  const int64_t deadline_ns = NowNs() + timeout_ms * 1'000'000;
  for (const std::shared_ptr<Connection>& connection : cut) {
    const int64_t left_ms = std::max<int64_t>((deadline_ns - NowNs()) / 1'000'000, 0);
    if (connection->WaitFenced(left_ms)) continue;
    return base::Error(base::Code::kUnavailable,
                       "a write of a revoked export is still at the back end; try again");
  }
  return {};
}

bool Server::Stop(int64_t timeout_ms) {
  if (impl_->stopped) return true;
  impl_->stopped = true;
  const int64_t deadline_ns = NowNs() + timeout_ms * 1'000'000;
  const auto left_ms = [&] { return std::max<int64_t>((deadline_ns - NowNs()) / 1'000'000, 0); };
  Shared& shared = *impl_->shared;
  shared.threads.Close();
  for (const std::shared_ptr<Connection>& connection : impl_->All()) connection->Drain();
  const bool drained = shared.threads.WaitEmpty(left_ms());
  for (const std::shared_ptr<Connection>& connection : impl_->All()) connection->Cut();
  // What is not at the back end ends now.
  constexpr int64_t kLastMs = 1000;
  const bool gone = drained || shared.threads.WaitEmpty(kLastMs);
  {
    base::MutexLock lock(impl_->mutex);
    impl_->over = true;
    impl_->stop_watching.NotifyAll();
  }
  impl_->Tell();
  impl_->accepting.join();
  impl_->watching.join();
  const bool idle = shared.workers.Stop(std::max<int64_t>(left_ms(), gone ? kLastMs : 0));
  shared.counted.Close();
  constexpr int64_t kMomentMs = 60'000;  // a count takes no time
  shared.counted.WaitEmpty(kMomentMs);
  if (!gone || !idle) LOG(kError, "nbd", "stopped, but requests hang at the back end; left behind");
  return gone && idle;
}

size_t Server::connections() const {
  base::MutexLock lock(impl_->shared->mutex);
  return impl_->shared->connections.size();
}

}  // namespace blockd::nbd
