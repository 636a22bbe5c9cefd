#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <unordered_map>
#include <vector>

#include "base/hash.h"
#include "base/metrics.h"
#include "base/thread_annotations.h"

namespace chunkstore {

// What was read, verified and decoded: blocks, tables of blobs, map pages, under one hard limit of
// bytes.
//
// S3-FIFO: a newcomer enters a small queue and leaves it soon unless it is asked for again, so one
// long scan can't push out what is used often; who left lately and comes back enters the main queue
// at once. Sharded by key. Thread-safe. What a reader still holds outlives its eviction.
class BlockCache {
 public:
  // Blocks have their number; these two stand beside them.
  static constexpr uint32_t kTable = 0xFFFFFFFF;
  static constexpr uint32_t kPage = 0xFFFFFFFE;
  struct Key {
    base::Digest256 id;
    uint32_t part = 0;
    bool operator==(const Key&) const = default;
  };

  BlockCache(uint64_t limit_bytes, base::Metrics& metrics);

  // The caller knows the type by the part. Null: not here. A miss after which nobody goes to the
  // store is not to be counted.
  enum class Miss { kCounted, kUncounted };
  template <typename T>
  std::shared_ptr<const T> Find(const Key& key, Miss miss = Miss::kCounted) {
    return std::static_pointer_cast<const T>(FindAny(key, miss));
  }
  // `bytes` is what the value takes. A value larger than a shard is not kept. Replaces.
  void Insert(const Key& key, std::shared_ptr<const void> value, uint64_t bytes);
  void Erase(const Key& key);

  uint64_t size_bytes() const;

 private:
  struct KeyHash {
    size_t operator()(const Key& key) const {
      return std::hash<base::Digest256>()(key.id) ^ (key.part * 0x9E3779B97F4A7C15ULL);
    }
  };
  struct Entry {
    Key key;
    std::shared_ptr<const void> value;
    uint64_t bytes = 0;
    uint8_t uses = 0;  // since it entered its queue, at most 3
    bool in_main = false;
  };
  using Queue = std::list<Entry>;  // newest first
  struct Shard {
    mutable base::Mutex mutex;
    Queue small GUARDED_BY(mutex);
    Queue main GUARDED_BY(mutex);
    std::unordered_map<Key, Queue::iterator, KeyHash> index GUARDED_BY(mutex);
    std::list<size_t> ghosts
        GUARDED_BY(mutex);  // hashes of keys that left the small queue, newest first
    std::unordered_map<size_t, std::list<size_t>::iterator> ghost_index GUARDED_BY(mutex);
    uint64_t small_bytes GUARDED_BY(mutex) = 0;
    uint64_t main_bytes GUARDED_BY(mutex) = 0;
    uint64_t hits GUARDED_BY(mutex) = 0;  // that the counter was not told yet
  };

  std::shared_ptr<const void> FindAny(const Key& key, Miss miss);
  Shard& ShardOf(const Key& key);
  void MakeRoom(Shard& shard, uint64_t bytes) REQUIRES(shard.mutex);
  void EvictSmall(Shard& shard) REQUIRES(shard.mutex);
  void EvictMain(Shard& shard) REQUIRES(shard.mutex);
  void EraseLocked(Shard& shard, const Key& key) REQUIRES(shard.mutex);
  void AddGhost(Shard& shard, size_t hash) REQUIRES(shard.mutex);

  uint64_t shard_limit_bytes_;
  std::vector<std::unique_ptr<Shard>> shards_;
  base::Counter& hits_;
  base::Counter& misses_;
};

}  // namespace chunkstore
