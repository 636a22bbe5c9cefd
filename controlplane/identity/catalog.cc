#include "controlplane/identity/catalog.h"

#include <functional>
#include <optional>

namespace controlplane::identity {

using base::JsonArray;
using base::JsonObject;

namespace {

using Lookup = std::function<std::optional<std::string_view>(std::string_view name)>;

// Replaces each "$(name)s"; nothing if `lookup` has none for one of them.
std::optional<std::string> Expand(std::string_view url, const Lookup& lookup) {
  std::string expanded;
  while (true) {
    size_t at = url.find('(');
    if (at == std::string_view::npos || at == 0) break;
    size_t end = url.find(")s", at);
    bool marked = url[at - 1] == '$' || url[at - 1] == '%';
    if (!marked || end == std::string_view::npos) {
      expanded += url.substr(0, at + 1);
      url.remove_prefix(at + 1);
      continue;
    }
    auto value = lookup(url.substr(at + 1, end - at - 1));
    if (!value.has_value()) return std::nullopt;
    expanded += url.substr(0, at - 1);
    expanded += *value;
    url.remove_prefix(end + 2);
  }
  expanded += url;
  return expanded;
}

JsonObject EndpointEntry(const Record& endpoint, std::string url) {
  base::Json region = TextOrNull(Text(endpoint, "region_id"));
  return JsonObject{{"id", endpoint.id},
                    {"interface", Text(endpoint, "interface")},
                    {"region_id", region},
                    {"url", std::move(url)},
                    {"region", region}};
}

}  // namespace

bool IsKnownTemplate(std::string_view url) {
  return Expand(url,
                [](std::string_view name) -> std::optional<std::string_view> {
                  if (name == "base_url" || name == "project_id" || name == "tenant_id" ||
                      name == "user_id")
                    return "";
                  return std::nullopt;
                })
      .has_value();
}

JsonArray Catalog(const Snapshot& now, const Session& session, std::string_view base_url) {
  auto lookup = [&](std::string_view name) -> std::optional<std::string_view> {
    if (name == "base_url") return base_url;
    if (name == "user_id") return session.caller.user_id;
    if ((name == "project_id" || name == "tenant_id") && !session.caller.project_id.empty())
      return session.caller.project_id;
    return std::nullopt;
  };
  JsonArray catalog;
  for (const RecordPtr& service : now.All(Kind::kService)) {
    if (!Flag(*service, "enabled", true)) continue;
    JsonArray endpoints;
    for (const RecordPtr& endpoint : now.Where(Index::kEndpointService, {service->id})) {
      if (!Flag(*endpoint, "enabled", true)) continue;
      auto url = Expand(Text(*endpoint, "url"), lookup);
      if (url.has_value()) endpoints.push_back(EndpointEntry(*endpoint, *std::move(url)));
    }
    if (endpoints.empty()) continue;
    catalog.push_back(JsonObject{{"endpoints", std::move(endpoints)},
                                 {"id", service->id},
                                 {"type", Text(*service, "type")},
                                 {"name", Text(*service, "name")}});
  }
  return catalog;
}

}  // namespace controlplane::identity
