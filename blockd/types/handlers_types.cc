#include <algorithm>
#include <optional>
#include <utility>

#include "blockd/api/body.h"
#include "blockd/api/errors.h"
#include "blockd/api/list_request.h"
#include "blockd/api/views.h"
#include "blockd/types/bind.h"
#include "blockd/types/keys.h"

// Volume types: list, show, create, update, delete, and the default type of a project.

namespace blockd::types {
namespace {

using api::Bad;
using api::Call;
using base::Json;
using base::JsonArray;
using base::JsonObject;
using base::Result;
using base::http::Access;
using base::http::Response;

constexpr std::string_view kIsPublicMember = "os-volume-type-access:is_public";
constexpr int kDefaultTypesSince = 62;
constexpr int kExtraSpecFilterSince = 52;
constexpr std::string_view kSortKeys[] = {"created_at", "updated_at", "id",
                                          "name",       "is_public",  "description"};

// Which of the members beyond the common ones an answer has: Cinder's calls differ.
struct Shown {
  bool qos = false;
  bool access = false;
};

JsonObject View(const Call& call, const VolumeType& type, Shown shown) {
  JsonObject view = {{"id", type.id},
                     {"name", type.name},
                     {"is_public", type.is_public},
                     {"description", nullptr},
                     {"extra_specs", api::ToJson(VisibleSpecs(call.caller, type))}};
  if (type.description.has_value()) view["description"] = *type.description;
  if (shown.qos && call.caller.IsAdmin())
    view.emplace("qos_specs_id", api::TextOrNull(type.qos_specs_id));
  if (shown.access) view.emplace(kIsPublicMember, type.is_public);
  return view;
}

Response Answer(const Call& call, const VolumeType& type, Shown shown) {
  return Response::OfJson(200, JsonObject{{"volume_type", View(call, type, shown)}});
}

// What is_public asks for: public ones (also without it), others, or both ("None").
struct PublicFilter {
  bool all = false;
  bool wanted = true;
};

Result<PublicFilter> ParsePublic(const api::ListRequest& list, bool is_admin) {
  PublicFilter filter;
  const auto text = list.Filter("is_public");
  if (!is_admin) {
    // Theirs are the public ones and what they have access to, whatever they ask for.
    filter.all = true;
  } else if (text.has_value()) {
    if (*text == "None" || *text == "none") {
      filter.all = true;
    } else {
      ASSIGN_OR_RETURN(filter.wanted, api::ParseBool(*text, "is_public"));
    }
  }
  return filter;
}

// {'key': 'value'} as Python writes it, which is how clients send it.
Result<Specs> ParseSpecFilter(std::string_view text) {
  std::string json(text);
  std::replace(json.begin(), json.end(), '\'', '"');
  Result<Json> parsed = base::ParseJson(json);
  if (!parsed.has_value()) return Bad("Invalid filter extra_specs: it must be {'key': 'value'}.");
  return api::ParseTextMap(*parsed, "extra_specs");
}

bool HasAll(const Specs& held, const Specs& wanted) {
  return std::all_of(wanted.begin(), wanted.end(), [&](const auto& pair) {
    const auto found = held.find(pair.first);
    return found != held.end() && found->second == pair.second;
  });
}

// -1, 0, 1 by one key.
int Compare(const VolumeType& a, const VolumeType& b, std::string_view key) {
  const auto order = [](const auto& x, const auto& y) { return x < y ? -1 : (y < x ? 1 : 0); };
  if (key == "name") return order(a.name, b.name);
  if (key == "id") return order(a.id, b.id);
  if (key == "is_public") return order(a.is_public, b.is_public);
  if (key == "description") return order(a.description, b.description);
  if (key == "updated_at") return order(a.updated_at_us, b.updated_at_us);
  return order(a.created_at_us, b.created_at_us);
}

void Sort(const std::vector<api::SortTerm>& terms, std::vector<VolumeType>* types) {
  std::sort(types->begin(), types->end(), [&](const VolumeType& a, const VolumeType& b) {
    for (const api::SortTerm& term : terms) {
      const int order = Compare(a, b, term.key);
      if (order != 0) return term.descending ? order > 0 : order < 0;
    }
    return terms.back().descending ? a.id > b.id : a.id < b.id;
  });
}

Result<Response> List(const Context& context, const Call& call) {
  ASSIGN_OR_RETURN(const api::ListRequest list, api::ParseList(call, kSortKeys));
  ASSIGN_OR_RETURN(const PublicFilter is_public, ParsePublic(list, call.caller.IsAdmin()));
  Specs specs;
  if (const auto text = list.Filter("extra_specs");
      text.has_value() && call.version.AtLeast(kExtraSpecFilterSince)) {
    ASSIGN_OR_RETURN(specs, ParseSpecFilter(*text));
  }
  const auto name = list.Filter("name");
  ASSIGN_OR_RETURN(std::vector<VolumeType> types, context.types.List());
  std::erase_if(types, [&](const VolumeType& type) {
    return !MaySee(call.caller, type) || (!is_public.all && type.is_public != is_public.wanted) ||
           (name.has_value() && type.name != *name) ||
           !HasAll(VisibleSpecs(call.caller, type), specs);
  });
  Sort(list.sort, &types);
  ASSIGN_OR_RETURN(
      types, api::PageOf(list, std::move(types), [](const VolumeType& type) { return type.id; }));
  JsonArray views;
  for (const VolumeType& type : types)
    views.push_back(View(call, type, {.qos = true, .access = true}));
  JsonObject body = {{"volume_types", std::move(views)}};
  api::AppendNextLink(call, list, "volume_type", types.size(), types.empty() ? "" : types.back().id,
                      &body);
  return Response::OfJson(200, std::move(body));
}

Result<Response> Show(const Context& context, const Call& call) {
  if (call.Param("type_id") == "default") {
    ASSIGN_OR_RETURN(const VolumeType type, context.types.DefaultOf(call.caller.project_id));
    return Answer(call, type, {.qos = true});
  }
  ASSIGN_OR_RETURN(const VolumeType type, VisibleType(context, call));
  return Answer(call, type, {.qos = true, .access = true});
}

Result<Response> Create(const Context& context, const Call& call) {
  ASSIGN_OR_RETURN(const JsonObject body, api::ParseBody(call, "volume_type"));
  VolumeType type;
  ASSIGN_OR_RETURN(type.name, api::RequiredName(body, "name"));
  ASSIGN_OR_RETURN(type.description,
                   api::OptionalText(body, "description", api::kMaxTextCharacters));
  ASSIGN_OR_RETURN(const std::optional<bool> is_public, api::OptionalBool(body, kIsPublicMember));
  type.is_public = is_public.value_or(true);
  if (const Json* specs = body.if_contains("extra_specs"); specs != nullptr && !specs->is_null()) {
    ASSIGN_OR_RETURN(type.extra_specs, api::ParseTextMap(*specs, "extra_specs"));
  }
  ASSIGN_OR_RETURN(type, context.types.Create(std::move(type)));
  return Answer(call, type, {.access = true});
}

Result<Response> Update(const Context& context, const Call& call) {
  ASSIGN_OR_RETURN(const JsonObject body, api::ParseBody(call, "volume_type"));
  std::optional<std::string> name;
  if (const Json* member = body.if_contains("name"); member != nullptr && !member->is_null()) {
    ASSIGN_OR_RETURN(name, api::RequiredName(body, "name"));
  }
  ASSIGN_OR_RETURN(const std::optional<std::string> description,
                   api::OptionalText(body, "description", api::kMaxTextCharacters));
  ASSIGN_OR_RETURN(const std::optional<bool> is_public, api::OptionalBool(body, "is_public"));
  if (!name.has_value() && !description.has_value() && !is_public.has_value())
    return Bad("Specify volume type name, description, is_public or a combination thereof.");
  ASSIGN_OR_RETURN(
      const VolumeType type,
      context.types.Update(call.Param("type_id"), [&](VolumeType& held) -> Result<void> {
        if (name.has_value()) held.name = *name;
        if (description.has_value()) held.description = *description;
        if (is_public.has_value()) held.is_public = *is_public;
        return {};
      }));
  return Answer(call, type, {});
}

Result<Response> Delete(const Context& context, const Call& call) {
  RETURN_IF_ERROR(context.types.Delete(call.Param("type_id")));
  return api::Accepted();
}

// --- default types ---

JsonObject View(const TypeStore::Default& entry) {
  return {{"project_id", entry.project_id}, {"volume_type_id", entry.type_id}};
}

Result<Response> ListDefaults(const Context& context, const Call&) {
  ASSIGN_OR_RETURN(const auto defaults, context.types.Defaults());
  JsonArray views;
  for (const TypeStore::Default& entry : defaults) views.push_back(View(entry));
  return Response::OfJson(200, JsonObject{{"default_types", std::move(views)}});
}

Result<Response> ShowDefault(const Context& context, const Call& call) {
  ASSIGN_OR_RETURN(const auto entry, context.types.GetDefault(call.Param("of_project_id")));
  return Response::OfJson(200, JsonObject{{"default_type", View(entry)}});
}

Result<Response> SetDefault(const Context& context, const Call& call) {
  ASSIGN_OR_RETURN(const JsonObject body, api::ParseBody(call, "default_type"));
  ASSIGN_OR_RETURN(const std::string type, api::RequiredName(body, "volume_type"));
  ASSIGN_OR_RETURN(const auto entry, context.types.SetDefault(call.Param("of_project_id"), type));
  return Response::OfJson(200, JsonObject{{"default_type", View(entry)}});
}

Result<Response> ForgetDefault(const Context& context, const Call& call) {
  RETURN_IF_ERROR(context.types.ForgetDefault(call.Param("of_project_id")));
  return Response::Empty(204);
}

}  // namespace

Result<VolumeType> VisibleType(const Context& context, const Call& call) {
  const std::string& id = call.Param("type_id");
  ASSIGN_OR_RETURN(VolumeType type, context.types.Get(id));
  if (!MaySee(call.caller, type)) return NoType(id);
  return type;
}

Specs VisibleSpecs(const base::auth::Caller& caller, const VolumeType& type) {
  if (caller.IsAdmin()) return type.extra_specs;
  Specs visible;
  for (const std::string_view key :
       {kMultiAttachSpec, kAvailabilityZonesSpec, std::string_view("replication_enabled")}) {
    const auto found = type.extra_specs.find(std::string(key));
    if (found != type.extra_specs.end()) visible.insert(*found);
  }
  return visible;
}

void AppendTypeRoutes(const Context& context, std::vector<api::Route>* routes) {
  const auto add = [&](const char* method, const char* pattern, HandlerFunction handler,
                       Access access = Access::kAdmin, int since = 0) {
    routes->push_back(MakeRoute(context, method, pattern, handler, access, since));
  };
  add("GET", "/types", List, Access::kToken);
  add("GET", "/types/{type_id}", Show, Access::kToken);
  add("POST", "/types", Create);
  add("PUT", "/types/{type_id}", Update);
  add("DELETE", "/types/{type_id}", Delete);
  add("GET", "/default-types", ListDefaults, Access::kAdmin, kDefaultTypesSince);
  add("GET", "/default-types/{of_project_id}", ShowDefault, Access::kAdmin, kDefaultTypesSince);
  add("PUT", "/default-types/{of_project_id}", SetDefault, Access::kAdmin, kDefaultTypesSince);
  add("DELETE", "/default-types/{of_project_id}", ForgetDefault, Access::kAdmin,
      kDefaultTypesSince);
}

void AppendRoutes(const Context& context, std::vector<api::Route>* routes) {
  AppendTypeRoutes(context, routes);
  AppendTypeAccessRoutes(context, routes);
  AppendExtraSpecRoutes(context, routes);
  AppendQosRoutes(context, routes);
}

}  // namespace blockd::types
