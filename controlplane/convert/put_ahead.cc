#include "controlplane/convert/put_ahead.h"

#include <utility>

namespace controlplane::convert {

using base::Buffer;
using base::MutexLock;
using base::Result;

PutAhead::PutAhead(chunkstore::Ingest& ingest) : ingest_(ingest) {
  for (size_t i = 0; i < kPutsAtOnce + 1; ++i) free_.emplace_back(chunkstore::kChunkBytes);
  for (size_t i = 0; i < kPutsAtOnce; ++i) threads_.emplace_back([this] { Run(); });
}

PutAhead::~PutAhead() {
  {
    MutexLock lock(mutex_);
    ending_ = true;
    changed_.NotifyAll();
  }
  for (std::thread& thread : threads_) thread.join();
}

Buffer PutAhead::Take() {
  MutexLock lock(mutex_);
  while (free_.empty()) changed_.Wait(mutex_);
  Buffer taken = std::move(free_.back());
  free_.pop_back();
  return taken;
}

Result<void> PutAhead::Put(uint64_t index, Buffer chunk, size_t length) {
  MutexLock lock(mutex_);
  waiting_.push_back({index, std::move(chunk), length});
  changed_.NotifyAll();
  return FirstError();
}

Result<void> PutAhead::Finish() {
  MutexLock lock(mutex_);
  while (!waiting_.empty() || running_ > 0) changed_.Wait(mutex_);
  return FirstError();
}

Result<void> PutAhead::FirstError() {
  if (error_.has_value()) return *error_;
  return {};
}

void PutAhead::Run() {
  MutexLock lock(mutex_);
  while (true) {
    while (waiting_.empty() && !ending_) changed_.Wait(mutex_);
    if (waiting_.empty()) return;
    Chunk chunk = std::move(waiting_.front());
    waiting_.pop_front();
    if (!error_.has_value()) {
      ++running_;
      mutex_.Unlock();
      const auto put =
          ingest_.Put(chunk.index, std::as_const(chunk.bytes).view().first(chunk.length));
      mutex_.Lock();
      --running_;
      if (!put.has_value() && !error_.has_value()) error_ = put.error();
    }
    free_.push_back(std::move(chunk.bytes));
    changed_.NotifyAll();
  }
}

}  // namespace controlplane::convert
