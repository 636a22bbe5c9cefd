#include "controlplane/identity/api.h"

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "base/http/errors.h"
#include "base/http/json_body.h"
#include "base/log.h"

namespace controlplane::identity {

using base::http::Request;

std::string_view Call::base_url() const { return request.base_url; }

std::string Call::Url(std::string_view path) const {
  std::string url(base_url());
  url += kPrefix;
  url += "/v3";
  url += path;
  return url;
}

void Routes::Add(std::string_view method, std::string_view pattern, Access access,
                 CallHandler handler) {
  base::http::Route route;
  route.method = method;
  route.pattern = "/v3" + std::string(pattern);
  // A slash at the end is optional for the router then; some clients put one after a collection.
  if (!pattern.ends_with('}') && !pattern.ends_with('/')) route.pattern += '/';
  route.access = access;
  if (access == Access::kPublic) route.max_body_bytes = kMaxAuthBodyBytes;
  route.handler = [&api = api_, access,
                   handler = std::move(handler)](const Request& request) -> Result {
    // What a client did through another process is there.
    ASSIGN_OR_RETURN(SnapshotPtr now, api.store.Read(Store::kLatest));
    Call call{api, request, std::move(now), nullptr};
    if (access != Access::kPublic) {
      ASSIGN_OR_RETURN(call.by, api.sessions.Resolve(request.headers.Get("X-Auth-Token")));
    }
    return handler(call);
  };
  routes_.push_back(std::move(route));
}

Response RenderError(const Request& request, int status, const Error& error) {
  // What an operator should see is in the log, and nothing of it in the answer.
  std::string message = error.message();
  if (status >= 500 && status != 503) {
    LOG(kError, "identity", "{} {}: {}", request.method, request.path, error.ToString());
    message = "An unexpected error prevented the server from fulfilling your request.";
  }
  if (status == 401) message = "The request you have made requires authentication.";
  Response response = Response::OfJson(
      status, JsonObject{{"error", JsonObject{{"code", status},
                                              {"message", message},
                                              {"title", base::http::ReasonPhrase(status)}}}});
  if (status == 401)
    response.headers.Set("WWW-Authenticate",
                         "Keystone uri=\"" + request.base_url + kPrefix + "/v3\"");
  response.headers.Set("Vary", "X-Auth-Token");
  return response;
}

Error NotFound(std::string_view what, std::string_view id) {
  return Error(Code::kNotFound,
               "Could not find " + std::string(what) + ": " + std::string(id) + ".");
}

base::Result<RecordPtr> Existing(const Snapshot& now, Kind kind, std::string_view what,
                                 std::string_view id) {
  RecordPtr record = now.Get(kind, id);
  if (record == nullptr) return NotFound(what, id);
  return record;
}

Error Forbidden(std::string_view why) {
  if (!why.empty()) return Error(Code::kPermissionDenied, std::string(why));
  return Error(Code::kPermissionDenied, "You are not authorized to perform the requested action.");
}

Error Invalid(std::string message) { return Error(Code::kInvalidArgument, std::move(message)); }

Error Unauthorized() {
  return Error(Code::kUnauthenticated, "The request you have made requires authentication.");
}

base::Result<JsonObject> BodyObject(const Request& request) {
  if (!base::http::MayBeJson(request.headers)) {
    return Invalid("Expecting to find application/json in Content-Type header, not \"" +
                   std::string(request.headers.Get("Content-Type")) + "\".");
  }
  auto parsed = base::ParseJson(request.body);
  if (!parsed.has_value())
    return Invalid("Expecting to find valid JSON in request body: " + parsed.error().message());
  if (!parsed->is_object()) return Invalid("The request body is no JSON object.");
  RETURN_IF_ERROR(base::http::CheckNoNul(*parsed));
  return std::move(parsed->get_object());
}

base::Result<JsonObject> BodyMember(const Request& request, std::string_view name) {
  ASSIGN_OR_RETURN(JsonObject body, BodyObject(request));
  Json* member = body.if_contains(name);
  if (member == nullptr || !member->is_object())
    return Invalid("The request body needs an object \"" + std::string(name) + "\".");
  return std::move(member->get_object());
}

base::Result<int64_t> OptionalTime(const JsonObject& object, std::string_view name) {
  const Json* value = object.if_contains(name);
  if (value == nullptr || value->is_null()) return int64_t{0};
  if (value->is_string()) {
    auto time_us = base::ParseTime(base::View(value->get_string()));
    if (time_us.has_value()) return *time_us;
  }
  return Invalid("\"" + std::string(name) +
                 "\" is no time; write it like 2026-11-21T03:29:22.000000Z.");
}

Response ListResponse(const Call& call, std::string_view collection, JsonArray items) {
  JsonObject body;
  if (items.size() > kMaxListItems) {
    items.resize(kMaxListItems);
    body["truncated"] = true;
  }
  body[collection] = std::move(items);
  std::string self(call.base_url());
  self += call.request.target;
  body["links"] = JsonObject{{"next", nullptr}, {"self", self}, {"previous", nullptr}};
  return Response::OfJson(200, body);
}

namespace {

Response OfMember(int status, std::string_view member, JsonObject object) {
  JsonObject body;
  body[member] = std::move(object);
  return Response::OfJson(status, body);
}

}  // namespace

Response Created(std::string_view member, JsonObject object) {
  return OfMember(201, member, std::move(object));
}

Response Shown(std::string_view member, JsonObject object) {
  return OfMember(200, member, std::move(object));
}

Result Written(Call& call, const Store::Body& work) {
  RETURN_IF_ERROR(call.api.store.Transact(work));
  return NoContent();
}

Response NoContent() { return Response::Empty(204); }

JsonObject View(const Call& call, const Record& record, std::string_view path) {
  JsonObject view;
  view["id"] = record.id;
  for (const auto& [name, value] : record.body)
    if (!name.starts_with('_')) view[name] = value;
  view["links"] = JsonObject{{"self", call.Url(std::string(path) + "/" + record.id)}};
  return view;
}

JsonObject Reference(const Record& record) {
  return JsonObject{{"id", record.id}, {"name", Text(record, "name")}};
}

bool SeesAll(const Call& call) {
  const base::auth::Caller& caller = call.by->caller;
  return caller.IsAdmin() || (caller.system_scope && caller.HasRole("reader"));
}

bool SeesDomain(const Call& call, std::string_view domain_id) {
  const base::auth::Caller& caller = call.by->caller;
  return SeesAll(call) ||
         (!domain_id.empty() && caller.domain_id == domain_id && caller.HasRole("reader"));
}

base::Result<void> CheckRoomFor(const Snapshot& now, Index index, std::string_view user_id) {
  if (now.Where(index, {user_id}).size() < kMaxOwnedByUser) return {};
  return Forbidden("This user has as many of these as it may (" + std::to_string(kMaxOwnedByUser) +
                   "); delete some first.");
}

bool IsCleanName(std::string_view text) {
  return std::none_of(text.begin(), text.end(),
                      [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}

}  // namespace controlplane::identity
