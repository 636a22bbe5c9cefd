#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/thread_annotations.h"
#include "controlplane/host/image_volume.h"

namespace controlplane::host {

// Brings blocks of an image into the cache, in order, in the background's low lane, a few requests
// at a time: the trace of a boot, or the whole image. Thread-safe.
class Replay : public std::enable_shared_from_this<Replay> {
 public:
  // Blocks of a trace that are put in order by chunk, so that a chunk is one request: 1 MiB of
  // usual ones.
  static constexpr size_t kWindowBlocks = 32;
  // Blocks in one request of a whole chunk.
  static constexpr size_t kRequestBlocks = 64;

  // Of one chunk; no numbers: all that it has.
  struct Batch {
    uint64_t chunk = 0;
    std::vector<size_t> numbers;
  };
  static std::vector<Batch> OfTrace(const BootTrace& trace);
  static std::vector<Batch> OfAll(const Shape& shape);

  Replay(std::shared_ptr<ImageVolume> volume, Background& background, std::vector<Batch> batches);

  // Begins; what could not be brought ends it. The image stays open meanwhile.
  void Start();
  void Cancel();

  struct State {
    size_t done = 0;  // batches
    size_t total = 0;
    bool ended = false;  // nothing of it runs any more
    base::Result<void> outcome;
  };
  // Waits until it ended, or some more was brought, or the time ran out.
  State Wait(int64_t timeout_ms);

 private:
  void Next();
  base::Result<void> Run(const Batch& batch);

  const std::shared_ptr<ImageVolume> volume_;
  Background& background_;
  const std::vector<Batch> batches_;

  base::Mutex mutex_;
  base::CondVar changed_;
  size_t next_ GUARDED_BY(mutex_) = 0;
  size_t done_ GUARDED_BY(mutex_) = 0;
  size_t running_ GUARDED_BY(mutex_) = 0;
  bool cancelled_ GUARDED_BY(mutex_) = false;
  base::Result<void> outcome_ GUARDED_BY(mutex_);
};

}  // namespace controlplane::host
