#include "blockd/qos/gcra.h"

#include <algorithm>

namespace blockd::qos {
namespace {

using Wide = unsigned __int128;

constexpr uint64_t kSecondNs = 1'000'000'000;
constexpr int64_t kNeverNs = INT64_MAX / 2;

int64_t Clip(Wide value) { return static_cast<int64_t>(std::min<Wide>(value, kNeverNs)); }

}  // namespace

void Gcra::Bucket::Set(uint64_t new_per_second, int64_t new_depth_ns, int64_t now_ns) {
  if (new_per_second == per_second && new_depth_ns == depth_ns) return;
  int64_t debt_ns = 0;
  if (per_second > 0 && new_per_second > 0 && full_at_ns > now_ns) {
    const Wide units_ns = static_cast<Wide>(full_at_ns - now_ns) * per_second;
    debt_ns = std::min(Clip(units_ns / new_per_second), new_depth_ns);
  }
  per_second = new_per_second;
  depth_ns = new_depth_ns;
  full_at_ns = now_ns + debt_ns;
  left_over = 0;
}

int64_t Gcra::Bucket::ReadyAt(int64_t now_ns) const {
  return per_second == 0 ? now_ns : std::max(now_ns, full_at_ns - depth_ns);
}

void Gcra::Bucket::Charge(uint64_t cost, int64_t now_ns) {
  if (per_second == 0) return;
  if (full_at_ns < now_ns) {
    full_at_ns = now_ns;
    left_over = 0;
  }
  const Wide units_ns = static_cast<Wide>(cost) * kSecondNs + left_over;
  full_at_ns = Clip(static_cast<Wide>(full_at_ns) + units_ns / per_second);
  left_over = static_cast<uint64_t>(units_ns % per_second);
}

void Gcra::Set(const Rate& rate, int64_t now_ns) {
  if (rate.burst_per_second <= rate.per_second) {
    long_term_.Set(rate.per_second, kSlackNs, now_ns);
    burst_.Set(0, 0, now_ns);
    return;
  }
  // What a burst uses beyond the rate, in the time in which the rate makes up for it.
  const Wide extra =
      static_cast<Wide>(rate.burst_per_second - rate.per_second) * rate.burst_seconds * kSecondNs;
  long_term_.Set(rate.per_second, Clip(extra / rate.per_second), now_ns);
  burst_.Set(rate.burst_per_second, kSlackNs, now_ns);
}

int64_t Gcra::ReadyAt(int64_t now_ns) const {
  return std::max(long_term_.ReadyAt(now_ns), burst_.ReadyAt(now_ns));
}

void Gcra::Charge(uint64_t cost, int64_t now_ns) {
  long_term_.Charge(cost, now_ns);
  burst_.Charge(cost, now_ns);
}

}  // namespace blockd::qos
