#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/async/signal.h"
#include "base/async/task.h"
#include "base/bytes.h"
#include "base/fair_shares.h"
#include "base/metrics.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "chunkstore/blob_format.h"

// Memory for the bytes that are on their way in or out, under hard limits: for each transfer and
// for the process.

namespace imaged {

// Chunk buffers of one upload at most: 12 x 4 MiB stay below 64 MiB with room for compression.
constexpr size_t kMaxBuffersOfUpload = 12;

using Refusal = base::FairShares::Refusal;

// A fixed number of chunk buffers for all uploads of the process, shared between projects; used
// ones are kept and handed out again, because fresh memory costs a page fault each 4 KiB.
// Thread-safe.
class BufferPool {
 public:
  explicit BufferPool(size_t limit) : limit_(limit), shares_(limit) {}

  // False, with `why`, if there is none. `project` is any name by which to share.
  bool TryTake(const std::string& project, base::Buffer* buffer, Refusal* why = nullptr);
  void Give(const std::string& project, base::Buffer buffer);

  size_t limit() const { return limit_; }
  size_t in_use() const;
  size_t most_in_use() const;  // ever

 private:
  const size_t limit_;
  mutable base::Mutex mutex_;
  std::vector<base::Buffer> idle_ GUARDED_BY(mutex_);
  base::FairShares shares_ GUARDED_BY(mutex_);
  size_t most_in_use_ GUARDED_BY(mutex_) = 0;
};

class BufferLane;

// A chunk of an upload in memory; its buffer goes back to the lane when the last one lets go.
// Filled by one thread, then only read.
struct ChunkBuffer {
  ~ChunkBuffer();
  base::ByteView view() const { return buffer.view().subspan(0, size); }

  base::Buffer buffer;
  size_t size = 0;
  uint64_t index = 0;
  std::shared_ptr<BufferLane> lane;
};

// The buffers of one upload. It was admitted with one buffer, and keeps one to the end: so it can
// always go on, if slowly, however many others there are. Beyond that it takes what the pool gives
// its project, up to its limit; and while it waits for its client it has that one alone.
//
// One coroutine takes; any thread gives back (by letting go of a ChunkBuffer).
class BufferLane : public std::enable_shared_from_this<BufferLane> {
 public:
  // Waits up to `wait_ms` for a first buffer; then kUnavailable.
  static base::async::Task<base::Result<std::shared_ptr<BufferLane>>> Admit(
      std::shared_ptr<BufferPool> pool, std::string project, int64_t wait_ms);
  // The same on a blocking thread, without waiting; null, with `why`, if there is none.
  static std::shared_ptr<BufferLane> TryAdmit(std::shared_ptr<BufferPool> pool, std::string project,
                                              Refusal* why = nullptr);
  // What to tell a client that waited long enough: kUnavailable.
  static base::Error Refused(Refusal why);
  ~BufferLane();

  // Null: all are in use; wait for `returned` and look again.
  std::shared_ptr<ChunkBuffer> TryTake();
  base::async::Signal& returned() { return returned_; }

 private:
  friend struct ChunkBuffer;
  BufferLane(std::shared_ptr<BufferPool> pool, std::string project, base::Buffer first);
  void Return(base::Buffer buffer);

  const std::shared_ptr<BufferPool> pool_;
  const std::string project_;
  base::async::Signal returned_;
  base::Mutex mutex_;
  std::vector<base::Buffer> idle_ GUARDED_BY(mutex_);  // one while none is in use, else none
  size_t in_use_ GUARDED_BY(mutex_) = 0;
};

// Bytes of decoded pieces on their way out, shared between projects. Thread-safe.
class FairBudget : public std::enable_shared_from_this<FairBudget> {
 public:
  // `in_use`, if given, shows what is taken; borrowed.
  explicit FairBudget(uint64_t limit_bytes, base::Gauge* in_use = nullptr)
      : limit_bytes_(limit_bytes), in_use_(in_use), shares_(limit_bytes) {}

  using Refusal = imaged::Refusal;
  // Given back when the last copy goes.
  using Share = std::shared_ptr<void>;
  // Null, with `why`, if there is none. `project` is any name by which to share.
  Share TryTake(const std::string& project, uint64_t bytes, Refusal* why = nullptr);

  uint64_t used_bytes() const;
  uint64_t limit_bytes() const { return limit_bytes_; }

 private:
  struct Taken;
  void Give(const std::string& project, uint64_t bytes);

  const uint64_t limit_bytes_;
  base::Gauge* const in_use_;
  mutable base::Mutex mutex_;
  base::FairShares shares_ GUARDED_BY(mutex_);
};

// The memory of all downloads: an eighth is for short reads alone, so that one who reads a header
// or a block never waits for those who fetch whole images.
struct DownloadMemory {
  static constexpr uint64_t kShortReadsPart = 8;

  uint64_t used_bytes() const { return images->used_bytes() + short_reads->used_bytes(); }

  const std::shared_ptr<FairBudget> images;
  const std::shared_ptr<FairBudget> short_reads;
};

}  // namespace imaged
