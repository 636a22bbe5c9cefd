#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/files.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "chunkstore/layers/cache_format.h"

namespace chunkstore::layers {

// Which blocks are to stay: groups of them, each a file in the cache's directory, written durably.
// Knows nothing of what is there. Thread-safe.
class Pins {
 public:
  struct Limits {
    uint64_t pinned_bytes = 0;  // stored, each block once
    uint64_t file_bytes = 0;    // what the files take, one that is being replaced twice
  };

  // Reads what is there. A damaged file, and a group that is more than the limits have room for
  // (they were larger once), is removed, with a line in the log.
  static base::Result<std::unique_ptr<Pins>> Open(base::Files& files, const std::string& directory,
                                                  const Limits& limits);
  // Whether a file of this name in the directory is one of these.
  static bool IsOurs(const std::string& file_name);
  ~Pins();

  // As BlockDiskCache's.
  base::Result<void> Pin(PinGroup group);
  base::Result<void> Unpin(const std::string& name);

  struct Group {
    std::string name;
    uint64_t blocks = 0;
    uint64_t bytes = 0;
  };
  std::vector<Group> groups() const;

  bool Has(BlockKey key) const;
  uint64_t blocks() const;
  uint64_t bytes() const;
  uint64_t file_bytes() const;

 private:
  struct Stored {
    uint64_t file_bytes = 0;
    std::vector<PinnedBlock> blocks;
    uint64_t bytes = 0;
  };
  struct Counts;

  Pins(base::Files& files, std::string directory, const Limits& limits);
  base::Result<void> Load();
  base::Result<PinGroup> Read(const std::string& file);
  base::Result<void> WriteFile(const std::string& path, std::string_view bytes);
  // Makes `stored` the group of this name if the limits allow, and gives back what it was. The
  // bytes of the file that was stay counted: it is still there.
  base::Result<Stored> Exchange(const std::string& name, Stored stored);
  void Put(const std::string& name, Stored stored) REQUIRES(mutex_);
  Stored Take(const std::string& name) REQUIRES(mutex_);  // empty: there was none
  std::string PathOf(const std::string& name) const;

  base::Files& files_;
  const std::string directory_;
  const Limits limits_;
  base::Mutex change_mutex_;  // one change at a time; taken before mutex_
  mutable base::Mutex mutex_;
  std::map<std::string, Stored> groups_ GUARDED_BY(mutex_);
  const std::unique_ptr<Counts> counts_;
  uint64_t bytes_ GUARDED_BY(mutex_) = 0;
  uint64_t file_bytes_ GUARDED_BY(mutex_) = 0;
};

}  // namespace chunkstore::layers
