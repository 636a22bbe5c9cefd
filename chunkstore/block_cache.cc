#include "chunkstore/block_cache.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstring>
#include <deque>
#include <unordered_map>
#include <unordered_set>

#include <boost/intrusive/list.hpp>

#include "base/bytes.h"
#include "base/check.h"
#include "base/shared_mutex.h"

namespace chunkstore {
namespace {

using base::Digest256;
using base::MutableByteView;
using base::MutexLock;
using base::ReaderLock;
using base::WriterLock;

constexpr size_t kStripes = 64;
constexpr uint64_t kNodeBytes = 256;  // what a table or page costs beside itself
constexpr uint64_t kAllocationBytes = 16;
constexpr uint64_t kSmallShare = 10;  // the small queue is a tenth
constexpr uint8_t kMaxUses = 3;
constexpr uint64_t kHitsTogether = 64;  // counted at once: all threads would meet at the counter

// Which block holds a byte, in a few cache lines a chunk: blocks begin on the grid, so a bit a
// place of the grid tells where, and the bits up to there are counted.
class Grid {
 public:
  explicit Grid(const std::vector<Block>& blocks) {
    for (const Block& block : blocks) {
      const uint32_t place = block.plain_offset / kBlockGridBytes;
      begins_[place / 64] |= uint64_t{1} << (place % 64);
    }
    for (size_t i = 1; i < kWords; ++i)
      before_[i] = static_cast<uint16_t>(before_[i - 1] + std::popcount(begins_[i - 1]));
  }
  // REQUIRES: plain_offset < the chunk's length.
  size_t BlockAt(uint32_t plain_offset) const {
    const uint32_t place = plain_offset / kBlockGridBytes;
    const uint64_t up_to_here = begins_[place / 64] << (63 - place % 64);
    return before_[place / 64] + static_cast<size_t>(std::popcount(up_to_here)) - 1;
  }

 private:
  static constexpr size_t kWords = kChunkBytes / kBlockGridBytes / 64;
  std::array<uint64_t, kWords> begins_{};
  std::array<uint16_t, kWords> before_{};  // blocks that begin before the word
};

}  // namespace

struct BlockCache::KeyHash {
  size_t operator()(const Key& key) const {
    return std::hash<Digest256>()(key.id) + static_cast<size_t>(key.kind);
  }
};

// What stands in a queue.
struct BlockCache::Item
    : boost::intrusive::list_base_hook<boost::intrusive::link_mode<boost::intrusive::normal_link>> {
  // Readers do it side by side: one that is lost does not matter.
  void Use() {
    const uint8_t so_far = uses.load(std::memory_order_relaxed);
    if (so_far < kMaxUses) uses.store(so_far + 1, std::memory_order_relaxed);
  }

  Node* node = nullptr;  // itself, or whose block it is
  uint32_t bytes = 0;
  bool in_main = false;
  std::atomic<uint8_t> uses = 0;  // since it entered its queue, at most kMaxUses
};

struct BlockCache::BlockItem : Item {
  uint32_t offset = 0;
  uint32_t length = 0;
  std::unique_ptr<uint8_t[]> plain;  // null: not here, and in no queue
};

struct BlockCache::Blocks {
  explicit Blocks(Node& node);
  static uint64_t BytesFor(const BlobTable& table) {
    return sizeof(Blocks) + table.blocks.size() * sizeof(BlockItem);
  }
  BlockItem* At(uint32_t plain_offset) { return &items[grid.BlockAt(plain_offset)]; }
  // Null: not one of these. It may not be here.
  BlockItem* Find(const Block& block) {
    if (block.plain_offset >= plain_length) return nullptr;
    BlockItem* item = At(block.plain_offset);
    const bool same = item->offset == block.plain_offset && item->length == block.plain_length;
    return same ? item : nullptr;
  }

  const uint32_t plain_length;
  const Grid grid;
  std::vector<BlockItem> items;
};

struct BlockCache::Node : Item {
  const Key* key = nullptr;
  std::shared_ptr<const void> value;  // OpenBlob, MapPage
  std::unique_ptr<Blocks> blocks;     // null until there is one

