#pragma once

#include <memory>
#include <string>

#include "base/files.h"

namespace chunkstore::local {

// Keeps a second process out of a store: an advisory lock (flock) on a file, which also says
// whose it is. The kernel drops it when the process ends, however it ends. Held while this object
// lives.
class StoreLock {
 public:
  // The folder of `path` must exist. kConflict, naming the process, if the store is open already.
  // Without descriptors (base::Files of a test) there is nothing to lock.
  static base::Result<StoreLock> Acquire(base::Files& files, const std::string& path);

 private:
  explicit StoreLock(std::unique_ptr<base::File> file) : file_(std::move(file)) {}
  std::unique_ptr<base::File> file_;
};

}  // namespace chunkstore::local
