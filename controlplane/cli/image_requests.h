#pragma once

#include <string>

#include "base/files.h"
#include "base/result.h"
#include "controlplane/cli/cloud.h"

// What pushing and pulling images have in common.

namespace controlplane::cli {

// .../v2/images of the cloud's image service. kNotFound.
base::Result<std::string> ImagesUrl(const ApiClient& client);

// Of one image in the service's own calls, beside Glance's: .../v2/quarry/images/ID.
std::string QuarryUrl(const std::string& images_url, const std::string& image_id);

// Whether a first call to those was refused by a service that does not have them, or not in this
// version: then the Image API does.
bool IsNotSpoken(const base::Error& error);

// The digest of the file's first `size` bytes, in hex. `algorithm` as base::Digester names them.
base::Result<std::string> DigestOfFile(const base::File& file, uint64_t size,
                                       const std::string& algorithm, const std::string& title,
                                       bool quiet);

// The last part of a path.
std::string FileName(const std::string& path);

}  // namespace controlplane::cli
