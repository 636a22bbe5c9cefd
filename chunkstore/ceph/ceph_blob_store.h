#pragma once

#include <memory>

#include "chunkstore/blob_store.h"
#include "chunkstore/ceph/cluster.h"

namespace chunkstore::ceph {

// Blobs as RADOS objects, one each ("blob." and the name), made whole by one operation: there are
// no parts of blobs. Durable on as many OSDs as the pool's min_size when a Put returns. Reads and
// deep scrubs check the OSDs' own checksums: what does not match is mended from another copy by
// the OSD, or kCorruption.
//
// A full pool is kOutOfSpace at once; blobs can still be removed. An operation that no OSD answers
// in time is kUnavailable and may yet happen. Space asks a monitor, at most every few seconds; in
// a cluster whose manager daemon is down nobody knows, and it says that there is plenty. Without
// files. Thread-safe.
std::unique_ptr<BlobStore> OpenCephBlobStore(std::shared_ptr<Cluster> cluster);

}  // namespace chunkstore::ceph
