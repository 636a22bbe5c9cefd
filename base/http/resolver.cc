#include "base/http/resolver.h"

#include <chrono>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "base/thread_annotations.h"

namespace base::http {
namespace {

using Addresses = std::vector<std::string>;

Error Unresolved(const std::string& host, const std::string& why) {
  return Error(Code::kUnavailable, "can't resolve \"" + host + "\": " + why);
}

Result<Addresses> AskSystem(const std::string& host) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_ADDRCONFIG;
  addrinfo* found = nullptr;
  const int failure = ::getaddrinfo(host.c_str(), nullptr, &hints, &found);
  if (failure != 0) return Unresolved(host, ::gai_strerror(failure));
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(found, ::freeaddrinfo);
  Addresses addresses;
  for (const addrinfo* address = found; address != nullptr; address = address->ai_next) {
    char text[NI_MAXHOST];
    const int named = ::getnameinfo(address->ai_addr, address->ai_addrlen, text, sizeof(text),
                                    nullptr, 0, NI_NUMERICHOST);
    if (named == 0) addresses.emplace_back(text);
  }
  return addresses;
}

// What a look-up shares with the one who waits for it.
struct Pending {
  Mutex mutex;
  CondVar done;
  std::optional<Result<Addresses>> outcome GUARDED_BY(mutex);
};

}  // namespace

Resolver::Resolver(size_t max_lookups, Lookup lookup)
    : max_lookups_(max_lookups),
      lookup_(lookup ? std::move(lookup) : Lookup(AskSystem)),
      running_(std::make_shared<std::atomic<size_t>>(0)) {}

Result<Addresses> Resolver::Resolve(const std::string& host, int64_t timeout_ms) {
  if (running_->fetch_add(1) >= max_lookups_) {
    running_->fetch_sub(1);
    return Unresolved(host, "too many names are being looked up");
  }
  auto pending = std::make_shared<Pending>();
  auto run = [pending, running = running_, lookup = lookup_, host] {
    Result<Addresses> outcome = lookup(host);
    running->fetch_sub(1);
    MutexLock lock(pending->mutex);
    pending->outcome = std::move(outcome);
    pending->done.NotifyAll();
  };
  try {
    std::thread(std::move(run)).detach();
  } catch (const std::system_error& error) {
    running_->fetch_sub(1);
    return Unresolved(host, error.what());
  }
  using std::chrono::milliseconds;
  const auto until = std::chrono::steady_clock::now() + milliseconds(timeout_ms);
  MutexLock lock(pending->mutex);
  while (!pending->outcome.has_value()) {
    const auto left = until - std::chrono::steady_clock::now();
    const int64_t left_ms = std::chrono::ceil<milliseconds>(left).count();
    if (left_ms <= 0) return Unresolved(host, "no answer in time");
    pending->done.WaitForMs(pending->mutex, left_ms);
  }
  return *std::move(pending->outcome);
}

}  // namespace base::http
