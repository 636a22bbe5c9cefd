#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/config.h"
#include "base/result.h"
#include "imaged/chunk_wire.h"

// Images through the cache of this host: what its agent (`quarry host`) has, or brings and keeps.

namespace controlplane::cli {

constexpr char kDefaultSocketDir[] = "/run/quarry-host";

// Where the agent is found, for every command that talks to it.
base::ConfigBuilder::Option<std::string>& SocketDirOption(base::ConfigBuilder& options);

// A chunk as the agent says that it is: nobody has verified it.
struct HostChunk {
  uint64_t number = 0;
  base::ByteView bytes;
  uint64_t fetched_bytes = 0;        // that the agent had to bring for it, as they came
  uint64_t fetched_plain_bytes = 0;  // the part of `bytes` that these are
};
using HostChunkSink = std::function<base::Result<void>(const HostChunk&)>;

// Asks the agent for whole chunks of an image, none of them a hole, at most host::kMaxCopiedChunks;
// they come in any order. The sink's errors; kUnavailable and kPermissionDenied where no agent
// listens, or none that we may ask; the agent's errors (it may log in to another cloud: kNotFound).
// `ours` tells that it was the sink's.
base::Result<void> CopyFromHost(const std::string& socket_dir, const std::string& image_id,
                                const std::vector<imaged::ChunkRun>& runs,
                                const HostChunkSink& sink, bool* ours);

}  // namespace controlplane::cli
