#pragma once

#include "controlplane/identity/api.h"
#include "controlplane/identity/identity.h"

namespace controlplane::identity {

constexpr char kDefaultDomainId[] = "default";

// Identity::Bootstrap.
base::Result<void> RunBootstrap(Api& api, const BootstrapRequest& request);

}  // namespace controlplane::identity
