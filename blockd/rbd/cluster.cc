#include "blockd/rbd/cluster.h"

#include <cerrno>
#include <cstring>
#include <utility>

#include <rados/librados.h>
#include <rbd/features.h>
#include <rbd/librbd.h>

#include "base/log.h"
#include "blockd/rbd/image.h"

namespace blockd::rbd {

using base::Code;
using base::Error;
using base::Result;

namespace {

constexpr uint64_t kFeatures = RBD_FEATURE_LAYERING | RBD_FEATURE_EXCLUSIVE_LOCK |
                               RBD_FEATURE_OBJECT_MAP | RBD_FEATURE_FAST_DIFF |
                               RBD_FEATURE_DEEP_FLATTEN;
constexpr uint64_t kObjectOrder = 22;  // 4 MiB
constexpr uint64_t kCloneFormat = 2;
constexpr size_t kListedAtFirst = 1024;

Code CodeOf(int result) {
  switch (-result) {
    case ENOENT:
      return Code::kNotFound;
    case EEXIST:
      return Code::kAlreadyExists;
    case EBUSY:
    case ENOTEMPTY:
    case EROFS:  // the lock is another's
      return Code::kConflict;
    case ENOSPC:
    case EDQUOT:
      return Code::kOutOfSpace;
    case EINVAL:
      return Code::kInvalidArgument;
    case ESHUTDOWN:
    case ETIMEDOUT:
    case ENOTCONN:
      return Code::kUnavailable;
    default:
      return Code::kIo;
  }
}

// Frees the options when it goes.
class ImageOptions {
 public:
  ImageOptions() {
    rbd_image_options_create(&options_);
    rbd_image_options_set_uint64(options_, RBD_IMAGE_OPTION_FEATURES, kFeatures);
    rbd_image_options_set_uint64(options_, RBD_IMAGE_OPTION_ORDER, kObjectOrder);
  }
  ~ImageOptions() { rbd_image_options_destroy(options_); }
  ImageOptions(const ImageOptions&) = delete;
  ImageOptions& operator=(const ImageOptions&) = delete;
  void SetCloneFormat() {
    rbd_image_options_set_uint64(options_, RBD_IMAGE_OPTION_CLONE_FORMAT, kCloneFormat);
  }
  rbd_image_options_t get() const { return options_; }

