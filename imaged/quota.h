#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "imaged/image.h"

// Quotas of a project, with Glance's four names. What a project uses is a record beside its images,
// changed in the same commit as the image that changes it: so the limit holds whatever races, and
// nothing needs recounting.

namespace imaged {

// Limits of each project; nothing: unlimited.
struct QuotaLimits {
  std::optional<uint64_t> images;        // image_count_total
  std::optional<uint64_t> bytes;         // image_size_total
  std::optional<uint64_t> staged_bytes;  // image_stage_total
  std::optional<uint64_t> uploads;       // image_count_uploading
};

// What one image, or a whole project, takes. Value type.
struct Usage {
  uint64_t images = 0;
  uint64_t bytes = 0;  // of data; while it is on its way, what was reserved for it
  uint64_t staged_bytes = 0;
  uint64_t uploads = 0;
  bool operator==(const Usage&) const = default;
};

Usage UsageOf(const Image& image);

// `used` - `before` + `after`; kQuotaExceeded where a number grows over its limit (one that shrinks
// or stays may be over: the limit may have been lowered). kCorruption if `used` is less than
// `before`.
base::Result<Usage> ChangeUsage(const QuotaLimits& limits, const Usage& used, const Usage& before,
                                const Usage& after);

std::string EncodeUsage(const Usage& usage);
base::Result<Usage> DecodeUsage(std::string_view bytes);

}  // namespace imaged
