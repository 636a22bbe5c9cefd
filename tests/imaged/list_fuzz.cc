#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/check.h"
#include "base/http/target.h"
#include "imaged/list_request.h"

// The query string of a list: read or refused with a sentence; the links that come back mean the
// same query.

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  auto fields = base::http::ParseQuery(text);
  if (!fields.has_value()) return 0;
  base::http::Request request;
  request.caller = std::make_shared<base::auth::Caller>();
  request.query = *fields;
  const auto query = imaged::ParseListRequest(request);
  if (!query.has_value()) {
    CHECK(!query.error().message().empty());
    return 0;
  }
  CHECK(query->limit <= imaged::kMaxListLimit);

  base::http::QueryFields without_marker;
  for (const auto& field : *fields)
    if (field.first != "marker") without_marker.push_back(field);
  const std::string link = imaged::ListLink(request, "");
  const size_t mark = link.find('?');
  const auto again = base::http::ParseQuery(
      mark == std::string::npos ? "" : std::string_view(link).substr(mark + 1));
  CHECK(again.has_value());
  CHECK(*again == without_marker);
  return 0;
}
