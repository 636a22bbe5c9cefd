#pragma once

#include <memory>

#include "base/result.h"
#include "controlplane/store.h"

namespace controlplane {

// The two stores of a Ceph cluster, without a chunk store over them. Any number of processes may
// have them open. Errors as of OpenStore; kUnavailable where the cluster does not answer.
base::Result<std::unique_ptr<Store>> OpenClusterStore(const Settings& settings,
                                                      StorePurpose purpose);

}  // namespace controlplane
