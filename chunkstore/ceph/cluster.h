#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "chunkstore/blob_store.h"
#include "chunkstore/ceph/objects.h"

namespace chunkstore::ceph {

struct ClusterOptions {
  // Empty: $CEPH_CONF, or else /etc/ceph/ceph.conf.
  std::string conf_path;
  // The cephx user, without "client.". Its key is where the configuration says.
  std::string user = "admin";
  std::string pool;  // of blobs: replicated or erasure coded
  // Of metadata: replicated, because erasure coded pools have no omap. It may be the same.
  std::string meta_pool;
  // The RADOS namespace of all objects: several services can share pools, and a user's caps can be
  // kept to one.
  std::string space = "quarry";
  // How long Connect waits for a monitor; whole seconds.
  int64_t connect_timeout_ms = 10'000;
  // How long an operation waits for its OSD before it is kUnavailable (it may still happen later);
  // whole seconds. The time that a cluster needs to see that an OSD hangs is to be less: 20 s and
  // more with Ceph's defaults.
  int64_t operation_timeout_ms = 60'000;
};

// A connection to a Ceph cluster and its two pools; the only home of librados with the files beside
// it. Shared by the stores that use it, and by all threads. Thread-safe.
//
// A client that the cluster has shut out (blocklisted) stays so: all is kUnavailable until the
// process starts again.
class Cluster {
 public:
  // kUnavailable: no monitor answers. kPermissionDenied: the user. kNotFound: a pool, and how to
  // make it. kInvalidArgument: the configuration.
  static base::Result<std::shared_ptr<Cluster>> Connect(const ClusterOptions& options);
  ~Cluster();
  Cluster(const Cluster&) = delete;
  Cluster& operator=(const Cluster&) = delete;

  // librados's handles (rados_ioctx_t), in the namespace; they live as long as this does. Writes to
  // a full pool fail, and don't wait for space.
  void* blob_pool() const { return blob_pool_; }
  void* meta_pool() const { return meta_pool_; }
  const std::string& blob_pool_name() const { return options_.pool; }

  // Of this client, as `ceph osd blocklist add` takes it.
  base::Result<std::string> Address();

  // What a monitor answers to a command in JSON. kUnavailable, kPermissionDenied.
  base::Result<std::string> MonitorCommand(const std::string& json);

 private:
  explicit Cluster(const ClusterOptions& options) : options_(options) {}
  base::Result<void> Open();
  base::Result<void*> OpenPool(const std::string& name);

  const ClusterOptions options_;
  void* rados_ = nullptr;  // rados_t
  void* blob_pool_ = nullptr;
  void* meta_pool_ = nullptr;
};

// What librados's negative errno means here. `what` names the operation and the object.
base::Error RadosError(int negative_errno, std::string_view what);

// The metadata pool's objects.
std::unique_ptr<Objects> OpenRadosObjects(std::shared_ptr<Cluster> cluster);

}  // namespace chunkstore::ceph
