#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/thread_annotations.h"
#include "chunkstore/meta_store.h"

namespace chunkstore {

// A complete MetaStore in memory: for tests. It remembers what was not synced, and can lose it as a
// crash may. Thread-safe.
class MemoryMetaStore : public MetaStore {
 public:
  base::Result<std::string> Get(std::string_view partition, std::string_view key) override;
  base::Result<void> Scan(std::string_view partition, std::string_view from, std::string_view to,
                          size_t limit, const Visitor& visit) override;
  base::Result<void> ScanReverse(std::string_view partition, std::string_view from,
                                 std::string_view to, size_t limit, const Visitor& visit) override;
  base::Result<void> Commit(std::string_view partition, const MetaBatch& batch) override;
  base::Result<void> Sync() override;
  base::Result<std::vector<std::string>> Partitions(std::string_view prefix) override;

  // What a crash of the machine may do: takes back, from each partition, a random number of its
  // last commits that no Sync covered; what is left is durable. The seed decides.
  void Crash(uint64_t seed);

 private:
  using Undo = std::vector<MetaBatch::Change>;  // what the keys of one commit were before
  struct Partition {
    std::map<std::string, std::string, std::less<>> keys;
    std::vector<Undo> unsynced;
  };
  // Copies up to `count` keys of [from, to): the visitor runs without the lock, so that it may call
  // the store.
  using Keys = std::vector<std::pair<std::string, std::string>>;
  Keys Copy(std::string_view partition, std::string_view from, std::string_view to, size_t count,
            bool reverse);

  base::Mutex mutex_;
  std::map<std::string, Partition, std::less<>> partitions_ GUARDED_BY(mutex_);
};

}  // namespace chunkstore
