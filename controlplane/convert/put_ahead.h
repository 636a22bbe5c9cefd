#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <thread>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "chunkstore/chunk_store.h"

namespace controlplane::convert {

// So many chunks of one conversion are stored side by side: each waits for the disk, and those that
// wait at the same time share that. As much memory, and one chunk more.
constexpr size_t kPutsAtOnce = 4;

// Puts chunks into an ingest on threads of its own, while who makes them makes the next. One thread
// calls it.
class PutAhead {
 public:
  // `ingest` outlives it.
  explicit PutAhead(chunkstore::Ingest& ingest);
  ~PutAhead();  // waits for what was put
  PutAhead(const PutAhead&) = delete;
  PutAhead& operator=(const PutAhead&) = delete;

  // Memory for a chunk, with whatever is in it; waits until there is some.
  base::Buffer Take();
  // The first `length` bytes of what Take gave are chunk number `index`. The first error of any
  // chunk so far; after one nothing more is put.
  base::Result<void> Put(uint64_t index, base::Buffer chunk, size_t length);
  // Waits until all is put; the first error of any.
  base::Result<void> Finish();

 private:
  struct Chunk {
    uint64_t index = 0;
    base::Buffer bytes;
    size_t length = 0;
  };

  void Run();
  base::Result<void> FirstError() REQUIRES(mutex_);

  chunkstore::Ingest& ingest_;
  base::Mutex mutex_;
  base::CondVar changed_;
  std::deque<Chunk> waiting_ GUARDED_BY(mutex_);
  std::vector<base::Buffer> free_ GUARDED_BY(mutex_);
  size_t running_ GUARDED_BY(mutex_) = 0;
  bool ending_ GUARDED_BY(mutex_) = false;
  std::optional<base::Error> error_ GUARDED_BY(mutex_);
  std::vector<std::thread> threads_;
};

}  // namespace controlplane::convert
