#pragma once

#include <atomic>
#include <cstdint>
#include <thread>

#include "base/clock.h"
#include "base/thread_annotations.h"
#include "chunkstore/chunk_store.h"
#include "controlplane/admin/admin_service.h"
#include "controlplane/admin/scrub_log.h"
#include "controlplane/admin/shared_operations.h"

namespace controlplane::admin {

struct ScheduleOptions {
  int64_t gc_interval_ms = 0;     // 0: never
  int64_t scrub_interval_ms = 0;  // 0: never
  // The store's, where other processes have it, too: they collect by turns. Borrowed.
  chunkstore::MetaStore* shared = nullptr;
};

// Runs the collector now and then, and a scrub more rarely, on a thread of its own. Collections
// count from the start of the service, scrubs from the last one that ran to its end, whoever asked
// for it and whenever the service was started. The destructor calls off what runs and joins.
class Schedule {
 public:
  // All are borrowed and outlive it.
  Schedule(ScheduleOptions options, chunkstore::ChunkStore& store, AdminService& admin,
           ScrubLog& scrubs, const base::Clock& clock);
  ~Schedule();

  // Calls off what runs and joins. Idempotent.
  void Stop();

 private:
  void Run();
  void CollectNow();
  int64_t NextScrubNs();

  const ScheduleOptions options_;
  chunkstore::ChunkStore& store_;
  AdminService& admin_;
  ScrubLog& scrubs_;
  const base::Clock& clock_;
  SharedTurn collect_turn_;
  std::atomic<bool> stopping_ = false;
  base::Mutex mutex_;
  base::CondVar wake_;
  std::thread thread_;
};

}  // namespace controlplane::admin
