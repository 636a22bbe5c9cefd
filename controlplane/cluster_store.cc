#include "controlplane/cluster_store.h"

#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/files.h"
#include "chunkstore/ceph/ceph_blob_store.h"
#include "chunkstore/ceph/ceph_meta_store.h"
#include "chunkstore/ceph/cluster.h"

namespace controlplane {

using base::Code;
using base::Error;
using base::Result;

namespace {

// Nothing but its trailer and its records says what a blob is for. Without the records all of them
// look like garbage.
Result<void> CheckRecords(Store& store, const Settings& settings) {
  ASSIGN_OR_RETURN(const std::vector<std::string> partitions, store.meta->Partitions(""));
  if (!partitions.empty()) return {};
  bool has_blobs = false;
  RETURN_IF_ERROR(store.blobs->List([&](std::string_view, uint64_t) {
    has_blobs = true;
    return false;
  }));
  if (!has_blobs) return {};
  return Error(Code::kCorruption,
               fmt::format("pool {} has chunks, but there are no records of them: say by "
                           "ceph.meta-pool and ceph.namespace where these are",
                           *settings.ceph_pool));
}

}  // namespace

Result<std::unique_ptr<Store>> OpenClusterStore(const Settings& settings, StorePurpose purpose) {
  if (purpose == StorePurpose::kRebuild) {
    return Error(Code::kInvalidArgument,
                 "records on Ceph are replicated by it and are not made again from the chunks");
  }
  chunkstore::ceph::ClusterOptions options;
  options.conf_path = *settings.ceph_conf;
  options.user = *settings.ceph_user;
  options.pool = *settings.ceph_pool;
  options.meta_pool =
      settings.ceph_meta_pool->empty() ? *settings.ceph_pool : *settings.ceph_meta_pool;
  options.space = *settings.ceph_namespace;
  options.connect_timeout_ms = *settings.ceph_connect_timeout;
  options.operation_timeout_ms = *settings.ceph_timeout;
  if (purpose == StorePurpose::kServe)
    RETURN_IF_ERROR(base::SystemFiles().CreateDirs(*settings.data_dir));
  ASSIGN_OR_RETURN(auto cluster, chunkstore::ceph::Cluster::Connect(options));
  auto store = std::make_unique<Store>();
  store->blobs = chunkstore::ceph::OpenCephBlobStore(cluster);
  ASSIGN_OR_RETURN(store->meta, chunkstore::ceph::OpenCephMetaStore(std::move(cluster)));
  RETURN_IF_ERROR(CheckRecords(*store, settings));
  return store;
}

}  // namespace controlplane
