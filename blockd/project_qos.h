#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "blockd/catalog.h"
#include "blockd/exports.h"

// What the volumes of one project may do together, as an operator set it: beside what each volume's
// type promises, an I/O passes both or waits. Records P/<project> in the catalog's partition.
//
// Thread-safe, blocking.

namespace blockd {

// Keys and values of qos::ParseSpec but _per_gb and _per_gb_min: a project has no size.
using QosSpecs = std::map<std::string, std::string>;

struct ProjectQos {
  std::string project_id;
  QosSpecs specs;  // empty: no limits
  bool operator==(const ProjectQos&) const = default;
};

// kInvalidArgument, naming the key: a value that is none, or a key that limits no project (in a
// qos-spec it may be somebody else's; here it is a slip).
base::Result<void> CheckProjectQos(const QosSpecs& specs);

base::Result<ProjectQos> GetProjectQos(Catalog& catalog, std::string_view project_id);
// All that have limits, by project.
base::Result<std::vector<ProjectQos>> ListProjectQos(Catalog& catalog);
// Replaces them; with no specs it forgets the project. Durable, not applied yet.
base::Result<void> SetProjectQos(Catalog& catalog, const ProjectQos& qos);

// Tells the exports what the record says now. Of changes at once the last one stays, whoever tells
// it: who applied what was changed meanwhile applies it again.
base::Result<void> ApplyProjectQos(Catalog& catalog, Exports& exports, std::string_view project_id);
// Of all projects, at the start.
base::Result<void> ApplyAllProjectQos(Catalog& catalog, Exports& exports);

}  // namespace blockd
