#pragma once

#include <cstdint>

#include "base/clock.h"
#include "base/result.h"
#include "chunkstore/meta_store.h"

namespace controlplane::admin {

// When the last scrub ended, kept in the store, so that a service that is restarted daily still
// scrubs weekly. Partition "admin", key "scrubbed_at": microseconds since 1970, decimal.
// Thread-safe.
class ScrubLog {
 public:
  // Both are borrowed and outlive it.
  ScrubLog(chunkstore::MetaStore& meta, const base::Clock& clock) : meta_(meta), clock_(clock) {}

  // How long until a scrub is due that runs every `interval_ms`; 0 if it is. A store that never was
  // scrubbed counts from the first time that somebody asks.
  base::Result<int64_t> DueInMs(int64_t interval_ms);

  // A scrub of the whole store ended now.
  base::Result<void> Ended();

 private:
  chunkstore::MetaStore& meta_;
  const base::Clock& clock_;
};

}  // namespace controlplane::admin
