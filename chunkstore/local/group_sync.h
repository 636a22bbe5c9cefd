#pragma once

#include <string>
#include <vector>

#include "base/files.h"
#include "base/thread_annotations.h"

namespace chunkstore::local {

// Makes new files durable, bytes and names, for many threads at once: while one thread syncs, the
// others gather, and the next leader syncs for all of them. A folder that got several files is
// synced once, and so is the file system's journal. Thread-safe.
class GroupSync {
 public:
  // `files` is borrowed.
  explicit GroupSync(base::Files& files) : files_(files) {}

  // Returns when the bytes of `file` and its name in `folder` are durable.
  base::Result<void> Sync(base::File& file, const std::string& folder);

 private:
  struct Waiter {
    base::File* file;
    const std::string* folder;
    base::Result<void> result;
    bool done = false;
  };
  void SyncAll(const std::vector<Waiter*>& waiters);

  base::Files& files_;
  base::Mutex mutex_;
  base::CondVar changed_;
  std::vector<Waiter*> waiting_ GUARDED_BY(mutex_);
  bool has_leader_ GUARDED_BY(mutex_) = false;
};

}  // namespace chunkstore::local
