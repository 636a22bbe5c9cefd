#include "controlplane/host/background.h"

#include <utility>

namespace controlplane::host {

Background::Background() {
  for (size_t i = 0; i < kReadaheadThreads; ++i) threads_.emplace_back([this] { RunReadahead(); });
  for (size_t i = 0; i < kLowThreads; ++i) threads_.emplace_back([this] { RunLowJobs(); });
}

Background::~Background() { Stop(); }

void Background::Stop() {
  std::deque<std::function<void()>> dropped;  // ends outside the lock
  {
    base::MutexLock lock(mutex_);
    stopping_ = true;
    for (Lane* lane : {&readahead_, &low_}) {
      for (auto& job : lane->jobs) dropped.push_back(std::move(job));
      lane->jobs.clear();
    }
    changed_.NotifyAll();
  }
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void Background::Drain() {
  base::MutexLock lock(mutex_);
  const auto busy = [](const Lane& lane) { return !lane.jobs.empty() || lane.running > 0; };
  while (busy(readahead_) || busy(low_)) changed_.Wait(mutex_);
}

bool Background::ReadAhead(std::function<void()> job) {
  base::MutexLock lock(mutex_);
  if (stopping_ || readahead_.jobs.size() >= kMaxQueued) return false;
  readahead_.jobs.push_back(std::move(job));
  changed_.NotifyAll();
  return true;
}

bool Background::RunLow(std::function<void()> job) {
  base::MutexLock lock(mutex_);
  if (stopping_ || low_.jobs.size() >= kMaxQueued) return false;
  low_.jobs.push_back(std::move(job));
  changed_.NotifyAll();
  return true;
}

void Background::Waiting(int change) {
  base::MutexLock lock(mutex_);
  waiting_ += change;
  if (waiting_ == 0) changed_.NotifyAll();
}

bool Background::MayRunLow() const {
  return !low_.jobs.empty() && low_.running < (waiting_ > 0 ? 1 : kLowThreads);
}

void Background::RunReadahead() {
  while (true) {
    std::function<void()> job;
    {
      base::MutexLock lock(mutex_);
      while (!stopping_ && readahead_.jobs.empty()) changed_.Wait(mutex_);
      if (stopping_) return;
      job = std::move(readahead_.jobs.front());
      readahead_.jobs.pop_front();
      ++readahead_.running;
    }
    job();
    job = nullptr;
    base::MutexLock lock(mutex_);
    --readahead_.running;
    changed_.NotifyAll();
  }
}

void Background::RunLowJobs() {
  while (true) {
    std::function<void()> job;
    {
      base::MutexLock lock(mutex_);
      while (!stopping_ && !MayRunLow()) changed_.Wait(mutex_);
      if (stopping_) return;
      job = std::move(low_.jobs.front());
      low_.jobs.pop_front();
      ++low_.running;
    }
    job();
    job = nullptr;  // before another may take its place
    base::MutexLock lock(mutex_);
    --low_.running;
    changed_.NotifyAll();
  }
}

}  // namespace controlplane::host
