#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/files.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "blockd/chunk/live_pages.h"
#include "blockd/volume.h"

namespace blockd::chunk {

// What a write layer knows of a block.
enum class BlockState : uint8_t {
  kAbsent = 0,  // nothing: what lies below shows
  kData = 1,    // its bytes lie in the layer's data file
  kZero = 2,    // it reads as zeros, whatever lies below
};

// Blocks on one page of the map, two bits each: 64 MiB of a volume.
constexpr uint64_t kBlocksPerPage = kMapPageBytes * 4;

// The exact record of which blocks a layer holds: in memory, and in the file `<layer>.map`.
//
// The file: a header of one page (magic, version, the layer's id, XXH3 of all that), then page n at
// (1 + n) * kMapPageBytes, with block b of the page in bits 2 * (b % 32) of the little-endian
// 64-bit word b / 32. What the file is too short for is absent. There is no checksum over a page,
// as each two bits stand alone: a torn page is a mixture of old and new states, all of which were
// right to write.
//
// Pages are read at their first touch and stay: 64 KiB of memory a GiB that is touched. It is
// memory that outlives the process, if it can be (LivePages). What a process before this one left
// there is newer than the file: those pages are loaded from the start, and dirty.
//
// Thread-safe; states change one word at a time, so whoever needs more holds a lock of his own.
// Errors: kIo, kOutOfSpace of the file; kCorruption for a state 3 or a bad header.
class LayerMap {
 public:
  // A new file; not durable before Sync, nor is its name. Without `pages` it has private ones.
  static base::Result<std::unique_ptr<LayerMap>> Create(base::Files& files, const std::string& path,
                                                        const std::string& id,
                                                        std::unique_ptr<LivePages> pages = nullptr);
  static base::Result<std::unique_ptr<LayerMap>> Open(base::Files& files, const std::string& path,
                                                      const std::string& id,
                                                      std::unique_ptr<LivePages> pages = nullptr);
  ~LayerMap();

  struct Run {
    BlockState state = BlockState::kAbsent;
    uint64_t blocks = 0;
  };
  // The blocks from `block` on that have the same state: at most `limit` (at least 1), and possibly
  // fewer than there are (never beyond a page).
  base::Result<Run> RunAt(uint64_t block, uint64_t limit);
  // The same where the page is in memory; nothing where it would have to be read.
  base::Result<bool> TryRunAt(uint64_t block, uint64_t limit, Run* run);

  base::Result<void> Set(uint64_t block, uint64_t count, BlockState state);

  // Pages as they were when they were taken, on their way to the disk.
  struct Copy {
    struct Page {
      uint64_t number = 0;
      std::array<uint64_t, kMapPageBytes / 8> words;
    };
    std::vector<Page> pages;  // ascending
  };
  // Takes up to `limit` pages that changed since they were last taken, longest waiting first. Every
  // change whose Set returned before is in it, or was taken before.
  Copy TakeDirty(size_t limit);
  size_t dirty_pages() const EXCLUDES(dirty_mutex_);
  // Writes a copy; not durable before Sync. After an error its pages count as dirty again.
  base::Result<void> Write(const Copy& copy);
  base::Result<void> Sync() { return file_->Sync(); }

  // The next process is to find what is in the file, and nothing else.
  void DiscardLive() { pages_->Discard(); }

 private:
  static constexpr uint64_t kFanOut = 512;
  struct Directory {
    std::array<std::atomic<MapWords*>, kFanOut> pages{};
    std::array<std::atomic<bool>, kFanOut> dirty{};
  };
  static_assert(kFanOut * kFanOut == kMaxMapPages);
  static_assert(kMaxMapPages * kBlocksPerPage * kBlockBytes == kMaxVolumeBytes);

  LayerMap(std::unique_ptr<base::File> file, uint64_t file_bytes, std::unique_ptr<LivePages> pages)
      : file_(std::move(file)),
        file_bytes_(file_bytes),
        pages_(pages ? std::move(pages) : LivePages::Private()) {}
  MapWords* Find(uint64_t number) const;
  base::Result<MapWords*> Load(uint64_t number) EXCLUDES(load_mutex_);
  base::Result<void> Read(uint64_t number, LivePages::Words* words) const;
  void Install(uint64_t number, MapWords* page) REQUIRES(load_mutex_);
  void Adopt() EXCLUDES(load_mutex_);
  void MarkDirty(uint64_t number) EXCLUDES(dirty_mutex_);
  static Run RunIn(const MapWords& page, uint64_t block, uint64_t limit);

  const std::unique_ptr<base::File> file_;
  const uint64_t file_bytes_;  // when it was opened: pages beyond are new
  const std::unique_ptr<LivePages> pages_;
  std::array<std::atomic<Directory*>, kFanOut> root_{};
  base::Mutex load_mutex_;
  mutable base::Mutex dirty_mutex_;
  std::vector<uint64_t> dirty_ GUARDED_BY(dirty_mutex_);  // each at most once
};

}  // namespace blockd::chunk
