#pragma once

#include <cstdint>
#include <optional>

#include "base/result.h"
#include "chunkstore/chunk_store.h"
#include "imaged/image.h"

namespace imaged {

// Looks into bytes that are stored already as formats::Inspector does into those that come in: are
// they what the record declares? Returns the size of the disk that they describe, where the format
// tells it. kInvalidArgument with a sentence; kCorruption, kIo of the store.
base::Result<std::optional<uint64_t>> InspectContent(const Image& image,
                                                     chunkstore::Content& content);

}  // namespace imaged
