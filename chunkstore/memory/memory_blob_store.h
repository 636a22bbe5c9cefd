#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "base/thread_annotations.h"
#include "chunkstore/blob_store.h"

namespace chunkstore {

// A complete BlobStore in memory: for tests, and for trying things. A Put is durable at once, in so
// far as memory is. Thread-safe.
class MemoryBlobStore : public BlobStore {
 public:
  // A Put beyond the capacity is kOutOfSpace.
  explicit MemoryBlobStore(uint64_t capacity_bytes = 64 * base::kGiB);

  const Properties& properties() const override { return properties_; }
  base::Result<void> Put(std::string_view name, std::span<const base::ByteView> pieces) override;
  base::Result<void> Get(std::string_view name, uint64_t offset,
                         base::MutableByteView into) override;
  void GetMany(std::span<GetRequest> requests) override;
  base::Result<uint64_t> Size(std::string_view name) override;
  base::Result<void> Remove(std::string_view name) override;
  base::Result<void> List(const Visitor& visit) override;
  base::Result<std::shared_ptr<base::File>> OpenFile(std::string_view name) override;
  base::Result<base::SpaceInfo> Space() override;

  // For tests: the disk shrinks or grows.
  void SetCapacity(uint64_t capacity_bytes);
  // For tests: changes one byte of a stored blob. REQUIRES: it exists and has that byte.
  void FlipBit(std::string_view name, uint64_t offset, uint8_t mask);

 private:
  using Blob = std::shared_ptr<std::string>;
  base::Result<Blob> Find(std::string_view name) EXCLUDES(mutex_);

  const Properties properties_{.has_files = false, .parallel_gets = 1};
  base::Mutex mutex_;
  std::map<std::string, Blob, std::less<>> blobs_ GUARDED_BY(mutex_);
  uint64_t used_bytes_ GUARDED_BY(mutex_) = 0;
  uint64_t capacity_bytes_ GUARDED_BY(mutex_);
};

}  // namespace chunkstore
