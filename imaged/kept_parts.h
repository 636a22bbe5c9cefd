#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/result.h"
#include "chunkstore/chunk_store.h"
#include "imaged/data_path.h"

// What a negotiated upload had brought when it broke off is kept for a while, as a content of its
// own, so that the next try need not send it again. It belongs to the project that sent it: that
// one is told of its chunks, and may name them, as of those of an image that it could download. It
// tells nobody anything: who sent the bytes has them. It is not an image, and not in a quota; so
// there are few of them, and not for long.

namespace imaged {

constexpr int64_t kKeptPartUs = 3'600'000'000;  // an hour
constexpr size_t kKeptPartsOfProject = 4;       // then the oldest goes

// Finishes the ingest of `holder`, of which `size_bytes` came, and keeps it for the project under
// another name. The caller lets go of `holder` as after every upload that failed. Blocking.
base::Result<void> KeepPart(DataPath& path, const std::string& project_id,
                            const std::string& holder, chunkstore::Ingest& ingest,
                            uint64_t size_bytes);

// Lets go of those that are older than kKeptPartUs. A walk over all of them.
base::Result<void> ReleaseOldParts(DataPath& path);

}  // namespace imaged
