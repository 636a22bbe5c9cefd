#include <cstddef>
#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "base/check.h"
#include "base/http/range.h"
#include "base/http/router.h"
#include "base/http/target.h"

namespace {

using base::http::Request;
using base::http::Response;
using base::http::Route;

base::http::Router& TheRouter() {
  static base::http::Router router;
  static const bool mounted = [] {
    base::http::Service service;
    service.prefix = "/image";
    for (const char* pattern : {"/", "/v2/images", "/v2/images/{id}", "/v2/images/detail",
                                "/v2/images/{id}/tags/{tag}"}) {
      Route route;
      route.method = "GET";
      route.pattern = pattern;
      route.access = base::http::Access::kPublic;
      route.handler = [](const Request&) -> base::Result<Response> { return Response::Empty(200); };
      service.routes.push_back(route);
    }
    router.Mount(std::move(service));
    return true;
  }();
  CHECK(mounted);
  return router;
}

void Find(std::string_view path) {
  const base::http::Match match = TheRouter().Find("GET", path);
  CHECK((match.route != nullptr) == (match.status == 200));
  for (const auto& [name, value] : match.params) {
    CHECK(!value.empty() && value != "." && value != "..");
    CHECK(value.find('\0') == std::string::npos && base::http::IsUtf8(value));
  }
}

void CheckRange(std::string_view header) {
  for (uint64_t size : {uint64_t{0}, uint64_t{1}, uint64_t{1000}, UINT64_MAX}) {
    const auto range = base::http::ParseRange(header, size);
    if (!range.has_value() || !range->has_value()) continue;
    CHECK((*range)->length > 0 && (*range)->offset < size);
    CHECK((*range)->length <= size - (*range)->offset);
  }
}

}  // namespace

// A request target, which is also tried as a Range header and as a Host.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input = base::AsText({data, size});
  CheckRange(input);
  CheckRange("bytes=" + std::string(input));
  if (base::http::IsHost(input)) CHECK(input.find_first_of("\r\n \"<>/") == std::string_view::npos);
  Find(input);
  const auto target = base::http::SplitTarget(input);
  if (!target.has_value()) return 0;
  CHECK(target->path.starts_with('/'));
  Find(target->path);
  const auto query = base::http::ParseQuery(target->query);
  if (!query.has_value()) return 0;
  for (const auto& [key, value] : *query)
    CHECK(base::http::IsUtf8(key) && base::http::IsUtf8(value));
  return 0;
}
