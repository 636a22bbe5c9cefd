#include "imaged/fetch_pace.h"

#include <fmt/format.h>

namespace imaged {

using base::Code;
using base::Error;
using base::Result;

Result<void> FetchPace::Came(size_t bytes, int64_t now_ns) {
  waited_ns_ += now_ns - since_ns_;
  since_ns_ = now_ns;
  bytes_ += bytes;
  const int64_t waited_ms = waited_ns_ / 1'000'000;
  if (waited_ms < window_ms_) return {};
  const auto due_bytes = static_cast<uint64_t>(waited_ms * kMinFetchBytesPerSecond / 1000);
  if (bytes_ < due_bytes) {
    return Error(Code::kUnavailable,
                 fmt::format("the server sends too slowly: fewer than {} bytes a second",
                             kMinFetchBytesPerSecond));
  }
  waited_ns_ = 0;
  bytes_ = 0;
  return {};
}

}  // namespace imaged
