#pragma once

#include <optional>
#include <string>

#include "base/result.h"

namespace controlplane {

// DIR/clouds.yaml and DIR/endpoint: how a person and a command find the service of a data
// directory.

// The admin password that an earlier start wrote down; nothing if there is no file.
base::Result<std::optional<std::string>> ReadAdminPassword(const std::string& data_dir);

// 32 characters, about 190 bits.
std::string NewPassword();

// Writes clouds.yaml, durably, with mode 0600. `public_url`: under which clients reach the service.
base::Result<void> WriteCredentials(const std::string& data_dir, const std::string& public_url,
                                    const std::string& region, const std::string& password);

// Writes the endpoint file, durably. `base_url`: where the service listens, http://host:port, for
// the commands of this machine.
base::Result<void> WriteEndpoint(const std::string& data_dir, const std::string& base_url);

// Takes the endpoint file away: nobody serves here any more.
void RemoveEndpoint(const std::string& data_dir);

// The error of a file of the directory that is somebody else's, with whose it is and what to do
// (kPermissionDenied); any other error as it is.
base::Error ExplainDenied(base::Error error, const std::string& data_dir);

}  // namespace controlplane
