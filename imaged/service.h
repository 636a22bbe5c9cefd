#pragma once

#include <vector>

#include "base/auth/verifier.h"
#include "base/http/router.h"
#include "imaged/context.h"

namespace imaged {

// The Image API v2, put together: this folder's own routes and those of the data path
// (data_routes.h), which are handed in. The routes borrow the service and what it borrows.
// Thread-safe.
class ImageService {
 public:
  // Borrowed; they outlive the service.
  ImageService(ServiceOptions options, Catalog& catalog, Metadefs& metadefs,
               base::auth::TokenVerifier& verifier, std::vector<base::http::Route> data_routes);

  // Mount it. Every route is in here.
  base::http::Service service() const;

 private:
  const ServiceOptions options_;
  const Context context_;
  base::auth::TokenVerifier& verifier_;
  const std::vector<base::http::Route> data_routes_;
};

}  // namespace imaged
