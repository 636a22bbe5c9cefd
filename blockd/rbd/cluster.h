#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"

// One connection to a Ceph cluster, and the RBD images of one pool and namespace by name.
// cluster.cc and image.cc are the only files that know librados and librbd.

namespace blockd::rbd {

class Image;

// Limits of the connection, in seconds: an answer that takes longer is an error. Ceph's own
// defaults are 300, none and none.
constexpr int kConnectTimeoutS = 10;
constexpr int kMonitorTimeoutS = 30;
// A cluster that lost an OSD answers again within its heartbeat grace (20 s); what takes longer is
// more than that, and a guest is told.
constexpr int kOsdTimeoutS = 60;

struct ClusterOptions {
  std::string conf_path;  // empty: $CEPH_CONF, or Ceph's usual places
  std::string user = "admin";
  std::string pool;
  std::string space;  // the RBD namespace, made if it is not there; empty: the default one
  int connect_timeout_s = kConnectTimeoutS;
  int monitor_timeout_s = kMonitorTimeoutS;
  int osd_timeout_s = kOsdTimeoutS;
};

// Thread-safe; all blocking. An image keeps the connection it was opened on.
//
// Errors of all calls: kNotFound, kAlreadyExists; kConflict (in use, or has children); kOutOfSpace
// (the pool is full: told at once, and removals still work); kUnavailable (the cluster does not
// answer, or this connection was fenced off); kIo.
class Cluster : public std::enable_shared_from_this<Cluster> {
 public:
  static base::Result<std::shared_ptr<Cluster>> Connect(const ClusterOptions& options);
  ~Cluster();
  Cluster(const Cluster&) = delete;
  Cluster& operator=(const Cluster&) = delete;

  // Another process took over a volume that was open here: Ceph takes nothing from this connection
  // any more, for ever. Only a new one helps.
  bool fenced() const { return fenced_.load(); }

  // With objects of 4 MiB and what snapshots and differences need.
  base::Result<void> Create(const std::string& name, uint64_t size_bytes);
  // A copy-on-write child of a snapshot (clone v2: the snapshot needs no protection and may be
  // removed before its children).
  base::Result<void> Clone(const std::string& parent, const std::string& snap,
                           const std::string& name);
  enum class Mode { kRead, kWrite };
  // As a snapshot has it, or (none) as it is.
  base::Result<std::unique_ptr<Image>> Open(const std::string& name, const std::string& snap,
                                            Mode mode);
  // Takes the image's own snapshots away, moves it to RBD's trash, and empties the trash of it. An
  // image with children stays in the trash: kConflict until they are gone. Fine if it is not there,
  // or half way.
  base::Result<void> Remove(const std::string& name);
  base::Result<std::vector<std::string>> Names();
  base::Result<std::vector<std::string>> TrashedNames();

  // The error for what librbd returned; notices a fence.
  base::Error ErrorOf(int result, const std::string& what);

 private:
  struct Handles;
  explicit Cluster(std::unique_ptr<Handles> handles);
  base::Result<void> Configure(const ClusterOptions& options);
  base::Result<void> OpenPool(const ClusterOptions& options);
  base::Result<void> RemoveSnaps(const std::string& name);
  struct Trashed {
    std::string id;
    std::string name;
  };
  base::Result<std::vector<Trashed>> Trash();

  const std::unique_ptr<Handles> handles_;
  std::atomic<bool> fenced_{false};
};

}  // namespace blockd::rbd
