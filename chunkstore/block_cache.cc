#include "chunkstore/block_cache.h"

#include <algorithm>

#include "base/bytes.h"

namespace chunkstore {
namespace {

using base::MutexLock;

constexpr uint64_t kMinShardBytes = 4 * base::kMiB;  // a shard takes many of the largest blocks
constexpr uint64_t kMaxShards = 16;
constexpr uint64_t kEntryBytes = 256;  // what an entry costs beside its value
constexpr uint64_t kSmallShare = 10;   // the small queue is a tenth
constexpr size_t kMaxGhosts = 4096;    // a shard
constexpr uint8_t kMaxUses = 3;
constexpr uint64_t kHitsTogether = 64;  // counted at once: all threads would meet at the counter

}  // namespace

BlockCache::BlockCache(uint64_t limit_bytes, base::Metrics& metrics)
    : hits_(metrics.GetCounter("quarry_chunkstore_cache_hits_total",
                               "Reads of blocks, tables and map pages that memory answered.")),
      misses_(metrics.GetCounter("quarry_chunkstore_cache_misses_total",
                                 "Reads of blocks, tables and map pages that went to the store.")) {
  const uint64_t shards = std::clamp<uint64_t>(limit_bytes / kMinShardBytes, 1, kMaxShards);
  shard_limit_bytes_ = limit_bytes / shards;
  for (uint64_t i = 0; i < shards; ++i) shards_.push_back(std::make_unique<Shard>());
}

BlockCache::Shard& BlockCache::ShardOf(const Key& key) {
  // Other bits than the map inside the shard uses first.
  return *shards_[(KeyHash()(key) >> 48) % shards_.size()];
}

std::shared_ptr<const void> BlockCache::FindAny(const Key& key, Miss miss) {
  Shard& shard = ShardOf(key);
  MutexLock lock(shard.mutex);
  auto it = shard.index.find(key);
  if (it == shard.index.end()) {
    if (miss == Miss::kCounted) misses_.Add();
    return nullptr;
  }
  if (++shard.hits == kHitsTogether) {
    hits_.Add(kHitsTogether);
    shard.hits = 0;
  }
  Entry& entry = *it->second;
  if (entry.uses < kMaxUses) ++entry.uses;
  return entry.value;
}

void BlockCache::Insert(const Key& key, std::shared_ptr<const void> value, uint64_t bytes) {
  bytes += kEntryBytes;
  if (bytes > shard_limit_bytes_) return;
  Shard& shard = ShardOf(key);
  MutexLock lock(shard.mutex);
  EraseLocked(shard, key);
  MakeRoom(shard, bytes);
  const auto ghost = shard.ghost_index.find(KeyHash()(key));
  const bool in_main = ghost != shard.ghost_index.end();
  if (in_main) {
    shard.ghosts.erase(ghost->second);
    shard.ghost_index.erase(ghost);
  }
  Queue& queue = in_main ? shard.main : shard.small;
  queue.push_front({key, std::move(value), bytes, 0, in_main});
  shard.index[key] = queue.begin();
  (in_main ? shard.main_bytes : shard.small_bytes) += bytes;
}

void BlockCache::Erase(const Key& key) {
  Shard& shard = ShardOf(key);
  MutexLock lock(shard.mutex);
  EraseLocked(shard, key);
}

void BlockCache::EraseLocked(Shard& shard, const Key& key) {
  const auto it = shard.index.find(key);
  if (it == shard.index.end()) return;
  const auto entry = it->second;
  (entry->in_main ? shard.main_bytes : shard.small_bytes) -= entry->bytes;
  (entry->in_main ? shard.main : shard.small).erase(entry);
  shard.index.erase(it);
}

void BlockCache::MakeRoom(Shard& shard, uint64_t bytes) {
  while (shard.small_bytes + shard.main_bytes + bytes > shard_limit_bytes_) {
    const bool small_is_over = shard.small_bytes > shard_limit_bytes_ / kSmallShare;
    if (!shard.small.empty() && (small_is_over || shard.main.empty()))
      EvictSmall(shard);
    else
      EvictMain(shard);
  }
}

// The oldest newcomer goes to the main queue if it was asked for meanwhile, or else leaves.
void BlockCache::EvictSmall(Shard& shard) {
  const auto oldest = std::prev(shard.small.end());
  shard.small_bytes -= oldest->bytes;
  if (oldest->uses > 0) {
    oldest->uses = 0;
    oldest->in_main = true;
    shard.main_bytes += oldest->bytes;
    shard.main.splice(shard.main.begin(), shard.small, oldest);
    return;
  }
  AddGhost(shard, KeyHash()(oldest->key));
  shard.index.erase(oldest->key);
  shard.small.erase(oldest);
}

// Used since: another round, with one use less. So a scan of the queue ends after at most kMaxUses
// rounds.
void BlockCache::EvictMain(Shard& shard) {
  const auto oldest = std::prev(shard.main.end());
  if (oldest->uses > 0) {
    --oldest->uses;
    shard.main.splice(shard.main.begin(), shard.main, oldest);
    return;
  }
  shard.main_bytes -= oldest->bytes;
  shard.index.erase(oldest->key);
  shard.main.erase(oldest);
}

void BlockCache::AddGhost(Shard& shard, size_t hash) {
  const auto known = shard.ghost_index.find(hash);
  if (known != shard.ghost_index.end()) shard.ghosts.erase(known->second);
  shard.ghosts.push_front(hash);
  shard.ghost_index[hash] = shard.ghosts.begin();
  if (shard.ghosts.size() <= kMaxGhosts) return;
  shard.ghost_index.erase(shard.ghosts.back());
  shard.ghosts.pop_back();
}

uint64_t BlockCache::size_bytes() const {
  uint64_t bytes = 0;
  for (const auto& shard : shards_) {
    MutexLock lock(shard->mutex);
    bytes += shard->small_bytes + shard->main_bytes;
  }
  return bytes;
}

}  // namespace chunkstore
