#pragma once

#include <atomic>
#include <set>
#include <string>
#include <string_view>
#include <thread>

#include "base/thread_annotations.h"
#include "chunkstore/ceph/ceph_meta_store.h"
#include "chunkstore/ceph/heads.h"
#include "chunkstore/ceph/objects.h"

namespace chunkstore::ceph {

// The thread that empties heads (Spiller). Nobody keeps count of a head's keys: each changed key
// has a small chance to make the thread look, so that of many processes one looks in time, however
// often they start anew. Thread-safe.
class SpillQueue {
 public:
  // Borrows all but the options.
  SpillQueue(Objects& objects, Heads& heads, const CephMetaOptions& options);
  // Waits for the step in hand.
  ~SpillQueue();

  void Changed(std::string_view partition, size_t keys) EXCLUDES(mutex_);

 private:
  void Work() EXCLUDES(mutex_);

  Objects& objects_;
  Heads& heads_;
  const CephMetaOptions options_;
  std::atomic<bool> stopping_ = false;
  base::Mutex mutex_;
  base::CondVar changed_;
  std::set<std::string> waiting_ GUARDED_BY(mutex_);
  std::thread thread_;  // last: it uses what is above
};

}  // namespace chunkstore::ceph
