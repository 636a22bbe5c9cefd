#pragma once

#include <vector>

#include "base/auth/verifier.h"
#include "base/http/router.h"
#include "blockd/context.h"

namespace blockd {

// The Block Storage API v3, put together: the routes of volumes, snapshots and attachments, and
// those of other folders (types, quotas, versions, ...), which are handed in. The routes borrow the
// service and what it borrows. Thread-safe.
class BlockService {
 public:
  // What the context borrows outlives the service, and so does the verifier. `more`: routes below
  // the project; `outside`: those that stand beside /v3 (the documents of versions).
  BlockService(ServiceOptions options, const Context& context, base::auth::TokenVerifier& verifier,
               Routes more, std::vector<base::http::Route> outside);

  // Mount it. Every route is in here.
  base::http::Service service() const;

 private:
  const ServiceOptions options_;
  const Context context_;
  base::auth::TokenVerifier& verifier_;
  const Routes more_;
  const std::vector<base::http::Route> outside_;
};

}  // namespace blockd
