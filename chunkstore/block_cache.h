#pragma once

#include <cstdint>
#include <memory>

#include "base/hash.h"
#include "base/metrics.h"
#include "base/thread_annotations.h"
#include "chunkstore/blob_format.h"
#include "chunkstore/map.h"
#include "chunkstore/references_format.h"

namespace chunkstore {

// A blob that was opened: what its record and its own table say. Value type.
struct OpenBlob {
  BlobRef ref;
  uint32_t stored_length = 0;
  BlobTable table;
};

// What was read, verified and decoded: tables of blobs with blocks of theirs, and map pages, under
// one hard limit of bytes.
//
// A read finds the chunk, and by its place the block: one look-up, of an index that has an entry a
// chunk and so is small. The bytes are copied out while a lock is held that only readers share, so
// a hit counts no references. Thread-safe.
//
// S3-FIFO: a newcomer enters a small queue and leaves it soon unless it is asked for again, so one
// long scan can't push out what is used often; who left lately and comes back enters the main queue
// at once. A table that leaves takes its blocks along: none of them was used since it was. What
// Find handed out outlives its eviction.
class BlockCache {
 public:
  // The most that one call of Copy copies: what one who changes something may have to wait for.
  static constexpr size_t kMaxCopyBytes = 256 * base::kKiB;

  BlockCache(uint64_t limit_bytes, base::Metrics& metrics);
  ~BlockCache();

  // A miss after which nobody goes to the store is not to be counted.
  enum class Miss { kCounted, kUncounted };

  // Null: not here.
  std::shared_ptr<const OpenBlob> FindBlob(const base::Digest256& id);
  std::shared_ptr<const MapPage> FindPage(const base::Digest256& id, Miss miss = Miss::kCounted);

  // Copies plain bytes of a chunk, from `offset` on, as far as one block after the other is here;
  // returns how many, 0 if the first is not here or the chunk is not of `plain_length`. REQUIRES:
  // offset < plain_length.
  size_t Copy(const base::Digest256& id, uint32_t plain_length, uint32_t offset,
              base::MutableByteView into, Miss miss);
  bool HasBlock(const base::Digest256& id, const Block& block);

  // What is larger than the limit is not kept. A blob and a page replace what has their id; a
  // blob's blocks go with what is replaced.
  void InsertBlob(std::shared_ptr<const OpenBlob> blob);
  void InsertPage(const base::Digest256& id, std::shared_ptr<const MapPage> page);
  // Kept if the chunk's table is here and has such a block. `plain`: plain_length bytes.
  void InsertBlock(const base::Digest256& id, const Block& block, std::unique_ptr<uint8_t[]> plain);
  // Of the blob, with its blocks.
  void EraseBlob(const base::Digest256& id);

  uint64_t size_bytes() const;

 private:
  enum class Kind : uint8_t { kBlob, kPage };
  struct Key {
    base::Digest256 id;
    Kind kind = Kind::kBlob;
    bool operator==(const Key&) const = default;
  };
  enum class Why { kEvicted, kErased };
  struct KeyHash;
  struct Item;
  struct BlockItem;
  struct Blocks;
  struct Node;
  struct Stripe;
  class Queues;

  Stripe& StripeOf(const base::Digest256& id) const;
  std::shared_ptr<const void> Find(const Key& key, Miss miss);
  Node* FindNode(const Key& key) REQUIRES(mutex_);
  void InsertNode(const Key& key, std::shared_ptr<const void> value, uint64_t bytes);
  void AddBlocks(Node& node, uint64_t bytes) REQUIRES(mutex_);
  bool MakeRoom(uint64_t bytes) REQUIRES(mutex_);
  // A table or page is destroyed, with its blocks.
  void Remove(Item& item, Why why) REQUIRES(mutex_);
  void CountMiss(Miss miss);

  const uint64_t limit_bytes_;
  base::Counter& hits_;
  base::Counter& misses_;
  // Who changes anything holds mutex_, and besides that of a stripe to change what is found there.
  mutable base::Mutex mutex_;
  const std::unique_ptr<Queues> queues_;
  const std::unique_ptr<Stripe[]> stripes_;
};

}  // namespace chunkstore
