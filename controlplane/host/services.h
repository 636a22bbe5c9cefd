#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"
#include "controlplane/host/images.h"

namespace controlplane::host {

// What an operator named, found.
struct Found {
  std::string id;
  std::string name;
};

// A volume that this host may use, until it is detached. `uri` is a secret.
struct RemoteAttachment {
  std::string volume_id;
  std::string volume_name;
  std::string attachment_id;
  std::string uri;       // of NBD, at the service
  std::string image_id;  // that it was made of; empty: none
};

// The cloud behind a compute host, as its agent needs it: a seam for tests. Thread-safe; calls
// block. Errors say what to do; kNotFound, kPermissionDenied, kUnavailable.
class Services {
 public:
  virtual ~Services() = default;

  // By id, or by a name that is the only one. kConflict for a name of several; kInvalidArgument for
  // an image that is no raw disk, or has no bytes yet.
  virtual base::Result<Found> FindImage(const std::string& image) = 0;
  virtual base::Result<Found> FindSnapshot(const std::string& snapshot) = 0;
  virtual base::Result<std::shared_ptr<RemoteImage>> OpenRemote(const Origin& origin) = 0;

  // The host gets an attachment of its own at the service, for reading and writing. kConflict when
  // somebody has one.
  virtual base::Result<RemoteAttachment> AttachVolume(const std::string& volume) = 0;
  // Fine if it is gone.
  virtual base::Result<void> DetachVolume(const std::string& attachment_id) = 0;
};

}  // namespace controlplane::host
