#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <unordered_map>
#include <vector>

#include "base/bytes.h"
#include "base/metrics.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "controlplane/host/remote_image.h"

namespace controlplane::host {

// A chunk's blocks, and where in the chunk they are. Immutable.
struct ChunkTable {
  RemoteImage::Table blocks;
  std::vector<uint32_t> ends;  // in the chunk's plain bytes

  // kCorruption if they are no `chunk_bytes` together, or a length is none.
  static base::Result<ChunkTable> Of(RemoteImage::Table blocks, uint32_t chunk_bytes);
  // The block that has this byte. REQUIRES: offset < ends.back().
  size_t BlockAt(uint32_t offset) const;
};

// The tables of all images that are open here, in memory, under one limit: 52 bytes a block, which
// is 1.6 MiB for a GiB of usual blocks. What was used longest ago goes first, and is asked for
// again. One call for many waiters, and for neighbours: who reads a chunk soon reads the next.
// Thread-safe; calls block.
class Tables {
 public:
  static constexpr uint64_t kDefaultMemoryBytes = 64 * base::kMiB;
  // In one call: 80 KiB on the wire.
  static constexpr size_t kAtOnce = 16;

  using Ref = std::shared_ptr<const ChunkTable>;

  Tables(uint64_t limit_bytes, base::Metrics& metrics);

  // Of one chunk that is no hole. `image` names the image among all that are open; its tables are
  // brought by `source`, whose errors are answered. What waited for a call that failed is told so.
  base::Result<Ref> Get(uint64_t image, RemoteImage& source, const Shape& shape, uint64_t chunk);
  // Null: not here.
  Ref Find(uint64_t image, uint64_t chunk);
  // One that doesn't fit what the service has now, so that it is asked for again.
  void Drop(uint64_t image, uint64_t chunk);
  // Of an image that is closed.
  void Forget(uint64_t image);

  uint64_t used_bytes() const;

 private:
  struct Key {
    uint64_t image = 0;
    uint64_t chunk = 0;
    auto operator<=>(const Key&) const = default;
  };
  struct Entry {
    Ref table;
    uint64_t bytes = 0;
    std::list<Key>::iterator place;
  };
  // A call that is under way, for all who wait for one of its chunks.
  struct Call {
    bool ended = false;
    base::Result<void> outcome;
  };

  Ref FindLocked(const Key& key) REQUIRES(mutex_);
  void Insert(const Key& key, Ref table) REQUIRES(mutex_);
  void Erase(std::map<Key, Entry>::iterator entry) REQUIRES(mutex_);
  std::vector<uint64_t> Claim(const Key& key, const Shape& shape, std::shared_ptr<Call> call)
      REQUIRES(mutex_);
  base::Result<void> Bring(uint64_t image, RemoteImage& source, const Shape& shape,
                           const std::vector<uint64_t>& chunks);

  const uint64_t limit_bytes_;
  base::Counter& fetched_;
  base::Gauge& memory_;
  mutable base::Mutex mutex_;
  base::CondVar ended_;
  std::map<Key, Entry> entries_ GUARDED_BY(mutex_);
  std::map<Key, std::shared_ptr<Call>> calls_ GUARDED_BY(mutex_);
  std::list<Key> order_ GUARDED_BY(mutex_);  // used longest ago first
  uint64_t used_bytes_ GUARDED_BY(mutex_) = 0;
};

// The length of a chunk of a content.
uint32_t ChunkBytes(const Shape& shape, uint64_t chunk);

}  // namespace controlplane::host
