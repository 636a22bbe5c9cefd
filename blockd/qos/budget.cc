#include "blockd/qos/budget.h"

#include <algorithm>

namespace blockd::qos {

template <typename Self, typename Visit>
void Budget::ForEach(Self& self, Direction direction, const Visit& visit) {
  const size_t own = direction == Direction::kRead ? 0 : 1;
  for (const size_t scope : {own, static_cast<size_t>(Scope::kTotal)}) {
    if (self.iops_[scope].gcra.limited()) visit(self.iops_[scope], true);
    if (self.bytes_[scope].gcra.limited()) visit(self.bytes_[scope], false);
  }
}

void Budget::Set(const Limits& limits, int64_t now_ns) {
  limits_ = limits;
  limited_ = limits.limited();
  for (size_t i = 0; i < kScopes; ++i) {
    iops_[i].gcra.Set(limits.iops[i], now_ns);
    bytes_[i].gcra.Set(limits.bytes[i], now_ns);
    iops_[i].used = bytes_[i].used = 0;
  }
}

int64_t Budget::ReadyAt(Direction direction, int64_t now_ns) const {
  int64_t ready_ns = now_ns;
  if (!limited_) return ready_ns;
  ForEach(*this, direction,
          [&](const One& one, bool) { ready_ns = std::max(ready_ns, one.gcra.ReadyAt(now_ns)); });
  return ready_ns;
}

void Budget::Charge(Direction direction, uint64_t bytes, int64_t now_ns) {
  if (!limited_) return;
  const uint64_t size = limits_.size_iops_bytes;
  const uint64_t operations =
      size == 0 ? 1 : std::max<uint64_t>(1, bytes / size + (bytes % size != 0 ? 1 : 0));
  ForEach(*this, direction, [&](One& one, bool is_iops) {
    const uint64_t cost = is_iops ? operations : bytes;
    one.gcra.Charge(cost, now_ns);
    one.used += cost;
  });
}

double Budget::TakeUse(int64_t elapsed_ns) {
  double most = 0;
  const double seconds = static_cast<double>(elapsed_ns) * 1e-9;
  const auto take = [&](std::array<One, kScopes>& all, const std::array<Rate, kScopes>& rates) {
    for (size_t i = 0; i < kScopes; ++i) {
      const double promised = static_cast<double>(rates[i].per_second) * seconds;
      if (promised > 0) most = std::max(most, static_cast<double>(all[i].used) / promised);
      all[i].used = 0;
    }
  };
  take(iops_, limits_.iops);
  take(bytes_, limits_.bytes);
  return most;
}

}  // namespace blockd::qos
