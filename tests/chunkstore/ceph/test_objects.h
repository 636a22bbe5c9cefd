#pragma once

#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "base/thread_annotations.h"
#include "chunkstore/ceph/objects.h"
#include "tests/support/faulty_stores.h"

// Objects for tests of what stands on them.

namespace chunkstore::ceph {

// RADOS objects in memory, with the answers that RADOS gives. Thread-safe.
class MemoryObjects : public Objects {
 public:
  base::Result<void> Write(const std::string& object, const ObjectWrite& write) override {
    base::MutexLock lock(mutex_);
    auto at = objects_.find(object);
    const bool guarded = !write.expected.empty() || write.version || write.remove_object;
    if (at == objects_.end() && guarded) {
      return base::Error(write.version ? base::Code::kConflict : base::Code::kNotFound, object);
    }
    if (at != objects_.end() && !Holds(at->second, write)) {
      return base::Error(base::Code::kConflict, object);
    }
    if (at != objects_.end() && write.create) {
      return base::Error(base::Code::kAlreadyExists, object);
    }
    if (write.remove_object) {
      objects_.erase(at);
      return {};
    }
    Object& changed = objects_[object];
    changed.version = ++version_;
    if (write.remove_range) {
      changed.keys.erase(changed.keys.lower_bound(write.remove_range->first),
                         changed.keys.lower_bound(write.remove_range->second));
    }
    for (const auto& [key, value] : write.set) changed.keys[key] = value;
    for (const std::string& key : write.remove) changed.keys.erase(key);
    return {};
  }

  base::Result<ObjectView> Read(const std::string& object, const ObjectRead& read) override {
    base::MutexLock lock(mutex_);
    auto at = objects_.find(object);
    if (at == objects_.end()) return base::Error(base::Code::kNotFound, object);
    ObjectView view;
    view.version = at->second.version;
    const auto& keys = at->second.keys;
    for (const std::string& key : read.keys) {
      auto found = keys.find(key);
      if (found != keys.end()) view.found.insert(*found);
    }
    auto next = keys.upper_bound(read.after);
    for (; next != keys.end() && view.page.size() < read.page; ++next) view.page.push_back(*next);
    view.more = next != keys.end();
    return view;
  }

  // Names of all that there are, with how many keys each has.
  std::map<std::string, size_t> List() {
    base::MutexLock lock(mutex_);
    std::map<std::string, size_t> names;
    for (const auto& [name, object] : objects_) names.emplace(name, object.keys.size());
    return names;
  }

 private:
  struct Object {
    std::map<std::string, std::string> keys;
    uint64_t version = 0;
  };
  static bool Holds(const Object& object, const ObjectWrite& write) {
    if (write.version && *write.version != object.version) return false;
    for (const auto& [key, value] : write.expected) {
      auto found = object.keys.find(key);
      if ((found == object.keys.end() ? "" : found->second) != value) return false;
    }
    return true;
  }

  base::Mutex mutex_;
  uint64_t version_ GUARDED_BY(mutex_) = 0;
  std::map<std::string, Object> objects_ GUARDED_BY(mutex_);
};

// Fails as the plan has it: calls of the thread that made it only, so that what a store does behind
// its caller's back does not shift the count. Borrows both. Thread-safe.
class FaultyObjects : public Objects {
 public:
  FaultyObjects(Objects& inner, support::FaultPlan& plan) : inner_(inner), plan_(plan) {}

  base::Result<void> Write(const std::string& object, const ObjectWrite& write) override {
    return support::RunFaulty(Next(), [&] { return inner_.Write(object, write); });
  }
  base::Result<ObjectView> Read(const std::string& object, const ObjectRead& read) override {
    return support::RunFaulty(Next(), [&] { return inner_.Read(object, read); });
  }

 private:
  support::FaultPlan::Fault Next() {
    if (std::this_thread::get_id() != thread_) return {};
    return plan_.Next();
  }

  Objects& inner_;
  support::FaultPlan& plan_;
  const std::thread::id thread_ = std::this_thread::get_id();
};

}  // namespace chunkstore::ceph
