#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "base/bytes.h"
#include "base/result.h"
#include "controlplane/host/image_volume.h"

namespace controlplane::host {

// Chunks that are read at once for one copy: a link with delay is kept full, in 16 MiB of memory.
constexpr size_t kCopyThreads = 4;

// A whole chunk, verified against its table.
struct CopiedChunk {
  uint64_t number = 0;
  base::ByteView bytes;
  ImageVolume::Fetched fetched;  // of it, what was not in the cache
};
// Called by one thread at a time. False calls it off.
using CopySink = std::function<bool(const CopiedChunk&)>;

// Reads whole chunks through the cache of the host, for somebody who wants an image as a file: in
// about the order of `chunks`, none of which is a hole. No guest waits for it, so it is neither
// patient nor recorded. Errors as of BlockSource; kCancelled.
base::Result<void> CopyChunks(ImageVolume& volume, std::span<const uint64_t> chunks,
                              const CopySink& sink);

}  // namespace controlplane::host
