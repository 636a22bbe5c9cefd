#include <algorithm>
#include <optional>
#include <span>

#include "base/text.h"
#include "imaged/attributes.h"
#include "imaged/handlers.h"
#include "imaged/list_request.h"

// Metadata definitions: everybody reads (a private namespace only its project), administrators
// write.

namespace imaged {
namespace {

using base::Code;
using base::Error;
using base::Json;
using base::JsonArray;
using base::JsonObject;
using base::Result;
using base::http::Access;
using base::http::Request;
using base::http::Response;

constexpr std::string_view kNamespaces = "/v2/metadefs/namespaces";

// The kinds of resource that OpenStack's own services have; an association may name any other.
constexpr std::string_view kResourceTypes[] = {"OS::Cinder::Volume",  "OS::Glance::Image",
                                               "OS::Nova::Aggregate", "OS::Nova::Flavor",
                                               "OS::Nova::Server",    "OS::Trove::Instance"};

enum class Type : uint8_t { kText, kBoolean, kList, kObject, kNumber, kAny };
struct Field {
  std::string_view name;
  Type type;
  bool required = false;
};

// What belongs to a namespace, several of a kind, by name.
struct Kind {
  std::string_view key;  // in the document and in the path
  std::string_view singular;
  std::string_view list_key;  // in the answer
  bool has_times;
  bool has_links;
  std::span<const Field> fields;
};

constexpr Field kNamespaceFields[] = {{"namespace", Type::kText},
                                      {"display_name", Type::kText},
                                      {"description", Type::kText},
                                      {"visibility", Type::kText},
                                      {"protected", Type::kBoolean},
                                      {"owner", Type::kText},
                                      {"resource_type_associations", Type::kList},
                                      {"properties", Type::kObject},
                                      {"objects", Type::kList},
                                      {"tags", Type::kList}};
constexpr Field kObjectFields[] = {{"name", Type::kText, true},
                                   {"description", Type::kText},
                                   {"required", Type::kList},
                                   {"properties", Type::kObject}};
constexpr Field kPropertyFields[] = {
    {"name", Type::kText, true},        {"title", Type::kText, true},
    {"type", Type::kText, true},        {"description", Type::kText},
    {"operators", Type::kList},         {"required", Type::kList},
    {"minimum", Type::kNumber},         {"maximum", Type::kNumber},
    {"maxLength", Type::kNumber},       {"minLength", Type::kNumber},
    {"pattern", Type::kText},           {"enum", Type::kList},
    {"readonly", Type::kBoolean},       {"default", Type::kAny},
    {"items", Type::kObject},           {"maxItems", Type::kNumber},
    {"minItems", Type::kNumber},        {"uniqueItems", Type::kBoolean},
    {"additionalItems", Type::kBoolean}};
constexpr Field kTagFields[] = {{"name", Type::kText, true}};
constexpr Field kResourceTypeFields[] = {
    {"name", Type::kText, true}, {"prefix", Type::kText}, {"properties_target", Type::kText}};

constexpr Kind kObjects = {"objects", "object", "objects", true, true, kObjectFields};
constexpr Kind kProperties = {"properties", "property", "properties",
                              false,        false,      kPropertyFields};
constexpr Kind kTags = {"tags", "tag", "tags", true, false, kTagFields};
constexpr Kind kAssociations = {
    "resource_types",   "resource type association", "resource_type_associations", true, false,
    kResourceTypeFields};

Error Bad(std::string message) { return Error(Code::kInvalidArgument, std::move(message)); }

bool IsOfType(Type type, const Json& value) {
  switch (type) {
    case Type::kText:
      return value.is_string();
    case Type::kBoolean:
      return value.is_bool();
    case Type::kList:
      return value.is_array();
    case Type::kObject:
      return value.is_object();
    case Type::kNumber:
      return value.is_number();
    case Type::kAny:
      break;
  }
  return true;
}

// What the service writes itself may come back in a body, and is left out.
bool IsOwn(std::string_view name) {
  return name == "self" || name == "schema" || name == "created_at" || name == "updated_at";
}

Result<JsonObject> Checked(std::string_view what, std::span<const Field> fields,
                           const JsonObject& body) {
  JsonObject checked;
  for (const auto& [key, value] : body) {
    const std::string_view name = key;
    if (IsOwn(name)) continue;
    const auto field = std::find_if(fields.begin(), fields.end(),
                                    [&](const Field& known) { return known.name == name; });
    if (field == fields.end() || !IsOfType(field->type, value))
      return Bad("Provided object does not match schema '" + std::string(what) +
                 "': " + std::string(name.substr(0, 100)) + " is unknown or of a wrong type");
    checked.emplace(name, value);
  }
  for (const Field& field : fields)
    if (field.required && !checked.contains(field.name))
      return Bad("Provided object does not match schema '" + std::string(what) + "': '" +
                 std::string(field.name) + "' is a required property");
  return checked;
}

Result<void> CheckName(std::string_view what, std::string_view name) {
  if (!name.empty() && name.size() <= kMaxMetadefNameCharacters) return {};
  return Bad("The name of a " + std::string(what) + " has 1 to " +
             std::to_string(kMaxMetadefNameCharacters) + " bytes.");
}

std::string TextOf(const JsonObject& object, std::string_view key) {
  const Json* value = object.if_contains(key);
  if (value == nullptr || !value->is_string()) return {};
  return std::string(base::View(value->get_string()));
}

bool MaySee(const base::auth::Caller& caller, const JsonObject& document) {
  return caller.IsAdmin() || TextOf(document, "visibility") == "public" ||
         (!caller.project_id.empty() && TextOf(document, "owner") == caller.project_id);
}

Result<JsonObject> Load(const Context& context, const Request& request) {
  const std::string& name = request.Param("namespace");
  ASSIGN_OR_RETURN(JsonObject document, context.metadefs.Get(name));
  if (MaySee(*request.caller, document)) return document;
  return Error(Code::kNotFound, "Metadata definition namespace=" + name + " was not found.");
}

// The items of a kind; there even if there are none.
JsonObject& ItemsOf(const Kind& kind, JsonObject& document) {
  Json& items = document[kind.key];
  if (!items.is_object()) items = JsonObject();
  return items.get_object();
}

JsonObject ItemView(const Kind& kind, const std::string& in_namespace, const JsonObject& item) {
  JsonObject view = item;
  if (!kind.has_links) return view;
  view["schema"] = "/v2/schemas/metadefs/" + std::string(kind.singular);
  view["self"] = std::string(kNamespaces) + "/" + in_namespace + "/" + std::string(kind.key) + "/" +
                 TextOf(item, "name");
  return view;
}

JsonObject FullItemView(const Kind& kind, const std::string& in_namespace, const JsonObject& item) {
  JsonObject view = ItemView(kind, in_namespace, item);
  if (&kind == &kObjects) {
    view.emplace("required", JsonArray());
    view.emplace("properties", JsonObject());
  }
  return view;
}

// --- namespaces ---

JsonObject NamespaceView(JsonObject document) {
  JsonObject view;
  for (const char* key : {"namespace", "display_name", "description", "visibility", "protected",
                          "owner", "created_at", "updated_at"})
    if (const Json* value = document.if_contains(key)) view.emplace(key, *value);
  const std::string name = TextOf(document, "namespace");
  view["self"] = std::string(kNamespaces) + "/" + name;
  view["schema"] = "/v2/schemas/metadefs/namespace";
  for (const Kind* kind : {&kAssociations, &kObjects, &kTags}) {
    JsonArray items;
    for (const auto& [key, item] : ItemsOf(*kind, document))
      items.emplace_back(ItemView(*kind, name, item.get_object()));
    if (!items.empty()) view[kind->list_key] = std::move(items);
  }
  if (!ItemsOf(kProperties, document).empty()) view["properties"] = ItemsOf(kProperties, document);
  return view;
}

// Puts an item into its kind, as a create does.
Result<void> PutItem(const Kind& kind, const JsonObject& body, const std::string& now,
                     JsonObject* document) {
  ASSIGN_OR_RETURN(JsonObject item, Checked(kind.singular, kind.fields, body));
  const std::string name = TextOf(item, "name");
  RETURN_IF_ERROR(CheckName(kind.singular, name));
  if (kind.has_times) {
    item["created_at"] = now;
    item["updated_at"] = now;
  }
  if (!ItemsOf(kind, *document).emplace(name, std::move(item)).second)
    return Error(Code::kAlreadyExists, "A metadata definition " + std::string(kind.singular) +
                                           " with name=" + name + " already exists.");
  return {};
}

// Copies the plain fields of a body, with their rules.
Result<void> SetNamespaceFields(const JsonObject& body, JsonObject* document) {
  for (const char* key :
       {"namespace", "display_name", "description", "visibility", "protected", "owner"})
    if (const Json* value = body.if_contains(key)) (*document)[key] = *value;
  RETURN_IF_ERROR(CheckName("namespace", TextOf(*document, "namespace")));
  const std::string visibility = TextOf(*document, "visibility");
  if (visibility == "public" || visibility == "private") return {};
  return Bad("The visibility of a namespace is public or private.");
}

Result<Response> CreateNamespace(const Context& context, const Request& request) {
  ASSIGN_OR_RETURN(const JsonObject raw, ParseObject(request));
  ASSIGN_OR_RETURN(const JsonObject body, Checked("namespace", kNamespaceFields, raw));
  const std::string now = context.metadefs.Now();
  JsonObject document{{"visibility", "private"},
                      {"protected", false},
                      {"owner", request.caller->project_id},
                      {"created_at", now},
                      {"updated_at", now}};
  RETURN_IF_ERROR(SetNamespaceFields(body, &document));
  for (const Kind* kind : {&kAssociations, &kObjects, &kTags}) {
    const Json* items = body.if_contains(kind->list_key);
    if (items == nullptr) continue;
    for (const Json& item : items->get_array()) {
      if (!item.is_object())
        return Bad("Each of " + std::string(kind->list_key) + " is an object.");
      RETURN_IF_ERROR(PutItem(*kind, item.get_object(), now, &document));
    }
  }
  if (const Json* properties = body.if_contains("properties")) {
    for (const auto& [name, item] : properties->get_object()) {
      if (!item.is_object()) return Bad("Each of properties is an object.");
      JsonObject named = item.get_object();
      named["name"] = name;
      RETURN_IF_ERROR(PutItem(kProperties, named, now, &document));
    }
  }
  ASSIGN_OR_RETURN(JsonObject created, context.metadefs.Create(std::move(document)));
  const std::string name = TextOf(created, "namespace");
  Response response = Response::OfJson(201, NamespaceView(std::move(created)));
  response.headers.Add("Location", request.base_url + context.options.prefix +
                                       std::string(kNamespaces) + "/" + name);
  return response;
}

Result<size_t> LimitOf(const Request& request) {
  const std::string_view text = request.Query("limit").value_or("25");
  const std::optional<size_t> limit = base::ParseNumber<size_t>(text);
  if (!limit.has_value()) return Bad("limit param must be an integer");
  return std::min(*limit, kMaxListLimit);
}

Result<Response> ListNamespaces(const Context& context, const Request& request) {
  ASSIGN_OR_RETURN(const size_t limit, LimitOf(request));
  const std::string marker(request.Query("marker").value_or(""));
  const std::string visibility(request.Query("visibility").value_or(""));
  auto wanted = [&](const JsonObject& document) {
    return MaySee(*request.caller, document) &&
           (visibility.empty() || TextOf(document, "visibility") == visibility);
  };
  ASSIGN_OR_RETURN(std::vector<JsonObject> documents, context.metadefs.List(marker, limit, wanted));
  JsonObject answer;
  JsonArray namespaces;
  for (JsonObject& document : documents) {
    JsonObject view = NamespaceView(std::move(document));
    for (const char* key : {"objects", "properties", "tags"}) view.erase(key);
    namespaces.emplace_back(std::move(view));
  }
  if (limit > 0 && namespaces.size() == limit)
    answer["next"] = std::string(kNamespaces) + "?limit=" + std::to_string(limit) +
                     "&marker=" + TextOf(namespaces.back().get_object(), "namespace");
  answer["namespaces"] = std::move(namespaces);
  answer["first"] = kNamespaces;
  answer["schema"] = "/v2/schemas/metadefs/namespaces";
  return Response::OfJson(200, answer);
}

Result<Response> ShowNamespace(const Context& context, const Request& request) {
  ASSIGN_OR_RETURN(JsonObject document, Load(context, request));
  return Response::OfJson(200, NamespaceView(std::move(document)));
}

Result<Response> UpdateNamespace(const Context& context, const Request& request) {
  ASSIGN_OR_RETURN(const JsonObject raw, ParseObject(request));
  ASSIGN_OR_RETURN(const JsonObject body, Checked("namespace", kNamespaceFields, raw));
  auto change = [&](JsonObject& document) -> Result<void> {
    document["updated_at"] = context.metadefs.Now();
    return SetNamespaceFields(body, &document);
  };
  ASSIGN_OR_RETURN(JsonObject document,
                   context.metadefs.Update(request.Param("namespace"), change));
  return Response::OfJson(200, NamespaceView(std::move(document)));
}

Result<Response> DeleteNamespace(const Context& context, const Request& request) {
  const std::string& name = request.Param("namespace");
  auto check = [&](const JsonObject& document) -> Result<void> {
    const Json* is_protected = document.if_contains("protected");
    if (is_protected == nullptr || *is_protected != Json(true)) return {};
    return Error(Code::kPermissionDenied,
                 "Metadata definition namespace " + name + " is protected and cannot be deleted.");
  };
  RETURN_IF_ERROR(context.metadefs.Delete(name, check));
  return Response::Empty(204);
}

// --- what belongs to a namespace ---

Error NoItem(const Kind& kind, const std::string& name) {
  return Error(Code::kNotFound,
               "Could not find metadata " + std::string(kind.singular) + " " + name);
}

template <const Kind& kKind>
Result<Response> ListItems(const Context& context, const Request& request) {
  ASSIGN_OR_RETURN(JsonObject document, Load(context, request));
  const std::string& in_namespace = request.Param("namespace");
  JsonObject answer;
  if (&kKind == &kProperties) {
    answer[kKind.list_key] = ItemsOf(kKind, document);
    return Response::OfJson(200, answer);
  }
  JsonArray items;
  for (const auto& [name, item] : ItemsOf(kKind, document))
    items.emplace_back(FullItemView(kKind, in_namespace, item.get_object()));
  answer[kKind.list_key] = std::move(items);
  if (kKind.has_links) answer["schema"] = "/v2/schemas/metadefs/" + std::string(kKind.key);
  return Response::OfJson(200, answer);
}

Result<Response> AddItem(const Context& context, const Request& request, const Kind& kind,
                         const JsonObject& body) {
  const std::string& in_namespace = request.Param("namespace");
  auto change = [&](JsonObject& document) {
    return PutItem(kind, body, context.metadefs.Now(), &document);
  };
  ASSIGN_OR_RETURN(JsonObject document, context.metadefs.Update(in_namespace, change));
  const JsonObject& item = ItemsOf(kind, document).at(TextOf(body, "name")).get_object();
  return Response::OfJson(201, ItemView(kind, in_namespace, item));
}

template <const Kind& kKind>
Result<Response> CreateItem(const Context& context, const Request& request) {
  ASSIGN_OR_RETURN(const JsonObject body, ParseObject(request));
  return AddItem(context, request, kKind, body);
}

template <const Kind& kKind>
Result<Response> ShowItem(const Context& context, const Request& request) {
  ASSIGN_OR_RETURN(JsonObject document, Load(context, request));
  const std::string& name = request.Param("name");
  const Json* item = ItemsOf(kKind, document).if_contains(name);
  if (item == nullptr) return NoItem(kKind, name);
  return Response::OfJson(200, FullItemView(kKind, request.Param("namespace"), item->get_object()));
}

template <const Kind& kKind>
Result<Response> UpdateItem(const Context& context, const Request& request) {
  ASSIGN_OR_RETURN(const JsonObject raw, ParseObject(request));
  ASSIGN_OR_RETURN(const JsonObject body, Checked(kKind.singular, kKind.fields, raw));
  const std::string& in_namespace = request.Param("namespace");
  const std::string& name = request.Param("name");
  auto change = [&](JsonObject& document) -> Result<void> {
    JsonObject& items = ItemsOf(kKind, document);
    const Json* present = items.if_contains(name);
    if (present == nullptr) return NoItem(kKind, name);
    const std::string created_at = TextOf(present->get_object(), "created_at");
    items.erase(name);
    RETURN_IF_ERROR(PutItem(kKind, body, context.metadefs.Now(), &document));
    if (kKind.has_times)
      ItemsOf(kKind, document).at(TextOf(body, "name")).get_object()["created_at"] = created_at;
    return {};
  };
  ASSIGN_OR_RETURN(JsonObject document, context.metadefs.Update(in_namespace, change));
  const JsonObject& item = ItemsOf(kKind, document).at(TextOf(body, "name")).get_object();
  return Response::OfJson(200, ItemView(kKind, in_namespace, item));
}

template <const Kind& kKind>
Result<Response> DeleteItem(const Context& context, const Request& request) {
  const std::string& name = request.Param("name");
  auto change = [&](JsonObject& document) -> Result<void> {
    if (ItemsOf(kKind, document).erase(name) > 0) return {};
    return NoItem(kKind, name);
  };
  RETURN_IF_ERROR(context.metadefs.Update(request.Param("namespace"), change));
  return Response::Empty(204);
}

template <const Kind& kKind>
Result<Response> DeleteItems(const Context& context, const Request& request) {
  auto change = [&](JsonObject& document) -> Result<void> {
    ItemsOf(kKind, document).clear();
    return {};
  };
  RETURN_IF_ERROR(context.metadefs.Update(request.Param("namespace"), change));
  return Response::Empty(204);
}

// Replaces all tags, or adds to them where the client says so.
Result<Response> CreateTags(const Context& context, const Request& request) {
  ASSIGN_OR_RETURN(const JsonObject body, ParseObject(request));
  const Json* tags = body.if_contains("tags");
  if (tags == nullptr || !tags->is_array()) return Bad("Tags are given as a list named \"tags\".");
  const bool append = request.headers.Get("X-Openstack-Append") == "True";
  auto change = [&](JsonObject& document) -> Result<void> {
    if (!append) ItemsOf(kTags, document).clear();
    for (const Json& tag : tags->get_array()) {
      if (!tag.is_object()) return Bad("Each of tags is an object.");
      RETURN_IF_ERROR(PutItem(kTags, tag.get_object(), context.metadefs.Now(), &document));
    }
    return {};
  };
  RETURN_IF_ERROR(context.metadefs.Update(request.Param("namespace"), change));
  return Response::OfJson(201, JsonObject{{"tags", *tags}});
}

Result<Response> CreateTag(const Context& context, const Request& request) {
  return AddItem(context, request, kTags, JsonObject{{"name", request.Param("name")}});
}

Result<Response> ListResourceTypes(const Context& context, const Request&) {
  const std::string now = context.metadefs.Now();
  JsonArray types;
  for (std::string_view name : kResourceTypes)
    types.emplace_back(JsonObject{{"name", name}, {"created_at", now}, {"updated_at", now}});
  return Response::OfJson(200, JsonObject{{"resource_types", std::move(types)}});
}

template <const Kind& kKind>
void AppendKindRoutes(const Context& context, Routes* routes) {
  const std::string items = std::string(kNamespaces) + "/{namespace}/" + std::string(kKind.key);
  const std::string item = items + "/{name}";
  const bool is_tags = &kKind == &kTags;
  routes->push_back(MakeRoute(context, "GET", items, ListItems<kKind>));
  routes->push_back(
      MakeRoute(context, "POST", items, is_tags ? CreateTags : CreateItem<kKind>, Access::kAdmin));
  routes->push_back(MakeRoute(context, "DELETE", item, DeleteItem<kKind>, Access::kAdmin));
  if (&kKind == &kAssociations) return;
  routes->push_back(MakeRoute(context, "DELETE", items, DeleteItems<kKind>, Access::kAdmin));
  routes->push_back(MakeRoute(context, "GET", item, ShowItem<kKind>));
  routes->push_back(MakeRoute(context, "PUT", item, UpdateItem<kKind>, Access::kAdmin));
  if (is_tags) routes->push_back(MakeRoute(context, "POST", item, CreateTag, Access::kAdmin));
}

}  // namespace

void AppendMetadefRoutes(const Context& context, Routes* routes) {
  const std::string namespaces(kNamespaces);
  const std::string one = namespaces + "/{namespace}";
  routes->push_back(MakeRoute(context, "GET", "/v2/metadefs/resource_types", ListResourceTypes));
  routes->push_back(MakeRoute(context, "GET", namespaces, ListNamespaces));
  routes->push_back(MakeRoute(context, "POST", namespaces, CreateNamespace, Access::kAdmin));
  routes->push_back(MakeRoute(context, "GET", one, ShowNamespace));
  routes->push_back(MakeRoute(context, "PUT", one, UpdateNamespace, Access::kAdmin));
  routes->push_back(MakeRoute(context, "DELETE", one, DeleteNamespace, Access::kAdmin));
  AppendKindRoutes<kObjects>(context, routes);
  AppendKindRoutes<kProperties>(context, routes);
  AppendKindRoutes<kTags>(context, routes);
  AppendKindRoutes<kAssociations>(context, routes);
}

}  // namespace imaged
