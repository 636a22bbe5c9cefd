#pragma once

#include "base/result.h"
#include "blockd/jobs.h"

// Every status that passes has something behind it: a job in the journal, or a lease. This proves
// it at start and now and then, and puts right what has neither (an administrator's reset-status, a
// client that reserved and went away).

namespace blockd {

struct ReconcileReport {
  size_t settled = 0;    // volumes, snapshots and attachments that were put right
  size_t published = 0;  // exports that were opened again
  size_t unnamed = 0;    // volumes of the store that no record names: logged, and left alone
};

// Once at start, before jobs run and requests come. Publishes the exports of attached volumes again
// under their old names, logs what the store has and no record names, then does as Reconcile. Where
// no other process is at work (World::serving is null) it first makes the jobs of the last run due;
// else those wait until their leases are over.
base::Result<ReconcileReport> ReconcileAtStart(const Jobs::World& world, Jobs& jobs);

// While the service runs; beside other processes it also takes over what limits they were told of
// and ends what they detached. `attach_lease_ms`: what an attachment that is connected gets anew.
base::Result<ReconcileReport> Reconcile(const Jobs::World& world, Jobs& jobs,
                                        int64_t attach_lease_ms);

}  // namespace blockd
