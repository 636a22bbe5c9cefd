#pragma once

#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "base/json.h"
#include "base/result.h"
#include "controlplane/cli/cloud.h"

// Images between a local file and a cloud: what `quarry image push` and `pull` do. A push sends
// only what a Quarry lacks (image_chunks.h); everything else goes through the plain Image API.

namespace controlplane::cli {

struct PushOptions {
  std::string name;         // empty: the file's name, "stdin" for "-"
  std::string disk_format;  // empty: told by the file's first bytes
  std::string container_format = "bare";
  bool again = false;  // upload even if an image with the same content is there already
  bool quiet = false;  // no progress bar
};

// Makes an image of the file (or of what comes through a pipe; "-" is standard input) and uploads
// it. Where the cloud already shows the caller an active image of the same content (by
// os_hash_value) and the same name, that one is the answer and nothing is sent. A failed upload
// deletes the image that it made. The answer is the image as the API shows it, with "bytes_total",
// "bytes_zero", "bytes_already_there" and "bytes_sent" added (PushTotals).
base::Result<base::Json> PushImage(ApiClient& client, const std::string& path,
                                   const PushOptions& options);

// What a push moved, for a person: "already there: 83 %, 170.2 MiB sent".
std::string PushSummary(const base::Json& pushed);

struct PullOptions {
  bool force = false;  // take the place of a file that is there
  bool quiet = false;
};

// Downloads an image (by id, or by a name that only one has) into `path`: first into
// PATH.<image id>.part, where a pull that was broken off goes on, then verified against
// os_hash_value and renamed. Runs of zeros become holes. The answer is
// {"id", "path", "size", "resumed_bytes", "verified"}.
base::Result<base::Json> PullImage(ApiClient& client, const std::string& image,
                                   const std::string& path, const PullOptions& options);

// The image with this id, or the only one with this name, hidden ones included. kNotFound;
// kConflict when several have the name.
base::Result<base::Json> FindImage(ApiClient& client, const std::string& image);

// All images the caller can see, page by page.
base::Result<base::JsonArray> ListImages(ApiClient& client);

base::Result<void> DeleteImage(ApiClient& client, const std::string& id);

// The disk format that the first bytes of a file speak for: "qcow2", "vmdk", "vhdx", "vdi", "iso",
// or else "raw".
base::Result<std::string> GuessDiskFormat(const std::string& path);
std::string GuessDiskFormat(base::ByteView head);

}  // namespace controlplane::cli
