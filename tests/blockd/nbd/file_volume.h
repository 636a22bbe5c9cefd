#pragma once

#include <memory>
#include <string>

#include "blockd/volume.h"

namespace blockd::nbd {

// A plain file as a volume, through the page cache: what other servers do, to compare the server
// itself with theirs. Thread-safe.
base::Result<std::shared_ptr<Volume>> OpenFileVolume(const std::string& path);

}  // namespace blockd::nbd
