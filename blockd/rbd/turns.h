#pragma once

#include <set>
#include <string>
#include <utility>

#include "base/thread_annotations.h"

namespace blockd::rbd {

// One at a time for each name. Thread-safe.
class Turns {
 public:
  // Ends the turn when destroyed.
  class Turn {
   public:
    Turn(Turns& turns, std::string name) : turns_(turns), name_(std::move(name)) {}
    ~Turn() { turns_.End(name_); }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

   private:
    Turns& turns_;
    const std::string name_;
  };

  // Waits for the turn of `name`.
  Turn Take(const std::string& name) EXCLUDES(mutex_) {
    base::MutexLock lock(mutex_);
    while (!busy_.insert(name).second) changed_.Wait(mutex_);
    return Turn(*this, name);
  }

 private:
  void End(const std::string& name) EXCLUDES(mutex_) {
    base::MutexLock lock(mutex_);
    busy_.erase(name);
    changed_.NotifyAll();
  }

  base::Mutex mutex_;
  base::CondVar changed_;
  std::set<std::string> busy_ GUARDED_BY(mutex_);
};

}  // namespace blockd::rbd