 private:
  rbd_image_options_t options_ = nullptr;
};

}  // namespace

struct Cluster::Handles {
  rados_t rados = nullptr;
  rados_ioctx_t pool = nullptr;
};

Cluster::Cluster(std::unique_ptr<Handles> handles) : handles_(std::move(handles)) {}

Cluster::~Cluster() {
  if (handles_->pool) rados_ioctx_destroy(handles_->pool);
  if (handles_->rados) rados_shutdown(handles_->rados);
}

Error Cluster::ErrorOf(int result, const std::string& what) {
  if (result == -ESHUTDOWN) {
    if (!fenced_.exchange(true)) {
      LOG(kError, "rbd",
          "this process was fenced off by another one that took over a volume of it: what is open "
          "here fails from now on; volumes that are opened again get a new connection");
    }
    return Error(Code::kUnavailable,
                 what + ": fenced off, another process took over: connect again");
  }
  return Error(CodeOf(result), what + ": " + std::strerror(-result));
}

// ---- the connection

Result<std::shared_ptr<Cluster>> Cluster::Connect(const ClusterOptions& options) {
  std::shared_ptr<Cluster> cluster(new Cluster(std::make_unique<Handles>()));
  Handles& handles = *cluster->handles_;
  const int created = rados_create(&handles.rados, options.user.c_str());
  if (created < 0) return cluster->ErrorOf(created, "a connection to Ceph as " + options.user);
  RETURN_IF_ERROR(cluster->Configure(options));
  const int connected = rados_connect(handles.rados);
  if (connected < 0) {
    return cluster->ErrorOf(connected, "connect to Ceph as client." + options.user +
                                           " (are its monitors up, and is its keyring readable?)");
  }
  RETURN_IF_ERROR(cluster->OpenPool(options));
  return cluster;
}

Result<void> Cluster::Configure(const ClusterOptions& options) {
  const char* path = options.conf_path.empty() ? nullptr : options.conf_path.c_str();
  const int read = rados_conf_read_file(handles_->rados, path);
  if (read < 0) {
    return ErrorOf(read,
                   "read " + (path ? options.conf_path : std::string("Ceph's configuration")));
  }
  const std::pair<const char*, std::string> settings[] = {
      // A write is in the cluster when it is answered: nothing of it is ours alone.
      {"rbd_cache", "false"},
      // The bytes of a write are copied: we may answer for one that librbd never ends (image.h).
      {"rbd_disable_zero_copy_writes", "true"},
      {"client_mount_timeout", std::to_string(options.connect_timeout_s)},
      {"rados_mon_op_timeout", std::to_string(options.monitor_timeout_s)},
      {"rados_osd_op_timeout", std::to_string(options.osd_timeout_s)},
      // Errors are told by us, once.
      {"log_to_stderr", "false"},
      {"err_to_stderr", "false"},
  };
  for (const auto& [name, value] : settings) {
    const int set = rados_conf_set(handles_->rados, name, value.c_str());
    if (set < 0) return ErrorOf(set, std::string("set Ceph's ") + name);
  }
  return {};
}

Result<void> Cluster::OpenPool(const ClusterOptions& options) {
  const int opened = rados_ioctx_create(handles_->rados, options.pool.c_str(), &handles_->pool);
  if (opened < 0) return ErrorOf(opened, "open Ceph's pool " + options.pool);
  // A full pool answers instead of letting us wait for room.
  rados_set_pool_full_try(handles_->pool);
  if (options.space.empty()) return {};
  const int made = rbd_namespace_create(handles_->pool, options.space.c_str());
  // Who is kept to the namespace may not make it: then an administrator did.
  if (made < 0 && made != -EEXIST && made != -EPERM)
    return ErrorOf(made, "make RBD namespace " + options.space);
  rados_ioctx_set_namespace(handles_->pool, options.space.c_str());
  return {};
}

// ---- images by name

Result<void> Cluster::Create(const std::string& name, uint64_t size_bytes) {
  const ImageOptions options;
  const int made = rbd_create4(handles_->pool, name.c_str(), size_bytes, options.get());
  if (made < 0) return ErrorOf(made, "create RBD image " + name);
  return {};
}

Result<void> Cluster::Clone(const std::string& parent, const std::string& snap,
                            const std::string& name) {
  ImageOptions options;
  options.SetCloneFormat();
  const int made = rbd_clone3(handles_->pool, parent.c_str(), snap.c_str(), handles_->pool,
                              name.c_str(), options.get());
  if (made < 0) return ErrorOf(made, "clone RBD image " + parent + "@" + snap);
  return {};
}

Result<std::unique_ptr<Image>> Cluster::Open(const std::string& name, const std::string& snap,
                                             Mode mode) {
  const char* at = snap.empty() ? nullptr : snap.c_str();
  rbd_image_t handle = nullptr;
  const int opened = mode == Mode::kWrite
                         ? rbd_open(handles_->pool, name.c_str(), &handle, at)
                         : rbd_open_read_only(handles_->pool, name.c_str(), &handle, at);
  if (opened < 0) return ErrorOf(opened, "open RBD image " + name + (at ? "@" + snap : ""));
  return Image::Adopt(shared_from_this(), handle, name);
}

Result<std::vector<std::string>> Cluster::Names() {
  std::vector<rbd_image_spec_t> specs(kListedAtFirst);
  size_t count = specs.size();
  int listed = rbd_list2(handles_->pool, specs.data(), &count);
  while (listed == -ERANGE) {
    specs.resize(count);
    listed = rbd_list2(handles_->pool, specs.data(), &count);
  }
  if (listed < 0) return ErrorOf(listed, "list RBD images");
  std::vector<std::string> names;
  for (size_t i = 0; i < count; ++i) names.emplace_back(specs[i].name);
  rbd_image_spec_list_cleanup(specs.data(), count);
  return names;
}

// ---- removal

Result<void> Cluster::RemoveSnaps(const std::string& name) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Image> image, Open(name, "", Mode::kWrite));
  ASSIGN_OR_RETURN(const std::vector<Image::Snap> snaps, image->Snaps());
  for (const Image::Snap& snap : snaps) RETURN_IF_ERROR(image->RemoveSnap(snap.name));
  return {};
}

Result<std::vector<Cluster::Trashed>> Cluster::Trash() {
  std::vector<rbd_trash_image_info_t> entries(kListedAtFirst);
  size_t count = entries.size();
  int listed = rbd_trash_list(handles_->pool, entries.data(), &count);
  while (listed == -ERANGE) {
    entries.resize(count);
    listed = rbd_trash_list(handles_->pool, entries.data(), &count);
  }
  if (listed < 0) return ErrorOf(listed, "list RBD's trash");
  std::vector<Trashed> trash;
  for (size_t i = 0; i < count; ++i) trash.push_back({entries[i].id, entries[i].name});
  rbd_trash_list_cleanup(entries.data(), count);
  return trash;
}

Result<std::vector<std::string>> Cluster::TrashedNames() {
  ASSIGN_OR_RETURN(const std::vector<Trashed> trash, Trash());
  std::vector<std::string> names;
  for (const Trashed& image : trash) names.push_back(image.name);
  return names;
}

Result<void> Cluster::Remove(const std::string& name) {
  const Result<void> bare = RemoveSnaps(name);
  if (!bare && bare.error().code() != Code::kNotFound) return bare;
  const int moved = bare ? rbd_trash_move(handles_->pool, name.c_str(), 0) : 0;
  if (moved < 0 && moved != -ENOENT) return ErrorOf(moved, "trash RBD image " + name);
  ASSIGN_OR_RETURN(const std::vector<Trashed> trash, Trash());
  for (const Trashed& image : trash) {
    if (image.name != name) continue;
    const int removed = rbd_trash_remove(handles_->pool, image.id.c_str(), false);
    if (removed < 0 && removed != -ENOENT) return ErrorOf(removed, "remove RBD image " + name);
  }
  return {};
}

}  // namespace blockd::rbd
