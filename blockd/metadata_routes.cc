#include "blockd/metadata_routes.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>

#include "base/hash.h"
#include "base/text.h"
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

constexpr int kEtagsSince = 15;
constexpr int kPreconditionFailed = 412;
constexpr size_t kEtagDigits = 32;

bool HasEtags(const api::Call& call, const MetadataAccess& access) {
  return access.etags && call.version.AtLeast(kEtagsSince);
}

// Without quotes, as Cinder writes it.
std::string EtagOf(const Metadata& metadata) {
  const std::string text = base::ToText(api::ToJson(metadata));
  return base::Sha256(base::AsBytes(text)).hex().substr(0, kEtagDigits);
}

// Whether If-Match, a list of tags with quotes or without, lets a change through.
bool Matches(std::string_view wanted, const std::string& etag) {
  while (!wanted.empty()) {
    const std::string_view part = wanted.substr(0, wanted.find(','));
    wanted.remove_prefix(std::min(part.size() + 1, wanted.size()));
    const std::string_view tag = base::Trim(part, " \t\"");
    if (tag == "*" || tag == etag) return true;
  }
  return false;
}

// A change that If-Match may forbid: 412 then, and nothing was changed. Else `answer` of what the
// metadata is now.
Result<Response> ChangeIfMatched(const Context& context, const api::Call& call,
                                 const MetadataAccess& access, const MetadataChange& change,
                                 const std::function<Response(const Metadata&)>& answer) {
  const bool conditional = HasEtags(call, access) && call.request.headers.Has("If-Match");
  bool stale = false;
  const Result<Metadata> changed =
      access.change(context, call, [&](Metadata& present) -> Result<void> {
        stale = conditional && !Matches(call.request.headers.Get("If-Match"), EtagOf(present));
        if (stale) return Error(Code::kConflict, "the metadata has changed");
        return change(present);
      });
  if (stale) return Response::Empty(kPreconditionFailed);
  if (!changed.has_value()) return changed.error();
  return answer(*changed);
}

using Method = Result<Response> (*)(const Context&, const api::Call&, const MetadataAccess&);

Result<Response> ShowAll(const Context& context, const api::Call& call,
                         const MetadataAccess& access) {
  ASSIGN_OR_RETURN(const Metadata metadata, access.read(context, call));
  Response response = Wrapped(200, "metadata", api::ToJson(metadata));
  if (HasEtags(call, access)) response.headers.Set("ETag", EtagOf(metadata));
  return response;
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
  return ChangeIfMatched(
      context, call, access,
      [&](Metadata& present) -> Result<void> {
        present = wanted;
        return CheckCount(present);
      },
      [](const Metadata& metadata) { return Wrapped(200, "metadata", api::ToJson(metadata)); });
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
  return ChangeIfMatched(
      context, call, access,
      [&](Metadata& present) -> Result<void> {
        present[key] = value;
        return CheckCount(present);
      },
      [&](const Metadata&) { return OneItem(key, value); });
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
