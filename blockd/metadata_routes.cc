#include "blockd/metadata_routes.h"

#include <utility>

#include "blockd/api/body.h"
#include "blockd/handler_tools.h"
#include "blockd/views.h"

namespace blockd {
namespace {

using base::Code;
using base::Error;
using base::Json;
using base::JsonObject;
using base::Result;
using base::http::Response;

Error NoItem() { return Error(Code::kNotFound, "Metadata item was not found"); }

Result<Metadata> BodyMetadata(const api::Call& call) {
  ASSIGN_OR_RETURN(const JsonObject body, api::ParseBody(call));
  ASSIGN_OR_RETURN(auto metadata, ParseMetadata(body, "metadata"));
  if (!metadata.has_value()) return api::Missing("metadata");
  return *std::move(metadata);
}

Result<void> CheckCount(const Metadata& metadata) {
  if (metadata.size() <= api::kMaxPairs) return {};
  return Error(Code::kQuotaExceeded, "MetadataLimitExceeded: Maximum number of metadata items (" +
                                         std::to_string(api::kMaxPairs) + ") exceeded.");
}

Response OneItem(const std::string& key, const std::string& value) {
  JsonObject meta;
  meta.emplace(key, value);
  return Wrapped(200, "meta", std::move(meta));
}

using Method = Result<Response> (*)(const Context&, const api::Call&, const MetadataAccess&);

Result<Response> ShowAll(const Context& context, const api::Call& call,
                         const MetadataAccess& access) {
  ASSIGN_OR_RETURN(const Metadata metadata, access.read(context, call));
  return Wrapped(200, "metadata", api::ToJson(metadata));
}

Result<Response> Merge(const Context& context, const api::Call& call,
                       const MetadataAccess& access) {
  ASSIGN_OR_RETURN(const Metadata added, BodyMetadata(call));
  ASSIGN_OR_RETURN(const Metadata metadata,
                   access.change(context, call, [&](Metadata& present) -> Result<void> {
                     for (const auto& [key, value] : added) present[key] = value;
                     return CheckCount(present);
                   }));
  return Wrapped(200, "metadata", api::ToJson(metadata));
}

Result<Response> ReplaceAll(const Context& context, const api::Call& call,
                            const MetadataAccess& access) {
  ASSIGN_OR_RETURN(const Metadata wanted, BodyMetadata(call));
  ASSIGN_OR_RETURN(const Metadata metadata,
                   access.change(context, call, [&](Metadata& present) -> Result<void> {
                     present = wanted;
                     return CheckCount(present);
                   }));
  return Wrapped(200, "metadata", api::ToJson(metadata));
}

Result<Response> ShowOne(const Context& context, const api::Call& call,
                         const MetadataAccess& access) {
  ASSIGN_OR_RETURN(const Metadata metadata, access.read(context, call));
  const auto found = metadata.find(call.Param("key"));
  if (found == metadata.end()) return NoItem();
  return OneItem(found->first, found->second);
}

Result<Response> PutOne(const Context& context, const api::Call& call,
                        const MetadataAccess& access) {
  ASSIGN_OR_RETURN(const JsonObject body, api::ParseBody(call));
  ASSIGN_OR_RETURN(const auto meta, ParseMetadata(body, "meta"));
  const std::string& key = call.Param("key");
  if (!meta.has_value() || !meta->contains(key))
    return Error(Code::kInvalidArgument, "Request body and URI mismatch");
  if (meta->size() > 1)
    return Error(Code::kInvalidArgument, "Request body contains too many items");
  const std::string value = meta->begin()->second;
  RETURN_IF_ERROR(access.change(context, call, [&](Metadata& present) -> Result<void> {
    present[key] = value;
    return CheckCount(present);
  }));
  return OneItem(key, value);
}

Result<Response> DeleteOne(const Context& context, const api::Call& call,
                           const MetadataAccess& access) {
  RETURN_IF_ERROR(access.change(context, call, [&](Metadata& present) -> Result<void> {
    if (present.erase(call.Param("key")) == 0) return NoItem();
    return {};
  }));
  return Response::Empty(200);
}

}  // namespace

void AppendMetadataRoutes(const Context& context, const std::string& path, MetadataAccess access,
                          Routes* routes) {
  const auto add = [&](std::string method, const std::string& pattern, Method handler) {
    api::Route route;
    route.method = std::move(method);
    route.pattern = path + pattern;
    route.handler = [context, access, handler](const api::Call& call) {
      return handler(context, call, access);
    };
    routes->push_back(std::move(route));
  };
  add("GET", "/metadata", ShowAll);
  add("POST", "/metadata", Merge);
  add("PUT", "/metadata", ReplaceAll);
  add("GET", "/metadata/{key}", ShowOne);
  add("PUT", "/metadata/{key}", PutOne);
  add("DELETE", "/metadata/{key}", DeleteOne);
}

}  // namespace blockd
