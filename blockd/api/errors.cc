#include "blockd/api/errors.h"

#include "base/json.h"
#include "blockd/api/microversion.h"

namespace blockd::api {
namespace {

using base::Code;
using base::Error;
using base::http::Request;
using base::http::Response;

constexpr size_t kMaxEchoBytes = 255;
constexpr std::string_view kOurFault =
    "The server has either erred or is incapable of performing the requested operation. Report "
    "the request id: the server's log says more.";

std::string_view NameOf(int status) {
  switch (status) {
    case 400:
      return "badRequest";
    case 401:
      return "unauthorized";
    case 403:
      return "forbidden";
    case 404:
      return "itemNotFound";
    case 405:
      return "badMethod";
    case 409:
      return "conflictingRequest";
    case 413:
      return "overLimit";
    case 415:
      return "badMediaType";
    case 501:
      return "notImplemented";
    case 503:
      return "serviceUnavailable";
    default:
      return "computeFault";
  }
}

Response Make(const Request& request, int status, std::string_view message, bool retry_after) {
  base::JsonObject fault = {{"code", status}, {"message", message}};
  if (retry_after) fault.emplace("retryAfter", "0");
  base::JsonObject body;
  body.emplace(NameOf(status), std::move(fault));
  Response response = Response::OfJson(status, std::move(body));
  AddVersionHeaders(request, Negotiate(request), &response);
  return response;
}

// What stands before the services has a shape of its own.
Response Unauthorized(std::string_view message) {
  const base::JsonObject error = {{"code", 401}, {"title", "Unauthorized"}, {"message", message}};
  return Response::OfJson(401, base::JsonObject{{"error", error}});
}

}  // namespace

Response RenderError(const Request& request, int status, const Error& error) {
  if (status == 401) return Unauthorized(error.message());
  if (status == 500) return Make(request, status, kOurFault, false);
  return Make(request, status, error.message(), error.code() == Code::kQuotaExceeded);
}

Response ErrorBody(const Request& request, int status, std::string_view message) {
  return Make(request, status, message, false);
}

Error Bad(std::string message) { return Error(Code::kInvalidArgument, std::move(message)); }

Error NotFound(std::string_view kind, std::string_view id) {
  return Error(Code::kNotFound, std::string(kind) + " " + Echo(id) + " could not be found.");
}

std::string Echo(std::string_view text) {
  if (text.size() <= kMaxEchoBytes) return std::string(text);
  // Not in the middle of a character.
  size_t end = kMaxEchoBytes;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return std::string(text.substr(0, end)) + "...";
}

}  // namespace blockd::api
