#pragma once

#include "base/http/router.h"
#include "base/metrics.h"

namespace controlplane {

// GET /: what there is, as JSON; `own_identity`: tokens too. GET /healthz: 200 "ok" while the
// process serves. GET /metrics: Prometheus' text format. Public: they tell no tenant's names.
// Borrows `metrics`.
base::http::Service StatusService(base::Metrics& metrics, bool own_identity);

}  // namespace controlplane
