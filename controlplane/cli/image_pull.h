#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "controlplane/cli/cloud.h"

// `quarry image pull`: an image into a file, of which only what is nowhere on this machine comes
// over the network. From a Quarry by chunks (imaged/API.md, "Chunk transfer"), from any other
// Glance through the plain Image API.

namespace controlplane::cli {

struct PullOptions {
  // Files on this machine that may have some of the image's bytes (an older image), at multiples of
  // 4 MiB. What is in them is taken from there.
  std::vector<std::string> from;
  // Where the agent of this host may be: what its cache has is taken from there, and what is
  // fetched for it stays there. Empty: it is not looked for.
  std::string agent_socket_dir;
  bool agent_expected = false;  // somebody said where it is: if not, he is told
  bool force = false;  // take the place of a file that is there; it counts as one of `from`
  bool quiet = false;
};

// Downloads an image (by id, or by a name that only one has) into `path`: first into
// PATH.<image id>.part, where a pull that was broken off goes on, then verified against
// os_hash_value and renamed. Each chunk was verified by its id before. Runs of zeros become holes.
// The answer is {"id", "path", "size", "verified"} and what was moved:
// "bytes_total", "bytes_zero", "bytes_already_here", "bytes_fetched" (bodies on the wire, and
// blocks that the agent fetched for it), and of what was here "resumed_bytes", which an earlier
// pull had left, and "bytes_from_cache" of the host.
base::Result<base::Json> PullImage(ApiClient& client, const std::string& image,
                                   const std::string& path, const PullOptions& options);

// What a pull moved, for a person: "fetched 12.0 MiB of 1.0 GiB; 98 % was here".
std::string PullSummary(const base::Json& pulled);

}  // namespace controlplane::cli
