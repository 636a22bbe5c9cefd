#include "controlplane/errands.h"

#include <algorithm>
#include <utility>

namespace controlplane {

using base::Code;
using base::Error;
using base::MutexLock;
using base::Result;

Errands::Errands(size_t threads, const base::Clock& clock)
    : clock_(clock), share_((threads + 1) / 2) {
  for (size_t i = 0; i < std::max<size_t>(1, threads); ++i)
    threads_.emplace_back([this] { Run(); });
}

Errands::~Errands() { Stop(); }

Error Errands::Ask(const std::string& name, const std::string& sharer, Work work) {
  MutexLock lock(mutex_);
  if (stopping_) return Error(Code::kUnavailable, "the service is stopping");
  ForgetOldErrors();
  const auto found = errands_.find(name);
  if (found != errands_.end()) {
    if (found->second.error.has_value()) return *found->second.error;
    return Error(Code::kUnavailable, name + " is on its way");
  }
  if (waiting_.size() >= kMaxErrands)
    return Error(Code::kUnavailable, "too much waits already; try again later");
  Errand& errand = errands_[name];
  errand.sharer = sharer;
  errand.work = std::move(work);
  waiting_.push_back(name);
  changed_.NotifyAll();
  return Error(Code::kUnavailable, name + " has begun");
}

void Errands::Drop(const std::string& name) {
  MutexLock lock(mutex_);
  const auto found = errands_.find(name);
  if (found == errands_.end()) return;
  if (!found->second.running) {
    std::erase(waiting_, name);
    errands_.erase(found);
    return;
  }
  found->second.dropped = true;
  while (true) {
    const auto still = errands_.find(name);
    if (still == errands_.end() || !still->second.running) return;
    changed_.Wait(mutex_);
  }
}

void Errands::ForgetOldErrors() {
  const int64_t long_ago_ns = clock_.MonotonicNs() - kErrandErrorMs * 1'000'000;
  std::erase_if(errands_, [&](const auto& entry) {
    return entry.second.error.has_value() && entry.second.failed_ns <= long_ago_ns;
  });
}

std::optional<std::string> Errands::TakeNext() {
  for (auto next = waiting_.begin(); next != waiting_.end(); ++next) {
    const auto running = running_.find(errands_[*next].sharer);
    if (running != running_.end() && running->second >= share_) continue;
    std::string name = std::move(*next);
    waiting_.erase(next);
    return name;
  }
  return std::nullopt;
}

void Errands::Run() {
  MutexLock lock(mutex_);
  while (!stopping_) {
    const std::optional<std::string> name = TakeNext();
    if (!name.has_value()) {
      changed_.Wait(mutex_);
      continue;
    }
    // Stays where it is: nobody erases what runs.
    Errand& errand = errands_[*name];
    errand.running = true;
    ++running_[errand.sharer];
    mutex_.Unlock();
    const Result<void> done = errand.work([&] { return stopping_ || errand.dropped; });
    mutex_.Lock();
    if (--running_[errand.sharer] == 0) running_.erase(errand.sharer);
    if (done.has_value() || errand.dropped) {
      errands_.erase(*name);
    } else {
      errand.running = false;
      errand.work = nullptr;
      const bool ambiguous = done.error().code() == Code::kUnavailable;
      errand.error = ambiguous ? Error(Code::kIo, done.error().message()) : done.error();
      errand.failed_ns = clock_.MonotonicNs();
    }
    changed_.NotifyAll();
  }
}

void Errands::Stop() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    changed_.NotifyAll();
  }
  for (std::thread& thread : threads_)
    if (thread.joinable()) thread.join();
  MutexLock lock(mutex_);
  waiting_.clear();
}

}  // namespace controlplane
