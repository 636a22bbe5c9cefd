#include "base/http/server.h"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <thread>
#include <utility>
#include <vector>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <fmt/format.h>
#include <pthread.h>

#include "base/async/gate.h"
#include "base/http/connection.h"
#include "base/http/turned_away.h"
#include "base/log.h"
#include "base/thread_annotations.h"

namespace base::http {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;

// Out of memory, or of descriptors with nobody to tell: the next accept would fail as well.
constexpr std::chrono::milliseconds kAcceptPause{100};
constexpr int64_t kReportEveryMs = 1000;  // of what may come in floods
constexpr int64_t kStopReportMs = 5000;

// One io thread: its own context, so that no connection ever needs a lock or a strand.
struct Loop {
  ConnectionSet
      connections;  // before the context: connections that die with it still leave the set
  asio::io_context context{1};
  asio::executor_work_guard<asio::io_context::executor_type> guard{context.get_executor()};
  asio::steady_timer sweep{context};
  std::thread thread;
};

Result<tcp::endpoint> ParseListen(const std::string& listen) {
  const size_t colon = listen.rfind(':');
  const Error bad(
      Code::kInvalidArgument,
      "can't listen on \"" + listen +
          "\": write ADDRESS:PORT, as in 127.0.0.1:9696, 0.0.0.0:9696 (every address of "
          "this machine) or [::1]:0 (any free port); names but localhost are not taken");
  if (colon == std::string::npos) return bad;
  std::string host = listen.substr(0, colon);
  const std::string port = listen.substr(colon + 1);
  if (host == "localhost") host = "127.0.0.1";
  if (host.size() > 2 && host.front() == '[' && host.back() == ']')
    host = host.substr(1, host.size() - 2);
  if (port.empty() || port.size() > 5 || port.find_first_not_of("0123456789") != std::string::npos)
    return bad;
  const int number = std::stoi(port);
  boost::system::error_code error;
  const asio::ip::address address = asio::ip::make_address(host, error);
  if (error || number > 65535) return bad;
  return tcp::endpoint(address, static_cast<uint16_t>(number));
}

// What can be done about a failure to listen; empty where the system's own words say it.
std::string ListenAdvice(const tcp::endpoint& endpoint, const boost::system::error_code& error) {
  if (error == asio::error::address_in_use) {
    return fmt::format(
        ": another process has port {}; stop it, or listen on another port (port 0: any free one)",
        endpoint.port());
  }
  if (error == asio::error::access_denied) {
    return fmt::format(": port {} is for root; take one from 1024 up", endpoint.port());
  }
  if (error == boost::system::errc::address_not_available) {
    return ": that is no address of this machine; `ip address` lists those it has";
  }
  return "";
}

class ServerImpl final : public Server {
 public:
  ServerImpl(ServerOptions options, const Router& router, async::Pool& pool, Metrics& metrics)
      : context_(std::move(options), router, pool, metrics),
        turned_away_(context_.metrics.refused_connections) {
    for (size_t i = 0; i < std::max<size_t>(context_.options.io_threads, 1); ++i)
      loops_.push_back(std::make_unique<Loop>());
    acceptor_ = std::make_unique<tcp::acceptor>(loops_.front()->context);
  }
  ~ServerImpl() override { Stop(); }

  Result<void> Listen();
  void Run();
  std::string address() const override { return address_; }
  void Stop() override;

 private:
  async::Task<void> Accept();
  async::Task<void> Sweep(Loop* loop);
  void Take(tcp::socket socket, Loop* loop);
  // False: nothing could be done about it, wait a little.
  bool CopeWith(const boost::system::error_code& error);
  void SweepTurnedAway(int64_t now_ms);
  // Calls on each connection, on its own thread.
  void ForAll(void (Connection::*call)());
  int64_t SweepIntervalMs() const;

  ServerContext context_;
  async::Gate gate_;
  std::vector<std::unique_ptr<Loop>> loops_;
  std::string address_;
  // On the first loop, down to the mutex.
  std::unique_ptr<tcp::acceptor> acceptor_;
  TurnedAway turned_away_;
  double reported_turned_away_ = 0;
  int64_t report_turned_away_at_ms_ = 0;
  int64_t report_accept_at_ms_ = 0;

