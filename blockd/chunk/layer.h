#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/files.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "blockd/chunk/block_ranges.h"
#include "blockd/chunk/layer_map.h"
#include "blockd/chunk/writers.h"

namespace blockd::chunk {

// What was written to a volume since some point in time: `<id>.data`, sparse, the bytes at their
// offsets in the volume; `<id>.map`, which blocks of it count; and what the map will be, in memory
// that outlives the process (LivePages).
//
// Durability. Flush makes durable what was written before it began. The rule that makes it right: a
// state reaches the disk only after the bytes that it speaks of. States are set in memory after the
// write of the bytes returned; Flush copies the changed pages of the map, syncs the data, and only
// then writes the copies and syncs the map. So after a crash every sector that was not flushed is
// as before or as written, and no block counts as held without its bytes. (Zeroed bytes may be
// punched out before the state is on disk: then the block reads as zeros a little early, as it
// may.)
//
// The bytes have no checksums while they lie here: what is overwritten in place, and not flushed,
// could not be told from rot after a crash. They get theirs when the layer is sealed.
//
// A process that is killed takes nothing with it: written bytes are in the kernel's page cache, and
// their states in live pages. Whoever opens the layer next in the same boot goes on with both, as
// not flushed yet. Bytes and states are set in the order above, so what was not acknowledged is
// old or new then, too.
//
// A sync of the kernel's that failed may have dropped the bytes it was for, and the next one would
// not tell: so after it the layer is spoiled, and every further Write and Flush says kIo. Its live
// pages are given up, as the bytes may not be what they say: the next process finds what was
// synced.
//
// Thread-safe, but calls that change the same block are the caller's to keep apart.
class Layer {
 public:
  using Live = std::shared_ptr<LiveDir>;  // null: states are in the process's own memory

  // Makes the files, durably. kAlreadyExists.
  static base::Result<std::shared_ptr<Layer>> Create(base::Files& files, const std::string& dir,
                                                     const std::string& id,
                                                     const Live& live = nullptr);
  // kNotFound, kCorruption. One object of a layer at a time.
  static base::Result<std::shared_ptr<Layer>> Open(base::Files& files, const std::string& dir,
                                                   const std::string& id,
                                                   const Live& live = nullptr);
  // One that is clean leaves no live pages.
  ~Layer();
  Layer(const Layer&) = delete;
  Layer& operator=(const Layer&) = delete;

  // Removes the files, if they are there. Who has the layer open reads on.
  static base::Result<void> Remove(base::Files& files, const std::string& dir,
                                   const std::string& id, const Live& live = nullptr);
  // The id in a name of one of its files, or nothing.
  static std::string IdOfFile(const std::string& name);

  const std::string& id() const { return id_; }
  LayerMap& map() { return *map_; }
  // Of whoever changes the layer, to be counted by himself.
  Writers& writers() { return writers_; }

  // Bytes of blocks whose state is kData.
  base::Result<void> ReadAt(uint64_t offset, base::MutableByteView into) const {
    return data_->ReadAt(offset, into);
  }
  base::Result<bool> TryReadAt(uint64_t offset, base::MutableByteView into) const {
    return data_->TryReadAt(offset, into);
  }
  void WillRead(uint64_t offset, uint64_t length) const { data_->WillRead(offset, length); }

  // Writes the pieces one after the other from `offset`; the blocks that they touch are kData then.
  // Where a piece ends inside a block, that block must have been kData before. After an error the
  // blocks that were kData hold old or new sectors, the others are as they were.
  base::Result<void> Write(uint64_t offset, std::span<const base::ByteView> pieces);

  // Gives the blocks a state that needs no bytes (kZero, kAbsent). `give_back`: the space of those
  // that were kData is to be given back, by PunchHoles.
  base::Result<void> Clear(uint64_t block, uint64_t count, BlockState state, bool give_back);

  // Where space is to be given back. Not remembered beyond the process: what a crash leaves there
  // is given back with the whole layer, when it was sealed.
  const BlockRanges& holes() const { return holes_; }
  // Gives it back in that range, as far as the file system can and the blocks hold no bytes again.
  // May take long on a busy disk.
  void PunchHoles(BlockRange within);

  // Takes the disk space of `size_bytes` now.
  base::Result<void> Allocate(uint64_t size_bytes) { return data_->Allocate(size_bytes); }

  // Calls that come while one runs share the next.
  base::Result<void> Flush() EXCLUDES(mutex_);
  // Whether a Flush would have anything to do.
  bool clean() const;

 private:
  Layer(std::string id, std::unique_ptr<base::File> data, std::unique_ptr<LayerMap> map)
      : id_(std::move(id)), data_(std::move(data)), map_(std::move(map)) {}
  base::Result<void> CheckSound() const;
  void Punch(BlockRange range);
  base::Result<void> FlushOnce();
  base::Result<void> Spoil(base::Result<void> synced);

  const std::string id_;
  const std::unique_ptr<base::File> data_;
  const std::unique_ptr<LayerMap> map_;
  Writers writers_;
  BlockRanges holes_;
  std::atomic<bool> unsynced_ = false;  // a write returned that no sync began after
  std::atomic<bool> spoiled_ = false;

  base::Mutex mutex_;
  base::CondVar round_ended_;
  uint64_t begun_rounds_ GUARDED_BY(mutex_) = 0;
  uint64_t ended_rounds_ GUARDED_BY(mutex_) = 0;
  base::Result<void> last_round_ GUARDED_BY(mutex_);
};

}  // namespace blockd::chunk
