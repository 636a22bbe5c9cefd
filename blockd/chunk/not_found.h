#pragma once

#include <string>

#include "base/result.h"

namespace blockd::chunk {

inline base::Error NoVolume(const std::string& id) {
  return base::Error(base::Code::kNotFound, "no volume " + id);
}
inline base::Error NoSnapshot(const std::string& id) {
  return base::Error(base::Code::kNotFound, "no snapshot " + id);
}

}  // namespace blockd::chunk
