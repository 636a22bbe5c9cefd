#include "controlplane/host/replay.h"

#include <algorithm>
#include <numeric>
#include <span>
#include <utility>

namespace controlplane::host {

using base::Code;
using base::Error;
using base::Result;

namespace {

// Makes one batch a chunk of the blocks, chunks in the order in which they come up.
void AppendWindow(const BootTrace& window, std::vector<Replay::Batch>* batches) {
  const size_t begin = batches->size();
  for (const BlockRun& run : window) {
    const auto same = [&](const Replay::Batch& batch) { return batch.chunk == run.chunk; };
    auto found = std::find_if(batches->begin() + static_cast<long>(begin), batches->end(), same);
    if (found == batches->end()) found = batches->insert(batches->end(), {run.chunk, {}});
    for (uint32_t i = 0; i < run.count; ++i) found->numbers.push_back(run.first + i);
  }
  for (size_t i = begin; i < batches->size(); ++i) {
    std::vector<size_t>& numbers = (*batches)[i].numbers;
    std::ranges::sort(numbers);
    numbers.erase(std::unique(numbers.begin(), numbers.end()), numbers.end());
  }
}

}  // namespace

std::vector<Replay::Batch> Replay::OfTrace(const BootTrace& trace) {
  std::vector<Batch> batches;
  BootTrace window;
  size_t blocks = 0;
  for (BlockRun run : trace) {
    while (run.count > 0) {
      const auto count = static_cast<uint32_t>(std::min<size_t>(run.count, kWindowBlocks - blocks));
      window.push_back({run.chunk, run.first, count});
      run.first += count;
      run.count -= count;
      blocks += count;
      if (blocks < kWindowBlocks) continue;
      AppendWindow(std::exchange(window, {}), &batches);
      blocks = 0;
    }
  }
  AppendWindow(window, &batches);
  return batches;
}

std::vector<Replay::Batch> Replay::OfAll(const Shape& shape) {
  std::vector<Batch> batches;
  for (uint64_t chunk = 0; chunk < shape.holes.size(); ++chunk)
    if (!shape.holes[chunk]) batches.push_back({chunk, {}});
  return batches;
}

Replay::Replay(std::shared_ptr<ImageVolume> volume, Background& background,
               std::vector<Batch> batches)
    : volume_(std::move(volume)), background_(background), batches_(std::move(batches)) {}

void Replay::Start() {
  const size_t at_once = std::min(Background::kLowThreads, batches_.size());
  for (size_t i = 0; i < at_once; ++i) {
    base::MutexLock lock(mutex_);
    ++running_;
    if (background_.RunLow([self = shared_from_this()] { self->Next(); })) continue;
    --running_;
    if (running_ == 0) outcome_ = Error(Code::kUnavailable, "too much is being fetched already");
    break;
  }
}

void Replay::Cancel() {
  base::MutexLock lock(mutex_);
  cancelled_ = true;
  outcome_ = Error(Code::kCancelled, "called off");
}

Result<void> Replay::Run(const Batch& batch) {
  if (!batch.numbers.empty()) return volume_->Warm(batch.chunk, batch.numbers);
  ASSIGN_OR_RETURN(const Tables::Ref table, volume_->TableOf(batch.chunk));
  std::vector<size_t> numbers(table->blocks.size());
  std::iota(numbers.begin(), numbers.end(), 0);
  for (std::span<const size_t> left(numbers); !left.empty();) {
    const size_t count = std::min(left.size(), kRequestBlocks);
    RETURN_IF_ERROR(volume_->Warm(batch.chunk, left.first(count)));
    left = left.subspan(count);
  }
  return {};
}

// One batch, and then again, from the end of the lane: others get their turn.
void Replay::Next() {
  size_t mine = 0;
  {
    base::MutexLock lock(mutex_);
    if (cancelled_ || next_ == batches_.size()) {
      --running_;
      changed_.NotifyAll();
      return;
    }
    mine = next_++;
  }
  const Result<void> brought = Run(batches_[mine]);
  base::MutexLock lock(mutex_);
  ++done_;
  if (!brought.has_value() && !cancelled_) {
    cancelled_ = true;
    outcome_ = brought.error();
  }
  if (!background_.RunLow([self = shared_from_this()] { self->Next(); })) {
    --running_;
    cancelled_ = true;
    if (outcome_.has_value()) outcome_ = Error(Code::kCancelled, "too much else is being fetched");
  }
  changed_.NotifyAll();
}

Replay::State Replay::Wait(int64_t timeout_ms) {
  base::MutexLock lock(mutex_);
  const size_t before = done_;
  while (running_ > 0 && done_ == before)
    if (!changed_.WaitForMs(mutex_, timeout_ms)) break;
  return {done_, batches_.size(), running_ == 0, outcome_};
}

}  // namespace controlplane::host
