#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/http/router.h"
#include "controlplane/identity/options.h"
#include "controlplane/identity/password.h"
#include "controlplane/identity/sessions.h"
#include "controlplane/identity/store.h"

// What the handlers share: the objects behind them, one call's circumstances, errors in Keystone's
// shape, and who may see what.

namespace controlplane::identity {

// The path of the service below the server's one port.
constexpr char kPrefix[] = "/identity";

// Borrowed by every handler. Thread-safe.
struct Api {
  const Options& options;
  const base::Clock& clock;
  Store& store;
  Sessions& sessions;
  PasswordHasher& passwords;
};

// One request: who calls, and the world it sees. One thread.
struct Call {
  Api& api;
  const base::http::Request& request;
  SnapshotPtr now;
  SessionPtr by;  // null on public routes

  const std::string& Param(std::string_view name) const { return request.Param(name); }
  // "http://host:port": what links begin with.
  std::string_view base_url() const;
  // "http://host:port/identity/v3/users/ID" for "/users/ID".
  std::string Url(std::string_view path) const;
};

// What every handler speaks of.
using base::Code;
using base::Error;
using base::Json;
using base::JsonArray;
using base::JsonObject;
using base::http::Access;
using base::http::Response;
using Result = base::Result<Response>;
using CallHandler = std::function<Result(Call&)>;

// Gathers the service's routes. Patterns are below /v3: "/users/{user_id}". One thread.
class Routes {
 public:
  explicit Routes(Api& api) : api_(api) {}
  void Add(std::string_view method, std::string_view pattern, base::http::Access access,
           CallHandler handler);
  std::vector<base::http::Route> Take() { return std::move(routes_); }

 private:
  Api& api_;
  std::vector<base::http::Route> routes_;
};

// {"error": {"code": 404, "message": "...", "title": "Not Found"}}; 401 with WWW-Authenticate.
base::http::Response RenderError(const base::http::Request& request, int status,
                                 const base::Error& error);

// --- Errors that several handlers give ---
base::Error NotFound(std::string_view what, std::string_view id);  // "Could not find user: ID."
// The record; or NotFound, as a `what`.
base::Result<RecordPtr> Existing(const Snapshot& now, Kind kind, std::string_view what,
                                 std::string_view id);
base::Error Forbidden(std::string_view why = {});
base::Error Invalid(std::string message);
base::Error Unauthorized();  // says no more than that, on purpose

// --- Request bodies ---
// The body as an object. kInvalidArgument.
base::Result<base::JsonObject> BodyObject(const base::http::Request& request);
// Its member `name`, an object.
base::Result<base::JsonObject> BodyMember(const base::http::Request& request,
                                          std::string_view name);
// "2026-11-21T03:29:22Z" and the like, or null/absent: 0.
base::Result<int64_t> OptionalTime(const base::JsonObject& object, std::string_view name);

// --- Answers ---
// {"collection": [...], "links": {"self", "next": null, "previous": null}}, cut at kMaxListItems.
base::http::Response ListResponse(const Call& call, std::string_view collection,
                                  base::JsonArray items);
base::http::Response Created(std::string_view member, base::JsonObject object);
base::http::Response Shown(std::string_view member, base::JsonObject object);
base::http::Response NoContent();
// Runs a transaction whose success is NoContent.
Result Written(Call& call, const Store::Body& work);
// The members of a record without our own, with id and links.self = Url(path + "/" + id).
base::JsonObject View(const Call& call, const Record& record, std::string_view path);
// {"id": ..., "name": ...}
base::JsonObject Reference(const Record& record);

// --- Who may ---
inline bool IsAdmin(const Call& call) { return call.by->caller.IsAdmin(); }
// admin, or reader on the system: sees everything.
bool SeesAll(const Call& call);
// SeesAll, or reader on that domain.
bool SeesDomain(const Call& call, std::string_view domain_id);
inline bool IsSelf(const Call& call, std::string_view user_id) {
  return call.by->caller.user_id == user_id;
}

// kPermissionDenied if the user has kMaxOwnedByUser records in this index (whose one member is a
// user): users make these themselves, and must not fill the store.
base::Result<void> CheckRoomFor(const Snapshot& now, Index index, std::string_view user_id);

// Text from clients that ends up in names and keys: valid lengths, no control characters.
bool IsCleanName(std::string_view text);

}  // namespace controlplane::identity
