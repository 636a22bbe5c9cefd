#pragma once

#include <cstddef>
#include <cstdint>

#include "base/bytes.h"

// The measures of a connection that nobody needs to set. Internal to blockd/nbd.

namespace blockd::nbd {

// A request up to this size is run by the reader itself if no disk is needed: copying it takes less
// than waking another thread and having its caches cold.
constexpr size_t kMaxInlineBytes = 64 * base::kKiB;
constexpr size_t kInputBytes = 512 * base::kKiB;
constexpr size_t kBatchBytes = 256 * base::kKiB;
// Answers of one batch are sent when there is this much, so that the client works meanwhile.
constexpr size_t kBatchSendBytes = 128 * base::kKiB;
// From here on data is looked at for zeros, which then needn't be sent.
constexpr size_t kMinHoleBytes = 64 * base::kKiB;

constexpr size_t kMaxNamesPerConnection = 16;
// Requests that were answered by the watchdog and still hang; beyond it all others are answered EIO
// at once.
constexpr size_t kMaxAbandoned = 64;
constexpr uint64_t kBlockStatusChargeBytes = 64 * base::kKiB;
constexpr int64_t kFenceLookMs = 60'000;
constexpr int64_t kLogEveryNs = 1'000'000'000;  // errors of one connection

}  // namespace blockd::nbd
