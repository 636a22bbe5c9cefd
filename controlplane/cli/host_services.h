#pragma once

#include <memory>
#include <string>

#include "base/json.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "controlplane/cli/cloud.h"
#include "controlplane/host/http_block_source.h"
#include "controlplane/host/services.h"

namespace controlplane::cli {

// A cloud as the agent of a compute host uses it: found and logged in to as every command does, at
// the first use and whenever a login has expired; so an agent starts while the cloud is down, too.
// Thread-safe; calls block.
class HostServices : public host::Services {
 public:
  explicit HostServices(Cloud cloud) : cloud_(std::move(cloud)) {}

  base::Result<host::Found> FindImage(const std::string& image) override;
  base::Result<host::Found> FindSnapshot(const std::string& snapshot) override;
  base::Result<std::shared_ptr<host::RemoteImage>> OpenRemote(const host::Origin& origin) override;
  base::Result<host::RemoteAttachment> AttachVolume(const std::string& volume) override;
  base::Result<void> DetachVolume(const std::string& attachment_id) override;

 private:
  base::Result<ApiClient*> Client() REQUIRES(mutex_);
  base::Result<std::shared_ptr<host::ServiceSession>> Session();

  const Cloud cloud_;
  base::Mutex
      mutex_;  // held during a call to an API; those for blocks have connections of their own
  std::unique_ptr<ApiClient> client_ GUARDED_BY(mutex_);
  base::Mutex session_mutex_;
  std::shared_ptr<host::ServiceSession> session_ GUARDED_BY(session_mutex_);
};

}  // namespace controlplane::cli
