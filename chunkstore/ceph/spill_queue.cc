#include "chunkstore/ceph/spill_queue.h"

#include <random>
#include <utility>

#include "base/log.h"
#include "chunkstore/ceph/spiller.h"

namespace chunkstore::ceph {

using base::Code;
using base::MutexLock;
using base::Result;

namespace {

// On average a head is looked at so often while it fills.
constexpr size_t kLooks = 4;

bool IsTimeToLook(size_t changed, size_t head_keys) {
  thread_local std::mt19937_64 random(std::random_device{}());
  return random() % (head_keys + 1) < kLooks * changed;
}

}  // namespace

SpillQueue::SpillQueue(Objects& objects, Heads& heads, const CephMetaOptions& options)
    : objects_(objects), heads_(heads), options_(options), thread_([this] { Work(); }) {}

SpillQueue::~SpillQueue() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
  }
  changed_.NotifyAll();
  thread_.join();
}

void SpillQueue::Changed(std::string_view partition, size_t keys) {
  if (!IsTimeToLook(keys, options_.head_keys)) return;
  {
    MutexLock lock(mutex_);
    waiting_.emplace(partition);
  }
  changed_.NotifyOne();
}

void SpillQueue::Work() {
  for (;;) {
    std::string partition;
    {
      MutexLock lock(mutex_);
      while (waiting_.empty() && !stopping_) changed_.Wait(mutex_);
      if (stopping_) return;
      partition = std::move(waiting_.extract(waiting_.begin()).value());
    }
    Spiller spiller(objects_, heads_, base::SystemClock(), options_, partition);
    Result<void> done = spiller.Run([this] { return stopping_.load(); });
    if (!done && done.error().code() != Code::kConflict) {
      LOG(kWarn, "chunkstore", "moving keys of partition {} to its shards: {}; tried again later",
          partition, done.error().message());
    }
  }
}

}  // namespace chunkstore::ceph
