#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/auth/verifier.h"
#include "base/clock.h"
#include "base/http/router.h"
#include "base/json.h"
#include "chunkstore/chunk_store.h"
#include "controlplane/admin/operations.h"
#include "controlplane/admin/scrub_log.h"

namespace controlplane::admin {

// Where the maintenance of a store is: the service's own, and the one that its backups are in.
constexpr char kPrefix[] = "/admin";
constexpr char kBackupsPrefix[] = "/admin/backups";

// A store's maintenance over HTTP, under a prefix; every route wants the role admin
// (controlplane/README.md).
//
//   POST   /v1/gc      {"orphans": bool}   202 {"id"}
//   POST   /v1/scrub   {"repair": bool}    202 {"id"}
//   GET    /v1/operations[/{id}]           the state, at the end with the report
//   DELETE /v1/operations/{id}             asks it to end
//   GET    /v1/stats                       the store's figures
//   GET    /v1/stats/{image_id}            one image's
//
// Thread-safe.
class AdminService {
 public:
  // All are borrowed and outlive it. `scrubs` hears of each scrub that ran to its end.
  // `before_collect` (may be empty) lets the services let go of what they hold no longer, so that a
  // collection that somebody asks for frees it at once.
  // `explain_holders` (may be empty) adds to a report what its holders are to people.
  AdminService(chunkstore::ChunkStore& store, Operations& operations,
               base::auth::TokenVerifier& verifier, ScrubLog& scrubs,
               std::function<base::Result<void>()> before_collect = {},
               std::function<base::Result<void>(base::Json*)> explain_holders = {})
      : store_(store),
        operations_(operations),
        verifier_(verifier),
        scrubs_(scrubs),
        before_collect_(std::move(before_collect)),
        explain_holders_(std::move(explain_holders)) {}

  base::http::Service service(std::string prefix = kPrefix);

  // Starts a pass, as the route does: the background schedule uses these too.
  base::Result<std::string> StartCollect(bool orphans);
  base::Result<std::string> StartScrub(bool repair);

 private:
  base::Result<base::http::Response> StatsOf(const base::http::Request& request);
  base::Json Explained(base::Json report);

  chunkstore::ChunkStore& store_;
  Operations& operations_;
  base::auth::TokenVerifier& verifier_;
  ScrubLog& scrubs_;
  const std::function<base::Result<void>()> before_collect_;
  const std::function<base::Result<void>(base::Json*)> explain_holders_;
};

// The figures of the one holder that an image has. kNotFound.
base::Result<chunkstore::HolderStats> StatsOfImage(chunkstore::ChunkStore& store,
                                                   std::string_view image_id);

}  // namespace controlplane::admin