  const BlobTable& table() const { return static_cast<const OpenBlob*>(value.get())->table; }
};

BlockCache::Blocks::Blocks(Node& node)
    : plain_length(node.table().plain_length),
      grid(node.table().blocks),
      items(node.table().blocks.size()) {
  for (size_t number = 0; number < items.size(); ++number) {
    const Block& block = node.table().blocks[number];
    items[number].node = &node;
    items[number].offset = block.plain_offset;
    items[number].length = block.plain_length;
  }
}

struct alignas(64) BlockCache::Stripe {
  void CountHit(base::Counter& counter) {
    if (hits.fetch_add(1, std::memory_order_relaxed) % kHitsTogether == kHitsTogether - 1)
      counter.Add(kHitsTogether);
  }

  base::SharedMutex mutex;
  std::atomic<uint64_t> hits = 0;
  std::unordered_map<Key, Node, KeyHash> nodes GUARDED_BY(mutex);
};

// Who has to leave. Owns none of the items.
class BlockCache::Queues {
 public:
  explicit Queues(uint64_t limit_bytes)
      : max_small_bytes_(limit_bytes / kSmallShare), max_ghosts_(limit_bytes / kMinBlockBytes) {}

  uint64_t bytes() const { return small_.bytes + main_.bytes; }

  void Add(Item& item, uint64_t bytes) {
    item.bytes = static_cast<uint32_t>(bytes);
    item.uses.store(0, std::memory_order_relaxed);
    Push(item, /*in_main=*/ghosts_.erase(HashOf(item)) > 0);
  }
  // Who was evicted and never was in the main queue is remembered.
  void Remove(Item& item, Why why) {
    Take(item);
    if (why != Why::kEvicted || item.in_main || !ghosts_.insert(HashOf(item)).second) return;
    ghosts_in_order_.push_back(HashOf(item));
    if (ghosts_in_order_.size() <= max_ghosts_) return;
    ghosts_.erase(ghosts_in_order_.front());
    ghosts_in_order_.pop_front();
  }
  void Grow(Item& item, uint64_t bytes) {
    item.bytes += static_cast<uint32_t>(bytes);
    QueueOf(item).bytes += bytes;
  }

  // The next to leave; it still stands in its queue. Who was used meanwhile goes from the small
  // queue to the main one, and there another round with one use less: so this ends after at most
  // kMaxUses rounds. REQUIRES: there are items.
  Item& Next() {
    for (;;) {
      const bool from_small =
          !small_.items.empty() && (small_.bytes > max_small_bytes_ || main_.items.empty());
      Item& oldest = (from_small ? small_ : main_).items.back();
      const uint8_t uses = oldest.uses.load(std::memory_order_relaxed);
      if (uses == 0) return oldest;
      oldest.uses.store(from_small ? 0 : uses - 1, std::memory_order_relaxed);
      Take(oldest);
      Push(oldest, /*in_main=*/true);
    }
  }

 private:
  struct Queue {
    boost::intrusive::list<Item, boost::intrusive::constant_time_size<false>>
        items;  // newest first
    uint64_t bytes = 0;
  };

  static size_t HashOf(const Item& item) {
    const Node& node = *item.node;
    const size_t hash = KeyHash()(*node.key);
    if (&item == &node) return hash;
    const auto number = static_cast<const BlockItem*>(&item) - node.blocks->items.data();
    return hash ^ (static_cast<size_t>(number + 1) * 0x9E3779B97F4A7C15ULL);
  }
  Queue& QueueOf(const Item& item) { return item.in_main ? main_ : small_; }
  void Take(Item& item) {
    Queue& queue = QueueOf(item);
    queue.items.erase(queue.items.iterator_to(item));
    queue.bytes -= item.bytes;
  }
  void Push(Item& item, bool in_main) {
    item.in_main = in_main;
    Queue& queue = QueueOf(item);
    queue.items.push_front(item);
    queue.bytes += item.bytes;
  }

