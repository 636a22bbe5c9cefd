#include <iterator>

#include "imaged/handlers.h"
#include "imaged/schemas.h"
#include "imaged/views.h"

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

// Newest first. 2.14 was never released by Glance.
constexpr std::string_view kVersions[] = {"v2.15", "v2.13", "v2.12", "v2.11", "v2.10",
                                          "v2.9",  "v2.8",  "v2.7",  "v2.6",  "v2.5",
                                          "v2.4",  "v2.3",  "v2.2",  "v2.1",  "v2.0"};

Response Versions(const Context& context, const Request& request, int status) {
  const std::string href = request.base_url + context.options.prefix + "/v2/";
  JsonArray versions;
  for (std::string_view id : kVersions) {
    JsonObject version;
    version.emplace("id", id);
    version.emplace("status", versions.empty() ? "CURRENT" : "SUPPORTED");
    version.emplace("links", JsonArray{JsonObject{{"rel", "self"}, {"href", href}}});
    versions.emplace_back(std::move(version));
  }
  return Response::OfJson(status, JsonObject{{"versions", std::move(versions)}});
}

Result<Response> Root(const Context& context, const Request& request) {
  return Versions(context, request, 300);
}

Result<Response> VersionList(const Context& context, const Request& request) {
  return Versions(context, request, 200);
}

Result<Response> VersionTwo(const Context& context, const Request& request) {
  if (request.path.ends_with('/')) return Versions(context, request, 300);
  Response moved = Response::Text(302, "", "text/plain; charset=utf8");
  moved.headers.Add("Location", request.base_url + context.options.prefix + "/v2/");
  return moved;
}

Result<Response> Schema(const std::string& name) {
  const std::string_view text = SchemaText(name);
  if (text.empty()) return Error(Code::kNotFound, "There is no schema " + name.substr(0, 100));
  return JsonText(200, std::string(text));
}
Result<Response> ImageSchema(const Context&, const Request& request) {
  return Schema(request.Param("name"));
}
Result<Response> MetadefSchema(const Context&, const Request& request) {
  return Schema("metadefs/" + request.Param("name"));
}

Result<Response> InfoImport(const Context& context, const Request&) {
  JsonArray methods;
  for (const std::string& method : context.options.import_methods) methods.emplace_back(method);
  return Response::OfJson(
      200, JsonObject{{"import-methods", JsonObject{{"description", "Import methods available."},
                                                    {"type", "array"},
                                                    {"value", std::move(methods)}}}});
}

JsonArray StoreList(const Context& context) {
  JsonArray stores;
  for (const StoreInfo& store : context.options.stores) {
    JsonObject object{{"id", store.id}};
    if (!store.description.empty()) object.emplace("description", store.description);
    if (store.is_default) object.emplace("default", "true");
    stores.emplace_back(std::move(object));
  }
  return stores;
}

Result<Response> InfoStores(const Context& context, const Request&) {
  return Response::OfJson(200, JsonObject{{"stores", StoreList(context)}});
}

Result<Response> InfoStoresDetail(const Context& context, const Request&) {
  JsonArray stores = StoreList(context);
  for (Json& store : stores) {
    store.get_object().emplace("type", "chunks");
    store.get_object().emplace("properties", JsonObject());
  }
  return Response::OfJson(200, JsonObject{{"stores", std::move(stores)}});
}

// Sizes are told in MiB, rounded up; a limit of -1 is none.
Json UsageOfOne(uint64_t used, const std::optional<uint64_t>& limit, uint64_t unit) {
  const auto scaled = [unit](uint64_t value) {
    return static_cast<int64_t>(value / unit + (value % unit == 0 ? 0 : 1));
  };
  return JsonObject{{"limit", limit.has_value() ? scaled(*limit) : -1}, {"usage", scaled(used)}};
}

Result<Response> InfoUsage(const Context& context, const Request& request) {
  ASSIGN_OR_RETURN(const Usage used, context.catalog.UsageOfProject(request.caller->project_id));
  const QuotaLimits& limits = context.catalog.limits();
  JsonObject usage;
  usage.emplace("image_size_total", UsageOfOne(used.bytes, limits.bytes, base::kMiB));
  usage.emplace("image_stage_total",
                UsageOfOne(used.staged_bytes, limits.staged_bytes, base::kMiB));
  usage.emplace("image_count_total", UsageOfOne(used.images, limits.images, 1));
  usage.emplace("image_count_uploading", UsageOfOne(used.uploads, limits.uploads, 1));
  return Response::OfJson(200, JsonObject{{"usage", std::move(usage)}});
}

}  // namespace

void AppendDiscoveryRoutes(const Context& context, Routes* routes) {
  routes->push_back(MakeRoute(context, "GET", "/", Root, Access::kPublic));
  routes->push_back(MakeRoute(context, "GET", "/versions/", VersionList, Access::kPublic));
  routes->push_back(MakeRoute(context, "GET", "/v2/", VersionTwo, Access::kPublic));
  routes->push_back(MakeRoute(context, "GET", "/v2/schemas/{name}", ImageSchema));
  routes->push_back(MakeRoute(context, "GET", "/v2/schemas/metadefs/{name}", MetadefSchema));
  routes->push_back(MakeRoute(context, "GET", "/v2/info/import", InfoImport));
  routes->push_back(MakeRoute(context, "GET", "/v2/info/stores", InfoStores));
  routes->push_back(
      MakeRoute(context, "GET", "/v2/info/stores/detail", InfoStoresDetail, Access::kAdmin));
  routes->push_back(MakeRoute(context, "GET", "/v2/info/usage", InfoUsage));
}

}  // namespace imaged
