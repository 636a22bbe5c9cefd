#pragma once

#include <vector>

#include "blockd/api/route.h"
#include "blockd/catalog.h"
#include "blockd/exports.h"
#include "blockd/types/type_store.h"

// The calls about volume types, what project may have which, and qos-specs.

namespace blockd::types {

// What the handlers work with: borrowed, as long as the service.
struct Context {
  Catalog& catalog;
  TypeStore& types;
  Exports& exports;
};

void AppendTypeRoutes(const Context& context, std::vector<api::Route>* routes);
void AppendTypeAccessRoutes(const Context& context, std::vector<api::Route>* routes);
void AppendExtraSpecRoutes(const Context& context, std::vector<api::Route>* routes);
void AppendQosRoutes(const Context& context, std::vector<api::Route>* routes);

// All of the above.
void AppendRoutes(const Context& context, std::vector<api::Route>* routes);

// The type of a call's {type_id}, if the caller may see it: kNotFound otherwise.
base::Result<VolumeType> VisibleType(const Context& context, const api::Call& call);

// Extra specs as the caller may see them: an administrator all, others those that tell them how to
// use the type.
Specs VisibleSpecs(const base::auth::Caller& caller, const VolumeType& type);

// Tells the attachments of all volumes of these types what they may do from now on.
base::Result<void> ApplyLimits(const Context& context, const std::set<std::string>& type_ids);

}  // namespace blockd::types
