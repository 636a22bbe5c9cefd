#pragma once

#include <string>

#include "base/result.h"

namespace blockd::rbd {

inline base::Error NoVolume(const std::string& id) {
  return base::Error(base::Code::kNotFound, "no volume " + id);
}
inline base::Error NoSnapshot(const std::string& id) {
  return base::Error(base::Code::kNotFound, "no snapshot " + id);
}
inline base::Error VolumeInUse(const std::string& id) {
  return base::Error(base::Code::kConflict, "volume " + id + " is in use: detach it first");
}
inline base::Error Stopping() { return base::Error(base::Code::kUnavailable, "the service stops"); }

}  // namespace blockd::rbd
