#include "controlplane/image_names.h"

#include <vector>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/uuid.h"
#include "imaged/catalog.h"
#include "imaged/query.h"

namespace controlplane {

using base::Code;
using base::Error;
using base::Result;

Result<std::string> FindStoredImage(Store& store, std::string_view id_or_name) {
  imaged::Catalog catalog(*store.meta, base::SystemClock());
  if (base::IsUuid(id_or_name)) {
    const Result<imaged::Image> by_id = catalog.Get(id_or_name);
    if (by_id.has_value()) return by_id->id;
    if (by_id.error().code() != Code::kNotFound) return by_id.error();
  }
  imaged::ListQuery query;
  query.viewer.is_admin = true;
  query.all_visibilities = true;
  query.member_status.reset();
  query.names.emplace_back(id_or_name);
  query.limit = 2;
  std::vector<imaged::Image> named;
  for (const bool hidden : {false, true}) {
    query.is_hidden = hidden;
    ASSIGN_OR_RETURN(const std::vector<imaged::Image> page, catalog.List(query));
    named.insert(named.end(), page.begin(), page.end());
  }
  if (named.empty()) return Error(Code::kNotFound, fmt::format("no image '{}'", id_or_name));
  if (named.size() > 1) {
    return Error(Code::kConflict,
                 fmt::format("several images are named '{}': name one by its id", id_or_name));
  }
  return named[0].id;
}

Result<std::string> NameOfStoredImage(Store& store, std::string_view id) {
  imaged::Catalog catalog(*store.meta, base::SystemClock());
  ASSIGN_OR_RETURN(const imaged::Image image, catalog.Get(id));
  return image.name.value_or("");
}

}  // namespace controlplane
