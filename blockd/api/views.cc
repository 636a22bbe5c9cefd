#include "blockd/api/views.h"

#include "base/clock.h"

namespace blockd::api {

base::JsonArray LinksOf(const Call& call, std::string_view collection, std::string_view id) {
  const std::string root = call.request.base_url + std::string(call.prefix);
  std::string path = "/";
  if (call.request.params.contains("project_id")) path += call.Param("project_id") + "/";
  path.append(collection).append("/").append(id);
  base::JsonArray links;
  links.push_back(base::JsonObject{{"rel", "self"}, {"href", root + "/v3" + path}});
  links.push_back(base::JsonObject{{"rel", "bookmark"}, {"href", root + path}});
  return links;
}

std::string FormatTime(int64_t time_us) {
  std::string text = base::FormatTimeMicros(time_us);
  if (text.ends_with('Z')) text.pop_back();
  return text;
}

base::Json TimeOrNull(int64_t time_us) {
  if (time_us == 0) return nullptr;
  return base::Json(FormatTime(time_us));
}

base::Json TextOrNull(std::string_view text) {
  if (text.empty()) return nullptr;
  return base::Json(text);
}

base::http::Response Accepted() { return base::http::Response::Empty(202); }

}  // namespace blockd::api
