#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "blockd/qos/limiter.h"
#include "blockd/volume.h"

// What a name opens. Whoever keeps volumes implements ExportProvider; blockd/nbd/attachments.h is
// one, with names that carry a secret.

namespace blockd::nbd {

// What one connection works on. Kept until the last of its requests has ended, cut off or not.
struct Export {
  std::string volume_id;  // for logs, metrics and the sharing of threads; no secret
  std::string tenant;     // whose: tenants share the server's connections and memory
  std::shared_ptr<Volume> volume;
  bool read_only = false;
  // A flush of one connection covers what the others wrote (a Volume's does).
  bool multi_conn = true;
  std::shared_ptr<qos::Limiter> limiter;  // may be null: no limits
  // For the context quarry:changed-since/<snapshot>; may be null: no snapshots. kNotFound when
  // there is no such snapshot of this volume, or none for whoever is served.
  std::function<base::Result<std::shared_ptr<ChangedBlocks>>(std::string_view snapshot)>
      changed_since;
  // The same for quarry:changed-since-image/<image>.
  std::function<base::Result<std::shared_ptr<ChangedBlocks>>(std::string_view image)>
      changed_since_image;
  // Whatever must live as long: a claim to be the one writer, say.
  std::shared_ptr<void> claim;
};

// Thread-safe; may block. Names are bytes of a client, at most kMaxNameBytes of them.
class ExportProvider {
 public:
  virtual ~ExportProvider() = default;

  // kNotFound (unknown and wrong secret look the same), kConflict (somebody else writes),
  // kPermissionDenied, kUnavailable. The message is shown to the client.
  virtual base::Result<std::shared_ptr<const Export>> Open(std::string_view name) = 0;

  // What LIST shows. Names are secrets here, so there is nothing to show unless overridden.
  virtual base::Result<std::vector<std::string>> List() {
    return base::Error(base::Code::kPermissionDenied, "exports are not listed");
  }
};

}  // namespace blockd::nbd
