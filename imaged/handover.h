#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/result.h"
#include "chunkstore/chunk_store.h"
#include "imaged/data_path.h"
#include "imaged/image.h"

namespace imaged {

// Bytes that come to an image from within: a volume that becomes one.
struct Handover {
  std::string image_id;        // queued
  uint64_t reserve_bytes = 0;  // of the quota, while it is on its way
  // Makes `holder` keep the bytes: by ChunkStore::HoldAgain, or by an ingest of its own.
  std::function<base::Result<chunkstore::Root>(const std::string& holder,
                                               const std::string& attributes)>
      hold;
};

// The same steps as an upload, but for the bytes' way: they are looked into (they must be what the
// record declares), their digests are computed unless they are known, and the image becomes active.
// When it fails the image is queued as before, and what it held is let go. Blocking: long where
// digests are not known. kNotFound, kConflict (not queued), kInvalidArgument, kQuotaExceeded,
// kCancelled.
base::Result<Image> HandOver(DataPath& path, const Handover& handover,
                             const std::function<bool()>& cancelled);

}  // namespace imaged
