#include "chunkstore/local/group_sync.h"

#include <map>
#include <utility>

namespace chunkstore::local {

using base::MutexLock;
using base::Result;

Result<void> GroupSync::Sync(base::File& file, const std::string& folder) {
  Waiter self{&file, &folder, {}, false};
  std::vector<Waiter*> group;
  {
    MutexLock lock(mutex_);
    waiting_.push_back(&self);
    while (has_leader_ && !self.done) changed_.Wait(mutex_);
    if (self.done) return std::move(self.result);
    has_leader_ = true;
    group = std::exchange(waiting_, {});
  }
  SyncAll(group);
  MutexLock lock(mutex_);
  has_leader_ = false;
  for (Waiter* waiter : group) waiter->done = true;
  changed_.NotifyAll();
  return std::move(self.result);
}

void GroupSync::SyncAll(const std::vector<Waiter*>& waiters) {
  for (Waiter* waiter : waiters) waiter->result = waiter->file->Sync();
  std::map<std::string, Result<void>> folders;
  for (Waiter* waiter : waiters) {
    auto [entry, is_new] = folders.try_emplace(*waiter->folder);
    if (is_new) entry->second = files_.SyncDir(*waiter->folder);
    if (waiter->result) waiter->result = entry->second;
  }
}

}  // namespace chunkstore::local
