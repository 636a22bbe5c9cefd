#pragma once

#include <vector>

#include "blockd/api/route.h"
#include "blockd/catalog.h"
#include "blockd/tenancy/messages.h"
#include "blockd/tenancy/transfers.h"
#include "blockd/types/type_store.h"

// What belongs to projects rather than to one volume: their quotas and what they use of them, the
// messages that tell them what went wrong, and volumes handed from one to another.

namespace blockd::tenancy {

// What the handlers work with: borrowed, as long as the service.
struct Context {
  Catalog& catalog;
  types::TypeStore& types;
  Messages& messages;
  Transfers& transfers;
};

void AppendQuotaRoutes(const Context& context, std::vector<api::Route>* routes);
void AppendLimitRoutes(const Context& context, std::vector<api::Route>* routes);  // and the summary
void AppendMessageRoutes(const Context& context, std::vector<api::Route>* routes);
void AppendTransferRoutes(const Context& context, std::vector<api::Route>* routes);

// All of the above.
void AppendRoutes(const Context& context, std::vector<api::Route>* routes);

}  // namespace blockd::tenancy
