#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"

namespace base::http {

// Looks names up, and gives up when the time is over. getaddrinfo blocks for as long as the name
// servers please and can't be called off: so each look-up has a thread of its own, and whoever
// waits goes on without it. The thread that is left behind ends by itself when the system gives up
// (glibc: 5 s, twice, for each name server, unless resolv.conf says otherwise); it holds nothing of
// the one who waited. At most `max_lookups` run at once, those left behind included; beyond that
// the answer is kUnavailable at once. For names that strangers choose. Thread-safe; may be
// destroyed while look-ups run.
class Resolver {
 public:
  // The addresses of a name as text, in the order of preference.
  using Lookup = std::function<Result<std::vector<std::string>>(const std::string& host)>;

  // `lookup` blocks, and must work after the resolver is gone. Null: the system's.
  explicit Resolver(size_t max_lookups, Lookup lookup = nullptr);

  // kUnavailable: no such name, no answer in time, or too many look-ups at once.
  Result<std::vector<std::string>> Resolve(const std::string& host, int64_t timeout_ms);

 private:
  const size_t max_lookups_;
  const Lookup lookup_;
  const std::shared_ptr<std::atomic<size_t>> running_;
};

}  // namespace base::http
