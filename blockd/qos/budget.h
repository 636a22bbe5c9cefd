#pragma once

#include <array>
#include <cstdint>

#include "blockd/qos/gcra.h"
#include "blockd/qos/limiter.h"
#include "blockd/qos/limits.h"

namespace blockd::qos {

// All limits of one volume or project. Pure; one thread at a time.
class Budget {
 public:
  void Set(const Limits& limits, int64_t now_ns);
  bool limited() const { return limited_; }

  int64_t ReadyAt(Direction direction, int64_t now_ns) const;
  void Charge(Direction direction, uint64_t bytes, int64_t now_ns);

  // Since the last call: how much of what the limits promise was used, of the limit that was used
  // most (above 1 in a burst); then counts anew. 0 without limits.
  double TakeUse(int64_t elapsed_ns);

 private:
  // Calls visit(gcra, cost, used) for the limits that an I/O meets.
  template <typename Self, typename Visit>
  static void ForEach(Self& self, Direction direction, const Visit& visit);

  struct One {
    Gcra gcra;
    uint64_t used = 0;
  };
  Limits limits_;
  bool limited_ = false;
  std::array<One, kScopes> iops_;
  std::array<One, kScopes> bytes_;
};

}  // namespace blockd::qos
