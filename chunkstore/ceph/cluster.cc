#include "chunkstore/ceph/cluster.h"

#include <algorithm>
#include <cerrno>
#include <system_error>

#include <fmt/format.h>
#include <rados/librados.h>

namespace chunkstore::ceph {

using base::Code;
using base::Error;
using base::Result;

namespace {

constexpr double kAskForMapS = 10;  // Ceph's own default

Code CodeOf(int error_number) {
  switch (error_number) {
    case ENOENT:
      return Code::kNotFound;
    case EEXIST:
      return Code::kAlreadyExists;
    case ECANCELED:  // a comparison
    case ERANGE:     // an older version
    case EOVERFLOW:  // a newer version, or none
      return Code::kConflict;
    case ENOSPC:
    case EDQUOT:
      return Code::kOutOfSpace;
    case ETIMEDOUT:
    case ESHUTDOWN:  // blocklisted
    case ENOTCONN:
    case EAGAIN:
    case EBUSY:
      return Code::kUnavailable;
    case EPERM:
    case EACCES:
      return Code::kPermissionDenied;
    case EMSGSIZE:
    case E2BIG:
    case EFBIG:
      return Code::kTooLarge;
    default:
      return Code::kIo;
  }
}

std::string_view Advice(int error_number) {
  switch (error_number) {
    case ETIMEDOUT:
      return "; no answer in time, it may or may not have happened: see `ceph health`";
    case ESHUTDOWN:
      return "; the cluster has shut this client out (`ceph osd blocklist ls`): restart it";
    case EPERM:
    case EACCES:
      return "; give the cephx user caps for the pool: see chunkstore/ceph/README.md";
    case ENOSPC:
      return "; the pool is full: delete something, or add OSDs";
    case EDQUOT:
      return "; the pool's quota is used up: `ceph osd pool get-quota`";
    default:
      return "";
  }
}

std::string Seconds(int64_t timeout_ms) {
  return std::to_string(std::max<int64_t>(1, (timeout_ms + 999) / 1000));
}

}  // namespace

Error RadosError(int negative_errno, std::string_view what) {
  int number = -negative_errno;
  return Error(
      CodeOf(number),
      fmt::format("{}: {}{}", what, std::generic_category().message(number), Advice(number)));
}

Result<std::shared_ptr<Cluster>> Cluster::Connect(const ClusterOptions& options) {
  std::shared_ptr<Cluster> cluster(new Cluster(options));
  RETURN_IF_ERROR(cluster->Open().Annotate("connect to Ceph"));
  return cluster;
}

Result<void> Cluster::Open() {
  rados_t rados = nullptr;
  int r = rados_create(&rados, options_.user.c_str());
  if (r < 0) return RadosError(r, "make a client");
  rados_ = rados;
  const std::string& path = options_.conf_path;
  r = rados_conf_read_file(rados, path.empty() ? nullptr : path.c_str());
  if (r < 0) {
    return Error(Code::kInvalidArgument,
                 fmt::format("{} can't be read: name Ceph's configuration (CEPH_CONF, or the "
                             "setting)",
                             path.empty() ? "ceph.conf" : path));
  }
  // Only an operation that has waited for so long makes librados ask where its object is now: one
  // that is given up before would never find the OSDs again after all of them were away.
  const double ask_s =
      std::min(kAskForMapS, static_cast<double>(options_.operation_timeout_ms) / 2000);
  const std::pair<const char*, std::string> settings[] = {
      {"client_mount_timeout", Seconds(options_.connect_timeout_ms)},
      {"rados_mon_op_timeout", Seconds(options_.operation_timeout_ms)},
      {"rados_osd_op_timeout", Seconds(options_.operation_timeout_ms)},
      {"objecter_timeout", fmt::format("{:.2f}", ask_s)},
      {"objecter_tick_interval", fmt::format("{:.2f}", ask_s / 2)},
  };
  for (const auto& [name, value] : settings) {
    r = rados_conf_set(rados, name, value.c_str());
    if (r < 0) return RadosError(r, fmt::format("set {} to {}", name, value));
  }
  r = rados_connect(rados);
  if (r == -ENOENT) {
    return Error(Code::kPermissionDenied,
                 fmt::format("no key of client.{} in the keyring that the configuration names",
                             options_.user));
  }
  if (r == -ETIMEDOUT) {
    return Error(Code::kUnavailable,
                 fmt::format("no monitor answered within {} s: are mon_host and "
                             "the network right, is one up?",
                             Seconds(options_.connect_timeout_ms)));
  }
  if (r < 0) return RadosError(r, "log in");
  ASSIGN_OR_RETURN(blob_pool_, OpenPool(options_.pool));
  ASSIGN_OR_RETURN(meta_pool_, OpenPool(options_.meta_pool));
  return {};
}

Result<void*> Cluster::OpenPool(const std::string& name) {
  rados_ioctx_t pool = nullptr;
  int r = rados_ioctx_create(rados_, name.c_str(), &pool);
  if (r == -ENOENT) {
    return Error(Code::kNotFound,
                 fmt::format("no pool {0:?}: `ceph osd pool create {0}` and `ceph osd pool "
                             "application enable {0} quarry` make it",
                             name));
  }
  if (r < 0) return RadosError(r, "open pool " + name);
  rados_ioctx_set_namespace(pool, options_.space.c_str());
  // Otherwise a write to a full pool waits, for ever, until there is space.
  rados_set_pool_full_try(pool);
  return pool;
}

Cluster::~Cluster() {
  if (blob_pool_ != nullptr) rados_ioctx_destroy(blob_pool_);
  if (meta_pool_ != nullptr) rados_ioctx_destroy(meta_pool_);
  // It ends threads that a failed connection never started, too.
  if (rados_ != nullptr) rados_shutdown(rados_);
}

Result<std::string> Cluster::Address() {
  char* addresses = nullptr;
  int r = rados_getaddrs(rados_, &addresses);
  if (r < 0) return RadosError(r, "find out our own address");
  std::string text(addresses);
  rados_buffer_free(addresses);
  return text;
}

Result<std::string> Cluster::MonitorCommand(const std::string& json) {
  const char* command = json.c_str();
  char* answer = nullptr;
  char* status = nullptr;
  size_t answer_bytes = 0;
  size_t status_bytes = 0;
  int r =
      rados_mon_command(rados_, &command, 1, "", 0, &answer, &answer_bytes, &status, &status_bytes);
  std::string text(answer == nullptr ? "" : answer, answer == nullptr ? 0 : answer_bytes);
  if (answer != nullptr) rados_buffer_free(answer);
  if (status != nullptr) rados_buffer_free(status);
  if (r < 0) return RadosError(r, "ask a monitor " + json);
  return text;
}

}  // namespace chunkstore::ceph
