#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <set>
#include <utility>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/thread_annotations.h"
#include "controlplane/host/remote_image.h"

namespace controlplane::host {

// Which blocks of an image are read first, in order: the trace of a boot. It begins with the first
// read and lasts a time. If hardly anything was read then, that was a look at the disk (`nbdinfo`,
// `qemu-img info`, a probe for partitions). A boot reads pieces here and there; who reads most of
// every chunk that he comes to makes a copy, however far he got. Neither is a boot: it begins anew
// with the next read. Thread-safe.
class TraceRecorder {
 public:
  // Beyond either it is a copy of the image, not a boot: it is given up.
  static constexpr size_t kMaxBlocks = 32'768;
  static constexpr uint64_t kMaxBytes = 512 * base::kMiB;
  // Of the blocks of chunks that were touched, the part from which on it is a copy. A Debian boot
  // reads a third, or less.
  static constexpr size_t kCopyPart = 3;
  static constexpr size_t kCopyOf = 4;
  // Below it is no boot: a Linux kernel with an initial RAM disk has read more.
  static constexpr uint64_t kMinBytes = 1 * base::kMiB;

  // `clock` is borrowed.
  TraceRecorder(int64_t window_ms, const base::Clock& clock)
      : window_ns_(window_ms * 1'000'000), clock_(clock) {}

  // Blocks `first` to `last` of a chunk of `blocks`, `bytes` of the image together, are read.
  void Note(uint64_t chunk, size_t blocks, size_t first, size_t last, uint64_t bytes);
  // Something was read that may be a boot.
  bool begun() const;
  // True once the window is over, or the recording given up.
  bool ended() const;
  // What was recorded; nothing unless the window is over and it is worth keeping. Once.
  std::optional<BootTrace> Take();

 private:
  bool EndedLocked() const REQUIRES(mutex_);
  // The window is over, and it was no boot.
  bool LapsedLocked() const REQUIRES(mutex_);
  bool IsBootLocked() const REQUIRES(mutex_);

  const int64_t window_ns_;
  const base::Clock& clock_;
  mutable base::Mutex mutex_;
  bool given_up_ GUARDED_BY(mutex_) = false;
  bool begun_ GUARDED_BY(mutex_) = false;
  int64_t until_ns_ GUARDED_BY(mutex_) = 0;
  uint64_t bytes_ GUARDED_BY(mutex_) = 0;
  std::set<std::pair<uint64_t, size_t>> seen_ GUARDED_BY(mutex_);
  std::set<uint64_t> chunks_ GUARDED_BY(mutex_);
  size_t blocks_of_chunks_ GUARDED_BY(mutex_) = 0;
  BootTrace trace_ GUARDED_BY(mutex_);
};

}  // namespace controlplane::host