  const uint64_t max_small_bytes_;
  const size_t max_ghosts_;
  Queue small_;
  Queue main_;
  // Hashes of what left the small queue. Who comes back is one no more, but leaves the order late.
  std::unordered_set<size_t> ghosts_;
  std::deque<size_t> ghosts_in_order_;
};

BlockCache::BlockCache(uint64_t limit_bytes, base::Metrics& metrics)
    : limit_bytes_(limit_bytes),
      hits_(metrics.GetCounter("quarry_chunkstore_cache_hits_total",
                               "Reads of blocks, tables and map pages that memory answered.")),
      misses_(metrics.GetCounter("quarry_chunkstore_cache_misses_total",
                                 "Reads of blocks, tables and map pages that went to the store.")),
      queues_(std::make_unique<Queues>(limit_bytes)),
      stripes_(std::make_unique<Stripe[]>(kStripes)) {}

BlockCache::~BlockCache() = default;

BlockCache::Stripe& BlockCache::StripeOf(const Digest256& id) const {
  return stripes_[id.bytes.back() % kStripes];
}

void BlockCache::CountMiss(Miss miss) {
  if (miss == Miss::kCounted) misses_.Add();
}

// --- finding

std::shared_ptr<const void> BlockCache::Find(const Key& key, Miss miss) {
  Stripe& stripe = StripeOf(key.id);
  ReaderLock lock(stripe.mutex);
  const auto it = stripe.nodes.find(key);
  if (it == stripe.nodes.end()) {
    CountMiss(miss);
    return nullptr;
  }
  stripe.CountHit(hits_);
  it->second.Use();
  return it->second.value;
}

std::shared_ptr<const OpenBlob> BlockCache::FindBlob(const Digest256& id) {
  return std::static_pointer_cast<const OpenBlob>(Find({id, Kind::kBlob}, Miss::kCounted));
}

std::shared_ptr<const MapPage> BlockCache::FindPage(const Digest256& id, Miss miss) {
  return std::static_pointer_cast<const MapPage>(Find({id, Kind::kPage}, miss));
}

size_t BlockCache::Copy(const Digest256& id, uint32_t plain_length, uint32_t offset,
                        MutableByteView into, Miss miss) {
  CHECK(offset < plain_length);
  into = into.first(std::min(into.size(), kMaxCopyBytes));
  Stripe& stripe = StripeOf(id);
  ReaderLock lock(stripe.mutex);
  const auto it = stripe.nodes.find({id, Kind::kBlob});
  size_t copied = 0;
  if (it != stripe.nodes.end() && it->second.blocks != nullptr &&
      it->second.blocks->plain_length == plain_length) {
    Blocks& blocks = *it->second.blocks;
    const BlockItem* const end = blocks.items.data() + blocks.items.size();
    for (BlockItem* item = blocks.At(offset); item != end && item->plain != nullptr; ++item) {
      const size_t from = offset + copied - item->offset;
      const size_t count = std::min(into.size() - copied, item->length - from);
      std::memcpy(into.data() + copied, item->plain.get() + from, count);
      copied += count;
      item->Use();
      if (copied == into.size()) break;
    }
  }
  if (copied == 0) {
    CountMiss(miss);
    return 0;
  }
  stripe.CountHit(hits_);
  it->second.Use();
  return copied;
}

bool BlockCache::HasBlock(const Digest256& id, const Block& block) {
  Stripe& stripe = StripeOf(id);
  ReaderLock lock(stripe.mutex);
  const auto it = stripe.nodes.find({id, Kind::kBlob});
  if (it == stripe.nodes.end() || it->second.blocks == nullptr) return false;
  const BlockItem* item = it->second.blocks->Find(block);
  return item != nullptr && item->plain != nullptr;
}

// --- changing

BlockCache::Node* BlockCache::FindNode(const Key& key) {
  Stripe& stripe = StripeOf(key.id);
  ReaderLock lock(stripe.mutex);
  const auto it = stripe.nodes.find(key);
  return it != stripe.nodes.end() ? &it->second : nullptr;
}

void BlockCache::InsertBlob(std::shared_ptr<const OpenBlob> blob) {
  const uint64_t bytes = sizeof(OpenBlob) + blob->table.blocks.capacity() * sizeof(Block);
  const Key key{blob->table.id, Kind::kBlob};
  InsertNode(key, std::move(blob), bytes);
}

void BlockCache::InsertPage(const Digest256& id, std::shared_ptr<const MapPage> page) {
  const uint64_t bytes = sizeof(MapPage) + page->entries.capacity() * sizeof(MapPage::Entry);
  InsertNode({id, Kind::kPage}, std::move(page), bytes);
}

void BlockCache::InsertNode(const Key& key, std::shared_ptr<const void> value, uint64_t bytes) {
  bytes += kNodeBytes;
  MutexLock lock(mutex_);
  if (Node* node = FindNode(key)) Remove(*node, Why::kErased);
  if (!MakeRoom(bytes)) return;
  Stripe& stripe = StripeOf(key.id);
  WriterLock change(stripe.mutex);
  const auto it = stripe.nodes.try_emplace(key).first;
  it->second.node = &it->second;
  it->second.key = &it->first;
  it->second.value = std::move(value);
  queues_->Add(it->second, bytes);
}

void BlockCache::InsertBlock(const Digest256& id, const Block& block,
                             std::unique_ptr<uint8_t[]> plain) {
  const Key key{id, Kind::kBlob};
  MutexLock lock(mutex_);
  Node* node = FindNode(key);
  if (node == nullptr) return;
  const uint64_t more = node->blocks ? 0 : Blocks::BytesFor(node->table());
  const uint64_t bytes = block.plain_length + kAllocationBytes;
  if (!MakeRoom(more + bytes)) return;
  node = FindNode(key);
  if (node == nullptr) return;  // it left to make the room
  if (!node->blocks) AddBlocks(*node, more);
  BlockItem* item = node->blocks->Find(block);
  if (item == nullptr || item->plain != nullptr) return;
  queues_->Add(*item, bytes);
  WriterLock change(StripeOf(id).mutex);
  item->plain = std::move(plain);
}

void BlockCache::AddBlocks(Node& node, uint64_t bytes) {
  auto blocks = std::make_unique<Blocks>(node);
  queues_->Grow(node, bytes);
  WriterLock change(StripeOf(node.key->id).mutex);
  node.blocks = std::move(blocks);
}

void BlockCache::EraseBlob(const Digest256& id) {
  MutexLock lock(mutex_);
  if (Node* node = FindNode({id, Kind::kBlob})) Remove(*node, Why::kErased);
}

bool BlockCache::MakeRoom(uint64_t bytes) {
  if (bytes > limit_bytes_) return false;
  while (queues_->bytes() + bytes > limit_bytes_) Remove(queues_->Next(), Why::kEvicted);
  return true;
}

void BlockCache::Remove(Item& item, Why why) {
  Node& node = *item.node;
  Stripe& stripe = StripeOf(node.key->id);
  queues_->Remove(item, why);
  if (&item != &node) {
    std::unique_ptr<uint8_t[]> gone;  // is freed when nobody waits any more
    WriterLock change(stripe.mutex);
    gone = std::move(static_cast<BlockItem&>(item).plain);
    return;
  }
  if (node.blocks) {
    for (BlockItem& block : node.blocks->items) {
      if (block.plain) queues_->Remove(block, why);
    }
  }
  std::unordered_map<Key, Node, KeyHash>::node_type gone;
  WriterLock change(stripe.mutex);
  gone = stripe.nodes.extract(*node.key);
}

uint64_t BlockCache::size_bytes() const {
  MutexLock lock(mutex_);
  return queues_->bytes();
}

}  // namespace chunkstore
