#pragma once

#include <memory>
#include <string>

#include "base/result.h"

namespace controlplane::convert {

// A directory in the system's place for temporary files that only we may enter, gone with this. It
// stays locked (flock) for as long as this lives, so what a killed process left can be told from
// what is in use, whichever process it is of.
class PrivateDirectory {
 public:
  // kIo.
  static base::Result<std::unique_ptr<PrivateDirectory>> Make();
  ~PrivateDirectory();
  PrivateDirectory(const PrivateDirectory&) = delete;
  PrivateDirectory& operator=(const PrivateDirectory&) = delete;

  const std::string& path() const { return path_; }

 private:
  PrivateDirectory(std::string path, int lock) : path_(std::move(path)), lock_(lock) {}

  const std::string path_;
  const int lock_;
};

// Removes those of this user that nobody has any more. For the start of the service; what can't be
// removed stays.
void RemoveAbandonedDirectories();

}  // namespace controlplane::convert
