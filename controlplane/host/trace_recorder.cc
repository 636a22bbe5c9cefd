#include "controlplane/host/trace_recorder.h"

namespace controlplane::host {

bool TraceRecorder::IsBootLocked() const {
  return bytes_ >= kMinBytes && seen_.size() * kCopyOf < blocks_of_chunks_ * kCopyPart;
}

bool TraceRecorder::EndedLocked() const {
  return given_up_ || (begun_ && clock_.MonotonicNs() >= until_ns_ && IsBootLocked());
}

bool TraceRecorder::LapsedLocked() const {
  return !given_up_ && begun_ && clock_.MonotonicNs() >= until_ns_ && !IsBootLocked();
}

bool TraceRecorder::begun() const {
  base::MutexLock lock(mutex_);
  return begun_ && !LapsedLocked();
}

bool TraceRecorder::ended() const {
  base::MutexLock lock(mutex_);
  return EndedLocked();
}

void TraceRecorder::Note(uint64_t chunk, size_t blocks, size_t first, size_t last, uint64_t bytes) {
  base::MutexLock lock(mutex_);
  if (EndedLocked()) return;
  if (!begun_ || LapsedLocked()) {
    begun_ = true;
    bytes_ = 0;
    blocks_of_chunks_ = 0;
    chunks_.clear();
    seen_.clear();
    trace_.clear();
    until_ns_ = clock_.MonotonicNs() + window_ns_;
  }
  bytes_ += bytes;
  if (chunks_.insert(chunk).second) blocks_of_chunks_ += blocks;
  for (size_t number = first; number <= last; ++number) {
    if (!seen_.emplace(chunk, number).second) continue;
    BlockRun* const run = trace_.empty() ? nullptr : &trace_.back();
    if (run != nullptr && run->chunk == chunk && run->first + run->count == number) {
      ++run->count;
    } else {
      trace_.push_back({chunk, static_cast<uint32_t>(number), 1});
    }
  }
  if (seen_.size() <= kMaxBlocks && bytes_ <= kMaxBytes) return;
  given_up_ = true;
  seen_.clear();
  trace_.clear();
}

std::optional<BootTrace> TraceRecorder::Take() {
  base::MutexLock lock(mutex_);
  if (given_up_ || !EndedLocked() || trace_.empty()) return std::nullopt;
  given_up_ = true;
  seen_.clear();
  return std::exchange(trace_, {});
}

}  // namespace controlplane::host
