#pragma once

#include <cstdint>
#include <string>

#include "base/clock.h"
#include "base/result.h"
#include "blockd/rbd/ledger.h"

namespace blockd::rbd {

// Which processes live, as far as the records tell: each renews a lease. What a process without a
// lease began is given up by the others, and its volumes are taken over; it may still run, so
// nothing that matters rests on its being gone: records change by comparison, volumes by fencing.
// Clocks of hosts may differ by less than half a lease. Thread-safe.
class Sessions {
 public:
  // All borrowed.
  Sessions(Ledger& ledger, const base::Clock& clock, int64_t lease_ms);

  const std::string& mine() const { return mine_; }
  // Takes or renews the lease; about three times a lease.
  base::Result<void> Beat();
  // On an orderly stop.
  void End();
  // True for `mine`, whatever its lease.
  base::Result<bool> Lives(const std::string& session);
  // Forgets those that ended long ago.
  base::Result<void> ForgetOld();

 private:
  Ledger& ledger_;
  const base::Clock& clock_;
  const int64_t lease_us_;
  const std::string mine_;
};

}  // namespace blockd::rbd
