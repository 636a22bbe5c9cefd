#include "controlplane/service_error.h"

#include <string>
#include <string_view>

#include <fmt/format.h>

#include "base/json.h"

namespace controlplane {

using base::Code;
using base::Error;
using base::Result;

namespace {

// Glance's messages carry line breaks as HTML does.
std::string WithoutMarkup(std::string_view text) {
  std::string plain;
  bool in_tag = false;
  for (const char c : text) {
    if (c == '<') in_tag = true;
    const bool space = c == '\n' || c == '\r' || c == ' ';
    if (!in_tag && !(space && (plain.empty() || plain.back() == ' '))) plain += space ? ' ' : c;
    if (c == '>') in_tag = false;
  }
  while (plain.ends_with(' ')) plain.pop_back();
  return plain;
}

}  // namespace

// The sentence in an error body: Keystone's {"error": {"message"}}, Cinder's {"badRequest":
// {"message"}}, Glance's {"message"} or HTML.
std::string ServiceSentence(const base::http::Response& response) {
  const Result<base::Json> body = base::ParseJson(response.body);
  if (body.has_value() && body->is_object()) {
    const base::JsonObject& object = body->get_object();
    const bool wrapped = object.size() == 1 && object.begin()->value().is_object();
    if (const auto message =
            base::FindString(wrapped ? object.begin()->value() : *body, "message")) {
      return WithoutMarkup(*message);
    }
  }
  return WithoutMarkup(response.body.substr(0, 300));
}

Code CodeOfStatus(int status) {
  switch (status) {
    case 400:
    case 405:
    case 406:
    case 415:
    case 501:
      return Code::kInvalidArgument;
    case 401:
      return Code::kUnauthenticated;
    case 403:
      return Code::kPermissionDenied;
    case 404:
      return Code::kNotFound;
    case 409:
      return Code::kConflict;
    case 413:
      return Code::kQuotaExceeded;
    case 503:
      return Code::kUnavailable;
    case 507:
      return Code::kOutOfSpace;
    default:
      return Code::kIo;
  }
}

Error ServiceError(const base::http::Response& response) {
  const std::string id(response.headers.Get("x-openstack-request-id"));
  return Error(CodeOfStatus(response.status),
               fmt::format("{} (HTTP {}{}{})", ServiceSentence(response), response.status,
                           id.empty() ? "" : ", ", id));
}

}  // namespace controlplane
