#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/files.h"
#include "base/result.h"

namespace chunkstore {

// Immutable named byte strings: chunks, map pages and manifests in their stored form (FORMAT.md).
// Implementations: files (local/) and memory/; the contract leaves room for RADOS objects.
//
// A name is never used twice (ChunkStore puts a random part into each), so a late removal can never
// hit a newer blob, and nobody needs a lock to remove. Thread-safe.
class BlobStore {
 public:
  virtual ~BlobStore() = default;

  static constexpr size_t kMaxNameBytes = 100;  // [0-9a-f-] only
  static constexpr uint64_t kMaxBlobBytes = 8 * base::kMiB;

  struct Properties {
    bool has_files = false;    // OpenFile works: blobs can leave by sendfile
    size_t parallel_gets = 1;  // requests that GetMany keeps in flight at once
    // What a blob takes on disk is its length rounded up to a multiple of this.
    uint64_t allocation_unit_bytes = 1;
  };
  virtual const Properties& properties() const = 0;

  // Stores the pieces, one after the other, under `name`; durable when it returns: concurrent calls
  // share syncs. A Put that fails or is cut off by a crash may leave a part of the blob behind:
  // garbage under a name that nothing refers to. kAlreadyExists, kOutOfSpace, kTooLarge,
  // kInvalidArgument (name), kIo.
  virtual base::Result<void> Put(std::string_view name, std::span<const base::ByteView> pieces) = 0;

  // Reads exactly into.size() bytes from `offset`. kNotFound; kCorruption when the blob is shorter.
  virtual base::Result<void> Get(std::string_view name, uint64_t offset,
                                 base::MutableByteView into) = 0;

  struct GetRequest {
    std::string name;
    uint64_t offset = 0;
    base::MutableByteView into;
    base::Result<void> result;  // filled in
  };
  // All of them, as concurrently as the store can; answers each on its own.
  virtual void GetMany(std::span<GetRequest> requests) = 0;

  // kNotFound.
  virtual base::Result<uint64_t> Size(std::string_view name) = 0;

  // Fine if it is not there.
  virtual base::Result<void> Remove(std::string_view name) = 0;

  // Every name with its length, in any order; `visit` returns false to stop. What is put or removed
  // meanwhile may be seen or not.
  using Visitor = std::function<bool(std::string_view name, uint64_t size_bytes)>;
  virtual base::Result<void> List(const Visitor& visit) = 0;

  // The file that holds the blob (whole, from offset 0). kInvalidArgument unless
  // properties().has_files.
  virtual base::Result<std::shared_ptr<base::File>> OpenFile(std::string_view name) = 0;

  // Capacity and what is left of it.
  virtual base::Result<base::SpaceInfo> Space() = 0;
};

// For implementations: kInvalidArgument unless `name` is 1 .. kMaxNameBytes of [0-9a-f-]; so a name
// is never a path, and never hides from List.
base::Result<void> CheckBlobName(std::string_view name);

// For implementations: the bytes of all pieces. kTooLarge beyond kMaxBlobBytes.
base::Result<uint64_t> CheckedBlobSize(std::span<const base::ByteView> pieces);

}  // namespace chunkstore
