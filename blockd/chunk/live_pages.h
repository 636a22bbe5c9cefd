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
#include "blockd/chunk/live_dir.h"

namespace blockd::chunk {

constexpr uint64_t kMapPageBytes = 4096;
constexpr uint64_t kMaxMapPages = uint64_t{1} << 18;  // of one layer
// A page of a layer's map.
using MapWords = std::array<std::atomic<uint64_t>, kMapPageBytes / 8>;

// The memory of the pages of one layer's map. It is mapped from a sparse file in a LiveDir, so that
// a process that was killed leaves the states of blocks as it leaves their bytes, which are in the
// kernel's page cache: only a power loss takes either.
//
// The file: a header of one page (magic, version, the boot's id, the layer's, which file has its
// bytes: device, inode, time of birth, and which time its file system was mounted; XXH3 of all
// that), one bit for each page that is valid (32 KiB), then the pages. No other boot reads it. What
// lies in it is believed if the header is what this process would write: then the bytes that the
// states speak of are in the page cache, or were written out from it since. (A file system that was
// forced away and mounted again has lost its page cache.)
//
// A page for which there is no file, or no room (it is taken before the page is touched: a fault in
// a full file system kills the process), is in the process's own memory.
//
// Thread-safe. Pages live as long as this.
class LivePages {
 public:
  // For a layer whose bytes are in `data`. `dir` may be null. What is found and not to be believed
  // is removed, and that is logged; kIo: it could not be looked at, so it may not be passed over.
  static base::Result<std::unique_ptr<LivePages>> Open(std::shared_ptr<LiveDir> dir,
                                                       const std::string& id,
                                                       const base::File& data);
  static std::unique_ptr<LivePages> Private();
  // Leaves the file: see Discard.
  ~LivePages();
  LivePages(const LivePages&) = delete;
  LivePages& operator=(const LivePages&) = delete;

  // What a process before this one left, by number.
  struct Found {
    uint64_t number = 0;
    MapWords* words = nullptr;
  };
  const std::vector<Found>& found() const { return found_; }

  // Forgets it, and says why. REQUIRES: nobody uses any of it.
  void DropFound(const std::string& why) EXCLUDES(mutex_);

  using Words = std::array<uint64_t, kMapPageBytes / 8>;
  // A page that was neither found nor made before, with these words: those of the map on disk. It
  // is valid from now on.
  MapWords* Make(uint64_t number, const Words& words) EXCLUDES(mutex_);

  // Nothing of what is here is to be found by the next process; pages that are made from now on
  // are private.
  void Discard() EXCLUDES(mutex_);

 private:
  LivePages(std::shared_ptr<LiveDir> dir, std::string id, std::string header)
      : dir_(std::move(dir)), id_(std::move(id)), header_(std::move(header)) {}
  base::Result<void> Adopt() EXCLUDES(mutex_);
  base::Result<void> OpenFile(int flags) REQUIRES(mutex_);
  base::Result<void> Create() REQUIRES(mutex_);
  void CloseFile() REQUIRES(mutex_);
  base::Result<bool> ReadHeader() REQUIRES(mutex_);
  base::Result<void> ReadFound() REQUIRES(mutex_);
  base::Result<void> TakeSpace(uint64_t file_page) REQUIRES(mutex_);
  base::Result<MapWords*> MakeLive(uint64_t number, const Words& words) REQUIRES(mutex_);
  MapWords* At(uint64_t file_page) REQUIRES(mutex_);

  const std::shared_ptr<LiveDir> dir_;
  const std::string id_;
  const std::string header_;  // empty: pages of this layer can't live
  std::vector<Found> found_;

  base::Mutex mutex_;
  int descriptor_ GUARDED_BY(mutex_) = -1;
  uint8_t* mapped_ GUARDED_BY(mutex_) = nullptr;
  bool discarded_ GUARDED_BY(mutex_) = false;
  std::vector<std::unique_ptr<MapWords>> private_ GUARDED_BY(mutex_);
  size_t counted_ GUARDED_BY(mutex_) = 0;  // of them, those that should live
};

}  // namespace blockd::chunk
