#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>

#include "base/result.h"

// What a volume (or a project) may do, as a value, and how Cinder's qos-specs say it.

namespace blockd::qos {

// One limit. All zero: none.
struct Rate {
  uint64_t per_second = 0;
  // Above per_second: after a rest, this much per second for burst_seconds, exactly: as many units
  // altogether as burst_per_second * burst_seconds, then per_second.
  uint64_t burst_per_second = 0;
  uint64_t burst_seconds = 1;

  bool limited() const { return per_second > 0; }
  bool operator==(const Rate&) const = default;
};

// What a limit is on. kTotal counts reads and writes together.
enum class Scope { kRead, kWrite, kTotal };
constexpr size_t kScopes = 3;

struct Limits {
  std::array<Rate, kScopes> iops;   // by Scope
  std::array<Rate, kScopes> bytes;  // by Scope
  // An I/O counts as one for each size_iops_bytes that it begins; 0: always as one.
  uint64_t size_iops_bytes = 0;

  bool limited() const;
  bool operator==(const Limits&) const = default;
};

// From the keys of a qos-spec: {total,read,write}_{iops,bytes}_sec with _max, _max_length, _per_gb
// and _per_gb_min, and size_iops_sec. With _per_gb the rate is size_gb times it, at least
// _per_gb_min, and _max is its ceiling, as in Cinder; without, _max is the rate of a burst. Keys
// that are not of these are somebody else's and left alone. kInvalidArgument, naming the key, for a
// value that is no number, total beside read or write, a burst without a rate or not above it.
using Spec = std::map<std::string, std::string>;
base::Result<Limits> ParseSpec(const Spec& spec, uint64_t size_gb);

}  // namespace blockd::qos
