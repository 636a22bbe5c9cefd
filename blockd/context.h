#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/http/router.h"
#include "blockd/api/route.h"
#include "blockd/backup_target.h"
#include "blockd/catalog.h"
#include "blockd/exports.h"
#include "blockd/image_source.h"
#include "blockd/type_directory.h"
#include "blockd/volume_store.h"

namespace blockd {

class Jobs;
enum class Lane : uint8_t;

// Off: no store is set. Down: it could not be opened at the start.
enum class BackupService : uint8_t { kOff, kDown, kUp };

struct ServiceOptions {
  std::string prefix = "/volume";
  // Where a client without a valid token is sent; empty: the identity service beside us.
  std::string auth_url;
  std::string availability_zone = "nova";
  std::string node = "quarry";  // of the hosts that administrators see: HostOf
  // The pools of volumes by name; what no type says is made in the first.
  std::vector<std::string> back_ends = {std::string(kBackEndName)};
  std::string service_id;  // a UUID: service_uuid of volumes
  BackupService backup_service = BackupService::kOff;
  int64_t attach_lease_ms = 10 * 60'000;  // how long "attaching" may take
  // How long a detach waits for its job before it answers: less than a second with all that is
  // around it, so that no proxy's time-out is in sight.
  int64_t detach_wait_ms = 500;
};

// "quarry@store#store": host@backend#pool, as administrators see it.
inline std::string HostOf(const ServiceOptions& options, const std::string& back_end) {
  return options.node + "@" + back_end + "#" + back_end;
}

// What a handler works with: borrowed, as long as the service.
struct Context {
  const ServiceOptions& options;
  Catalog& catalog;
  Jobs& jobs;
  TypeDirectory& types;
  VolumeStore& store;
  Exports& exports;
  ImageSource& images;
  BackupTarget* backups = nullptr;  // there with BackupService::kUp alone
};

using ContextHandler = api::ContextHandler<Context>;
using Routes = std::vector<api::Route>;
using api::MakeRoute;

}  // namespace blockd
