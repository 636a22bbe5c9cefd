#include "blockd/api/body.h"
#include "blockd/api/errors.h"
#include "blockd/api/views.h"
#include "blockd/types/bind.h"

// Extra specs of a volume type, and its encryption (which no type has).

namespace blockd::types {
namespace {

using api::Bad;
using api::Call;
using base::Code;
using base::Error;
using base::Json;
using base::JsonObject;
using base::Result;
using base::http::Access;
using base::http::Response;

Error NoSpec(const VolumeType& type, std::string_view key) {
  return Error(Code::kNotFound,
               "Volume Type " + type.id + " has no extra specs with key " + api::Echo(key) + ".");
}

Result<Response> List(const Context& context, const Call& call) {
  ASSIGN_OR_RETURN(const VolumeType type, VisibleType(context, call));
  return Response::OfJson(
      200, JsonObject{{"extra_specs", api::ToJson(VisibleSpecs(call.caller, type))}});
}

Result<Response> Show(const Context& context, const Call& call) {
  ASSIGN_OR_RETURN(const VolumeType type, VisibleType(context, call));
  const std::string& key = call.Param("key");
  const Specs specs = VisibleSpecs(call.caller, type);
  const auto found = specs.find(key);
  if (found == specs.end()) return NoSpec(type, key);
  return Response::OfJson(200, api::ToJson({{key, found->second}}));
}

Result<void> Add(const Context& context, const Call& call, const Specs& specs) {
  RETURN_IF_ERROR(
      context.types.Update(call.Param("type_id"), [&](VolumeType& type) -> Result<void> {
        for (const auto& [key, value] : specs) type.extra_specs[key] = value;
        return {};
      }));
  return {};
}

Result<Response> Create(const Context& context, const Call& call) {
  ASSIGN_OR_RETURN(const JsonObject body, api::ParseBody(call));
  const Json* member = body.if_contains("extra_specs");
  if (member == nullptr) return api::Missing("extra_specs");
  ASSIGN_OR_RETURN(const Specs specs, api::ParseTextMap(*member, "extra_specs"));
  RETURN_IF_ERROR(Add(context, call, specs));
  return Response::OfJson(200, JsonObject{{"extra_specs", api::ToJson(specs)}});
}

Result<Response> Update(const Context& context, const Call& call) {
  ASSIGN_OR_RETURN(const Json json, api::ParseAnyBody(call));
  if (!json.is_object())
    return Bad((json.is_null() ? "None" : api::Echo(base::ToText(json))) +
               " is not of type 'object'");
  if (json.get_object().size() > 1)
    return Bad(api::Echo(base::ToText(json)) + " has too many properties");
  if (!json.get_object().contains(call.Param("key"))) return Bad("Request body and URI mismatch");
  ASSIGN_OR_RETURN(const Specs specs, api::ParseTextMap(json, "extra_specs"));
  RETURN_IF_ERROR(Add(context, call, specs));
  return Response::OfJson(200, api::ToJson(specs));
}

Result<Response> Delete(const Context& context, const Call& call) {
  const std::string& key = call.Param("key");
  RETURN_IF_ERROR(
      context.types.Update(call.Param("type_id"), [&](VolumeType& type) -> Result<void> {
        if (type.extra_specs.erase(key) == 0) return NoSpec(type, key);
        return {};
      }));
  return api::Accepted();
}

// --- encryption: none ---

Result<Response> ShowEncryption(const Context& context, const Call& call) {
  RETURN_IF_ERROR(context.types.Get(call.Param("type_id")));
  return Response::OfJson(200, JsonObject{});
}

Result<Response> NoEncryption(const Context& context, const Call& call) {
  ASSIGN_OR_RETURN(const VolumeType type, context.types.Get(call.Param("type_id")));
  return Error(Code::kNotFound, "Volume type encryption for type " + type.id + " does not exist.");
}

Result<Response> RefuseEncryption(const Context& context, const Call& call) {
  RETURN_IF_ERROR(context.types.Get(call.Param("type_id")));
  return Bad("This service keeps no keys and encrypts no volumes: let the guest do it.");
}

}  // namespace

void AppendExtraSpecRoutes(const Context& context, std::vector<api::Route>* routes) {
  const auto add = [&](const char* method, const char* pattern, HandlerFunction handler,
                       Access access = Access::kAdmin) {
    routes->push_back(MakeRoute(context, method, pattern, handler, access));
  };
  add("GET", "/types/{type_id}/extra_specs", List, Access::kToken);
  add("POST", "/types/{type_id}/extra_specs", Create);
  add("GET", "/types/{type_id}/extra_specs/{key}", Show, Access::kToken);
  add("PUT", "/types/{type_id}/extra_specs/{key}", Update);
  add("DELETE", "/types/{type_id}/extra_specs/{key}", Delete);
  add("GET", "/types/{type_id}/encryption", ShowEncryption);
  add("POST", "/types/{type_id}/encryption", RefuseEncryption);
  add("GET", "/types/{type_id}/encryption/{key}", NoEncryption);
  add("PUT", "/types/{type_id}/encryption/{key}", NoEncryption);
  add("DELETE", "/types/{type_id}/encryption/{key}", NoEncryption);
}

}  // namespace blockd::types
