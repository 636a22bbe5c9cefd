#pragma once

#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "base/json.h"
#include "base/result.h"
#include "controlplane/cli/cloud.h"

// Images of a cloud, and the way of a local file there: what `quarry image push`, `ls` and `rm` do
// (image_pull.h has the way back). A push sends only what a Quarry lacks (image_chunks.h);
// everything else goes through the plain Image API.

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
