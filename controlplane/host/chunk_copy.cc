#include "controlplane/host/chunk_copy.h"

#include <algorithm>
#include <optional>
#include <thread>
#include <vector>

#include "base/thread_annotations.h"
#include "chunkstore/blob_format.h"

namespace controlplane::host {

using base::Code;
using base::Error;
using base::Result;

namespace {

// What the threads of one copy share.
class Copy {
 public:
  Copy(ImageVolume& volume, std::span<const uint64_t> chunks, const CopySink& sink)
      : volume_(volume), chunks_(chunks), sink_(sink) {}

  void Run() {
    base::Buffer buffer(chunkstore::kChunkBytes);
    while (const std::optional<uint64_t> number = Next()) {
      const base::MutableByteView bytes = buffer.view().first(ChunkBytes(volume_.shape(), *number));
      const Result<ImageVolume::Fetched> fetched = volume_.CopyChunk(*number, bytes);
      if (fetched.has_value()) {
        Deliver({*number, bytes, *fetched});
      } else {
        Fail(fetched.error());
      }
    }
  }

  Result<void> outcome() {
    base::MutexLock lock(mutex_);
    return outcome_;
  }

 private:
  std::optional<uint64_t> Next() {
    base::MutexLock lock(mutex_);
    if (!outcome_.has_value() || next_ == chunks_.size()) return std::nullopt;
    return chunks_[next_++];
  }

  void Deliver(const CopiedChunk& chunk) {
    base::MutexLock lock(mutex_);
    if (outcome_.has_value() && !sink_(chunk)) outcome_ = Error(Code::kCancelled, "called off");
  }

  void Fail(const Error& error) {
    base::MutexLock lock(mutex_);
    if (outcome_.has_value()) outcome_ = error;
  }

  ImageVolume& volume_;
  const std::span<const uint64_t> chunks_;
  const CopySink& sink_;
  base::Mutex mutex_;
  size_t next_ GUARDED_BY(mutex_) = 0;
  Result<void> outcome_ GUARDED_BY(mutex_);
};

}  // namespace

Result<void> CopyChunks(ImageVolume& volume, std::span<const uint64_t> chunks,
                        const CopySink& sink) {
  Copy copy(volume, chunks, sink);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < std::min(kCopyThreads, chunks.size()); ++i)
    threads.emplace_back([&copy] { copy.Run(); });
  for (std::thread& thread : threads) thread.join();
  return copy.outcome();
}

}  // namespace controlplane::host
