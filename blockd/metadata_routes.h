#pragma once

#include <functional>
#include <string>

#include "base/result.h"
#include "blockd/context.h"

namespace blockd {

using MetadataChange = std::function<base::Result<void>(Metadata&)>;

// How the metadata of one kind of thing is read and changed; both check who may.
struct MetadataAccess {
  std::function<base::Result<Metadata>(const Context&, const api::Call&)> read;
  std::function<base::Result<Metadata>(const Context&, const api::Call&, const MetadataChange&)>
      change;
  bool etags = false;  // what was read can be told from what is there now (3.15, as in Cinder)
};

// <path>/metadata and <path>/metadata/{key}: the same for volumes and snapshots, but for ETags.
void AppendMetadataRoutes(const Context& context, const std::string& path, MetadataAccess access,
                          Routes* routes);

}  // namespace blockd
