#pragma once

#include <cstdint>
#include <functional>

#include "base/bytes.h"
#include "base/result.h"

// The data path of a volume: what an NBD connection, a converter or a test reads and writes. A
// seam: volumes on the chunk store (blockd/chunk) and, at scale, on Ceph RBD.

namespace blockd {

// The smallest read and write, and what offsets and lengths are multiples of.
constexpr uint32_t kSectorBytes = 512;
// What a volume keeps track of; writes on this grid cost the least.
constexpr uint32_t kBlockBytes = 4096;
constexpr uint64_t kMinVolumeBytes = 1 * base::kGiB;
constexpr uint64_t kMaxVolumeBytes = 16 * base::kTiB;

// A run of a volume with the same state, as NBD's base:allocation tells it.
struct Extent {
  uint64_t offset = 0;
  uint64_t length = 0;
  bool allocated = false;  // takes space, here or in the content below
  bool zero = false;       // reads as zeros
  bool operator==(const Extent&) const = default;
};

// An open volume. Thread-safe: calls run side by side, from any number of connections.
//
// Order and durability are those of a disk with a write-back cache. What a call wrote is seen by
// every call that begins after it returned. What was written before a Flush began is durable when
// that Flush returns, whichever connection wrote it; the rest may be lost in a crash, sector by
// sector, but nothing else is touched by that. Calls that overlap in time and range are in no
// order, but no sector is ever a mixture.
//
// All blocking. Errors: kInvalidArgument off the sector grid or beyond the end; kOutOfSpace;
// kCorruption (what was stored below doesn't verify); kIo, after which a failed Flush is repeated
// for ever: what was not durable then never will be.
class Volume {
 public:
  virtual ~Volume() = default;

  // May grow while the volume is open.
  virtual uint64_t size_bytes() const = 0;

  virtual base::Result<void> Read(uint64_t offset, base::MutableByteView into) = 0;
  // The same if it needs no disk; false, with `into` as it may be, where it would. For a thread
  // that must not wait.
  virtual base::Result<bool> TryRead(uint64_t offset, base::MutableByteView into) = 0;
  virtual base::Result<void> Write(uint64_t offset, base::ByteView data) = 0;

  // True where a request is a message over a network: then Read and Write keep a thread waiting,
  // and who has many requests at once uses these instead. They return without waiting; `done` is
  // called once, perhaps before they return or from a thread that must not be kept, and the memory
  // stays until then.
  using Done = std::function<void(base::Result<void> result)>;
  virtual bool is_remote() const { return false; }
  virtual void ReadAsync(uint64_t offset, base::MutableByteView into, Done done) {
    done(Read(offset, into));
  }
  virtual void WriteAsync(uint64_t offset, base::ByteView data, Done done) {
    done(Write(offset, data));
  }

  // The range reads as zeros afterwards. With `free_space` it takes no space either, as far as
  // whole blocks go.
  virtual base::Result<void> Zero(uint64_t offset, uint64_t length, bool free_space) = 0;

  virtual base::Result<void> Flush() = 0;

  // The range may be read soon: brings it into the cache if that is easy. Promises nothing.
  virtual void Prefetch(uint64_t offset, uint64_t length) = 0;

  // Extents of [offset, offset + length) in order, without a gap; `visit` returns false to stop.
  using ExtentVisitor = std::function<bool(const Extent& extent)>;
  virtual base::Result<void> VisitExtents(uint64_t offset, uint64_t length,
                                          const ExtentVisitor& visit) = 0;
};

// Which parts of a volume are not as one of its snapshots, or an image, has them. Tells too much
// where it is easier (what was written with the bytes it had), never too little: a write that was
// acknowledged before a Visit began is in it. What the snapshot is too small for it has as zeros.
// Thread-safe; blocking. Errors as of Volume, and kNotFound once the other one is gone.
class ChangedBlocks {
 public:
  virtual ~ChangedBlocks() = default;
  // Runs of [offset, offset + length) in order, without a gap; neighbours may be equal. `visit`
  // returns false to stop.
  using Visitor = std::function<bool(uint64_t length, bool changed)>;
  virtual base::Result<void> Visit(uint64_t offset, uint64_t length, const Visitor& visit) = 0;
};

}  // namespace blockd