  Mutex stop_mutex_;
  bool stopped_ GUARDED_BY(stop_mutex_) = false;
};

Result<void> ServerImpl::Listen() {
  ASSIGN_OR_RETURN(const tcp::endpoint endpoint, ParseListen(context_.options.listen));
  ASSIGN_OR_RETURN(context_.trusted_proxies, TrustedPeers::Parse(context_.options.trusted_proxies));
  boost::system::error_code error;
  acceptor_->open(endpoint.protocol(), error);
  if (!error) acceptor_->set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor_->bind(endpoint, error);
  if (!error) acceptor_->native_non_blocking(true, error);
  if (!error) acceptor_->listen(tcp::acceptor::max_listen_connections, error);
  if (error) {
    return Error(Code::kUnavailable, "can't listen on " + context_.options.listen + ": " +
                                         error.message() + ListenAdvice(endpoint, error));
  }
  address_ = EndpointText(acceptor_->local_endpoint(error));
  return {};
}

void ServerImpl::Run() {
  // sendfile has no flag against it: a client that goes away would end the process.
  std::signal(SIGPIPE, SIG_IGN);
  asio::co_spawn(loops_.front()->context, Accept(), asio::detached);
  for (auto& loop : loops_) {
    asio::co_spawn(loop->context, Sweep(loop.get()), asio::detached);
    loop->thread = std::thread([context = &loop->context] {
      pthread_setname_np(pthread_self(), "http-io");
      context->run();
    });
  }
}

async::Task<void> ServerImpl::Accept() {
  asio::steady_timer pause(loops_.front()->context);
  for (size_t next = 0;; next = (next + 1) % loops_.size()) {
    Loop* const loop = loops_[next].get();
    auto [error, socket] =
        co_await acceptor_->async_accept(loop->context, asio::as_tuple(asio::use_awaitable));
    if (!acceptor_->is_open()) co_return;
    if (!error) {
      Take(std::move(socket), loop);
      continue;
    }
    if (CopeWith(error)) continue;
    pause.expires_after(kAcceptPause);
    co_await pause.async_wait(asio::as_tuple(asio::use_awaitable));
    if (!acceptor_->is_open()) co_return;
  }
}

void ServerImpl::Take(tcp::socket socket, Loop* loop) {
  if (context_.open_connections.load() >= context_.options.max_connections) {
    boost::system::error_code error;
    const int descriptor = socket.release(error);
    if (!error) turned_away_.Take(descriptor);
    return;
  }
  async::Gate::Pass pass = gate_.Enter();
  if (!pass) return;
  auto connection = std::make_shared<Connection>(std::move(socket), &context_, &loop->connections,
                                                 std::move(pass));
  Connection* const raw = connection.get();
  asio::co_spawn(loop->context, raw->Run(std::move(connection)), asio::detached);
}

bool ServerImpl::CopeWith(const boost::system::error_code& error) {
  if (error == asio::error::connection_aborted) return true;
  const bool no_descriptors = error == asio::error::no_descriptors ||
                              error == boost::system::errc::too_many_files_open_in_system;
  if (CoarseNowMs() >= report_accept_at_ms_) {
    report_accept_at_ms_ = CoarseNowMs() + kReportEveryMs;
    LOG(kWarn, "http", "can't accept a connection: {}{}", error.message(),
        no_descriptors ? "; raise the limit of open files (ulimit -Hn)" : "");
  }
  return no_descriptors && turned_away_.MakeRoom(acceptor_->native_handle());
}

void ServerImpl::SweepTurnedAway(int64_t now_ms) {
  turned_away_.Sweep(now_ms);
  const double count = context_.metrics.refused_connections.value();
  if (count == reported_turned_away_ || now_ms < report_turned_away_at_ms_) return;
  report_turned_away_at_ms_ = now_ms + kReportEveryMs;
  LOG(kWarn, "http", "{} connections were turned away with 503; {} of {} are open",
      count - reported_turned_away_, context_.open_connections.load(),
      context_.options.max_connections);
  reported_turned_away_ = count;
}

int64_t ServerImpl::SweepIntervalMs() const {
  const ServerOptions& options = context_.options;
  const int64_t shortest = std::min({options.header_timeout_ms, options.idle_timeout_ms,
                                     options.body_stall_timeout_ms, kLingerTimeoutMs});
  return std::clamp<int64_t>(shortest / 4, 5, 500);
}

// One timer for all of a thread's timeouts: setting one is a store, and none is ever cancelled.
async::Task<void> ServerImpl::Sweep(Loop* loop) {
  const std::chrono::milliseconds interval(SweepIntervalMs());
  while (true) {
    loop->sweep.expires_after(interval);
    auto [error] = co_await loop->sweep.async_wait(asio::as_tuple(asio::use_awaitable));
    if (error) co_return;
    const int64_t now_ms = CoarseNowMs();
    for (Connection* connection : loop->connections) connection->ExpireIfDue(now_ms);
    if (loop == loops_.front().get()) SweepTurnedAway(now_ms);
  }
}

void ServerImpl::ForAll(void (Connection::*call)()) {
  for (auto& loop : loops_) {
    asio::post(loop->context, [connections = &loop->connections, call] {
      for (Connection* connection : *connections) (connection->*call)();
    });
  }
}

void ServerImpl::Stop() {
  MutexLock lock(stop_mutex_);
  if (stopped_) return;
  stopped_ = true;
  context_.stopping.store(true);
  gate_.Close();
  asio::post(loops_.front()->context, [this] {
    boost::system::error_code ignored;
    acceptor_->close(ignored);
  });
  ForAll(&Connection::CloseIfIdle);
  if (!gate_.WaitEmpty(context_.options.drain_timeout_ms)) {
    LOG(kWarn, "http", "{} connections did not end in time and are cut off", gate_.inside());
    ForAll(&Connection::Close);
    // A handler's job can't be called off, and works with what its caller owns: it must end before
    // we do.
    while (!gate_.WaitEmpty(kStopReportMs))
      LOG(kWarn, "http", "still waiting for {} handlers to end", gate_.inside());
  }
  for (auto& loop : loops_) {
    loop->guard.reset();
    loop->context.stop();
    if (loop->thread.joinable()) loop->thread.join();
  }
  // Where the loop stopped before it came to that; a client must not wait in the queue of a dead
  // server.
  boost::system::error_code ignored;
  acceptor_->close(ignored);
  turned_away_.CloseAll();
}

}  // namespace

Result<std::unique_ptr<Server>> Server::Start(ServerOptions options, const Router& router,
                                              async::Pool& pool, Metrics& metrics) {
  auto server = std::make_unique<ServerImpl>(std::move(options), router, pool, metrics);
  RETURN_IF_ERROR(server->Listen());
  server->Run();
  return Result<std::unique_ptr<Server>>(std::move(server));
}

}  // namespace base::http
