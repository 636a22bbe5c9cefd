#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/thread_annotations.h"
#include "chunkstore/meta_store.h"

namespace support {

// One process's view of a MetaStore that several share: lets a test do something (as another
// process) just before one of its commits, or lose the answer to it. Borrows what it wraps.
// Thread-safe.
class HookedMetaStore : public chunkstore::MetaStore {
 public:
  explicit HookedMetaStore(chunkstore::MetaStore& inner) : inner_(inner) {}

  using Wanted = std::function<bool(std::string_view partition, const chunkstore::MetaBatch&)>;

  // Before the next commit that is `wanted`: once.
  void BeforeCommit(Wanted wanted, std::function<void()> act) {
    base::MutexLock lock(mutex_);
    before_ = {std::move(wanted), std::move(act)};
  }
  // The next commit that is `wanted` is done, and says that it failed: once.
  void LoseAnswer(Wanted wanted) {
    base::MutexLock lock(mutex_);
    lost_ = {std::move(wanted), [] {}};
  }

  base::Result<std::string> Get(std::string_view partition, std::string_view key) override {
    return inner_.Get(partition, key);
  }
  base::Result<void> Scan(std::string_view partition, std::string_view from, std::string_view to,
                          size_t limit, const Visitor& visit) override {
    return inner_.Scan(partition, from, to, limit, visit);
  }
  base::Result<void> ScanReverse(std::string_view partition, std::string_view from,
                                 std::string_view to, size_t limit, const Visitor& visit) override {
    return inner_.ScanReverse(partition, from, to, limit, visit);
  }
  base::Result<void> Commit(std::string_view partition,
                            const chunkstore::MetaBatch& batch) override {
    const std::function<void()> act = Take(&before_, partition, batch);
    if (act) act();
    const bool lost = Take(&lost_, partition, batch) != nullptr;
    base::Result<void> done = inner_.Commit(partition, batch);
    if (lost && done.has_value()) return base::Error(base::Code::kIo, "the answer was lost");
    return done;
  }
  base::Result<void> Sync() override { return inner_.Sync(); }
  base::Result<std::vector<std::string>> Partitions(std::string_view prefix) override {
    return inner_.Partitions(prefix);
  }

 private:
  struct Hook {
    Wanted wanted;
    std::function<void()> act;
  };
  std::function<void()> Take(Hook* hook, std::string_view partition,
                             const chunkstore::MetaBatch& batch) {
    base::MutexLock lock(mutex_);
    if (!hook->wanted || !hook->wanted(partition, batch)) return nullptr;
    return std::exchange(*hook, Hook()).act;
  }

  chunkstore::MetaStore& inner_;
  base::Mutex mutex_;
  Hook before_;
  Hook lost_;
};

// Commits that put a key which begins so in this partition.
inline HookedMetaStore::Wanted Puts(std::string in, std::string prefix) {
  return [in = std::move(in), prefix = std::move(prefix)](std::string_view partition,
                                                          const chunkstore::MetaBatch& batch) {
    if (partition != in) return false;
    for (const auto& change : batch.changes())
      if (change.value.has_value() && change.key.starts_with(prefix)) return true;
    return false;
  };
}

}  // namespace support
