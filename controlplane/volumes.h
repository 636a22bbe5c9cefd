#pragma once

#include <memory>

#include "base/auth/verifier.h"
#include "base/http/router.h"
#include "base/metrics.h"
#include "base/result.h"
#include "blockd/image_source.h"
#include "controlplane/changed_blocks.h"
#include "controlplane/settings.h"
#include "controlplane/store.h"
#include "imaged/catalog.h"
#include "imaged/data_path.h"

namespace controlplane {

// The volumes of one data directory, put together: layers of writes in DIR/layers, the Block
// Storage API over them, and the NBD server that compute hosts attach to. Thread-safe.
class Volumes {
 public:
  // What they stand on: borrowed, all of it, and outlives them.
  struct Parts {
    Store& store;
    base::auth::TokenVerifier& verifier;
    blockd::ImageSource& images;
    imaged::Catalog& image_catalog;  // for what changed since an image
    imaged::DataPath& image_data;    // snapshots leave as blocks in the same way
    base::Metrics& metrics;
    bool serve = true;  // else only what images need of them, and another process has the rest
  };
  // Puts right what a crash left, opens attached volumes to their clients again, and takes up the
  // jobs that were under way. kInvalidArgument names the option that is wrong; kConflict if another
  // process has the NBD port.
  static base::Result<std::unique_ptr<Volumes>> Start(const Settings& settings, const Parts& parts);
  virtual ~Volumes() = default;  // Stop()

  // Under /volume. To be mounted once; borrows this.
  virtual base::http::Service service() const = 0;

  // Its route for snapshots is in service() already; that for images is the Image API's.
  virtual ChangedBlocks& changed_blocks() = 0;

  // The store that backups are in; null where there are none. Lives as long as this.
  virtual Store* backup_store() const = 0;

  // After the HTTP server has stopped: answers what NBD clients have asked, closes their
  // connections, lets running jobs end, and leaves the others for the next start. Blocks;
  // idempotent.
  virtual void Stop() = 0;
};

}  // namespace controlplane
