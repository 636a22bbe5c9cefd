#pragma once

#include <cstdint>

#include "blockd/qos/limits.h"

namespace blockd::qos {

// One limit's state: the generic cell rate algorithm (ITU-T I.371), in whole nanoseconds. It keeps
// the time at which the budget would be full again; an I/O may go if that is no farther away than
// the bucket is deep, and then moves it by what the I/O costs. What division leaves over is carried
// along, so the rate is exact in the long run. An I/O larger than the bucket waits for a full one,
// and those after it pay.
//
// A rate alone has a bucket of kSlackNs: enough for a timer's lateness, too little to be seen in a
// second. With a burst there are two such buckets, one for each rate, and an I/O needs both.
//
// Pure: time is handed in, and never goes back. One thread at a time.
class Gcra {
 public:
  static constexpr int64_t kSlackNs = 20'000'000;

  // The new rate counts from now on. What was used up stays so, as far as the new bucket is deep: a
  // change is no way to a second burst, and nobody waits for what another rate let go. The same
  // rate again changes nothing.
  void Set(const Rate& rate, int64_t now_ns);
  // When an I/O may go: now_ns, or later.
  int64_t ReadyAt(int64_t now_ns) const;
  void Charge(uint64_t cost, int64_t now_ns);

  bool limited() const { return long_term_.per_second > 0; }

 private:
  struct Bucket {
    uint64_t per_second = 0;
    int64_t depth_ns = 0;
    int64_t full_at_ns = INT64_MIN;
    uint64_t left_over = 0;  // of the last division: less than per_second

    void Set(uint64_t new_per_second, int64_t new_depth_ns, int64_t now_ns);
    int64_t ReadyAt(int64_t now_ns) const;
    void Charge(uint64_t cost, int64_t now_ns);
  };

  Bucket long_term_;
  Bucket burst_;  // unlimited when there is none
};

}  // namespace blockd::qos
