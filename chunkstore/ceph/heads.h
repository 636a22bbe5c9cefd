#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/thread_annotations.h"
#include "chunkstore/ceph/objects.h"
#include "chunkstore/ceph/omap_format.h"

namespace chunkstore::ceph {

// Tries again what others' changes disturbed: up to some hundreds of times, waiting a little longer
// each time. One thread.
class Attempts {
 public:
  // False when it is time to give up.
  bool Next();
  // kUnavailable.
  static base::Error GivenUp(std::string_view partition);

 private:
  int count_ = 0;
};

// A directory at an epoch: what was true when it was read, and is asserted where it matters.
struct Layout {
  uint64_t epoch = 0;
  Directory directory;
};

// What one read of a head saw.
struct Head {
  bool open = false;                     // false: nobody may commit; there are no keys
  std::shared_ptr<const Layout> layout;  // null: there is no object
  ObjectView view;
};

// The heads of partitions, and the registry of their names. Keeps the layouts of the partitions
// last used, because they change rarely. Thread-safe.
//
// A partition that is open is registered, always: whoever opens one registers it first, and asserts
// when opening that nobody has begun to retire it since; whoever retires one closes it first, and
// takes back only the registration that it saw before that.
class Heads {
 public:
  // Borrows `objects`.
  explicit Heads(Objects& objects) : objects_(objects) {}

  // Reads the head, and beside what is asked for, all at once, what tells its state.
  base::Result<Head> Read(std::string_view partition, ObjectRead read);

  // The last layout that was read, if any. May be old.
  std::shared_ptr<const Layout> Cached(std::string_view partition);

  // Makes the partition ready for commits.
  base::Result<void> Open(std::string_view partition);

  // Registered partitions with their registration, in order.
  base::Result<std::map<std::string, std::string>> Registered(std::string_view prefix);

  // Removes a partition without keys, if it still has none and no shards. Nothing happens if
  // somebody else is quicker.
  base::Result<void> Retire(std::string_view partition, const std::string& registration);

 private:
  void Keep(std::string_view partition, std::shared_ptr<const Layout> layout);

  Objects& objects_;
  base::Mutex mutex_;
  std::unordered_map<std::string, std::shared_ptr<const Layout>> layouts_ GUARDED_BY(mutex_);
};

}  // namespace chunkstore::ceph
