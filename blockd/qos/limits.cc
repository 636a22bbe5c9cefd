#include "blockd/qos/limits.h"

#include <algorithm>
#include <optional>

#include "base/text.h"

namespace blockd::qos {
namespace {

// Far above any device; products with nanoseconds and sizes stay within 128 bits.
constexpr uint64_t kMaxPerSecond = uint64_t{1} << 50;
constexpr uint64_t kMaxBurstSeconds = 24 * 3600;

base::Error Bad(const std::string& key, const std::string& why) {
  return base::Error(base::Code::kInvalidArgument, "qos key " + key + ": " + why);
}

// Nothing if the key is not there.
base::Result<std::optional<uint64_t>> Number(const Spec& spec, const std::string& key,
                                             uint64_t limit = kMaxPerSecond) {
  const auto found = spec.find(key);
  if (found == spec.end()) return std::optional<uint64_t>();
  const std::string& text = found->second;
  const std::optional<uint64_t> value = base::ParseNumber<uint64_t>(text);
  if (!value.has_value() || *value > limit)
    return Bad(key, "\"" + text + "\" is no number from 0 to " + std::to_string(limit));
  return value;
}

base::Result<Rate> ParseRate(const Spec& spec, const std::string& key, uint64_t size_gb) {
  ASSIGN_OR_RETURN(const std::optional<uint64_t> fixed, Number(spec, key));
  ASSIGN_OR_RETURN(const std::optional<uint64_t> max, Number(spec, key + "_max"));
  ASSIGN_OR_RETURN(const std::optional<uint64_t> length,
                   Number(spec, key + "_max_length", kMaxBurstSeconds));
  ASSIGN_OR_RETURN(const std::optional<uint64_t> per_gb, Number(spec, key + "_per_gb"));
  ASSIGN_OR_RETURN(const std::optional<uint64_t> least, Number(spec, key + "_per_gb_min"));
  if (per_gb.has_value()) {
    if (fixed.has_value()) return Bad(key, "stands beside " + key + "_per_gb");
    if (size_gb > 0 && *per_gb > kMaxPerSecond / size_gb) return Bad(key + "_per_gb", "too large");
    const uint64_t value = std::max(*per_gb * size_gb, least.value_or(0));
    return Rate{.per_second = std::min(value, max.value_or(value))};
  }
  if (max.value_or(0) == 0) return Rate{.per_second = fixed.value_or(0)};
  if (fixed.value_or(0) == 0) return Bad(key + "_max", "a burst needs " + key);
  if (*max < *fixed) return Bad(key + "_max", "is below " + key);
  const uint64_t seconds = length.value_or(1);
  if (seconds == 0) return Bad(key + "_max_length", "a burst lasts a second at least");
  if (*max == *fixed) return Rate{.per_second = *fixed};
  return Rate{*fixed, *max, seconds};
}

}  // namespace

bool Limits::limited() const {
  const auto is_limited = [](const Rate& rate) { return rate.limited(); };
  return std::any_of(iops.begin(), iops.end(), is_limited) ||
         std::any_of(bytes.begin(), bytes.end(), is_limited);
}

base::Result<Limits> ParseSpec(const Spec& spec, uint64_t size_gb) {
  const char* const scopes[kScopes] = {"read", "write", "total"};
  Limits limits;
  for (size_t i = 0; i < kScopes; ++i) {
    const std::string scope = scopes[i];
    ASSIGN_OR_RETURN(limits.iops[i], ParseRate(spec, scope + "_iops_sec", size_gb));
    ASSIGN_OR_RETURN(limits.bytes[i], ParseRate(spec, scope + "_bytes_sec", size_gb));
  }
  for (const auto* rates : {&limits.iops, &limits.bytes}) {
    if ((*rates)[2].limited() && ((*rates)[0].limited() || (*rates)[1].limited())) {
      return Bad(rates == &limits.iops ? "total_iops_sec" : "total_bytes_sec",
                 "can't stand beside a limit for read or write");
    }
  }
  ASSIGN_OR_RETURN(const std::optional<uint64_t> size, Number(spec, "size_iops_sec"));
  limits.size_iops_bytes = size.value_or(0);
  return limits;
}

}  // namespace blockd::qos
