#pragma once

#include <string>

#include "base/result.h"
#include "controlplane/store.h"

namespace controlplane {

// The two stores of one data directory, files and RocksDB, without a chunk store over them. At most
// one process has them open. Errors as of OpenStore.
base::Result<std::unique_ptr<Store>> OpenEmbeddedStore(const std::string& dir,
                                                       StorePurpose purpose);

// Moves the index away, to DIR/meta.damaged-UUID, so that a new one can be made; gives that path.
// Nobody may have the store open. Until the rebuild ends nothing else opens it (RebuildMarker).
base::Result<std::string> SetIndexAside(const std::string& data_dir);

// Where volumes keep what was written to them and is not in the store yet.
std::string LayersDir(const std::string& data_dir);

// A file that stands while the index is made again (restore.h): until it is gone, nothing else may
// open the store.
std::string RebuildMarker(const std::string& data_dir);

}  // namespace controlplane
