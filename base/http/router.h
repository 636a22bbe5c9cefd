#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/auth/verifier.h"
#include "base/http/message.h"
#include "base/limits.h"
#include "base/result.h"

// A service exports its routes as a value; the composition root mounts services under their
// prefixes. The router finds the route, and is asked for all routes by the test that tries every
// one of them without a token, with the wrong role and with another tenant's object.

namespace base::http {

// Who may call a route at all. What depends on the object (is it yours?) is the handler's to check.
enum class Access {
  kPublic,  // no token is looked at
  kToken,   // any valid token
  kAdmin,   // a token with the role admin
};

// A blocking job on the pool; the body was read whole. An Error is rendered by the service's
// ErrorRenderer.
using Handler = std::function<Result<Response>(const Request&)>;

// A coroutine on the connection's own executor: for bodies that stream. Blocking work in it goes
// through async::Offload. What it leaves of the body unread is drained (up to kMaxDrainBytes) or
// the connection closed.
using StreamHandler =
    std::function<async::Task<Result<Response>>(std::shared_ptr<const Request>, BodyReader&)>;

struct Route {
  std::string method;
  std::string pattern;  // "/v2/images/{image_id}/file"; a {name} matches one non-empty segment
  Access access = Access::kToken;
  Handler handler;
  StreamHandler stream;                       // instead of handler
  size_t max_body_bytes = kMaxJsonBodyBytes;  // of a handler; a stream counts what it reads itself
};

// What a client of this service can read as a sentence: Glance's, Keystone's and Cinder's shapes
// differ. `status` is the HTTP status that the error's code maps to, or one that the router found
// (404, 405, ...).
using ErrorRenderer = std::function<Response(const Request&, int status, const Error&)>;

struct Service {
  std::string name;    // "image": for logs and metrics
  std::string prefix;  // "/image"
  std::vector<Route> routes;
  ErrorRenderer render_error;
  auth::TokenVerifier* verifier = nullptr;  // borrowed; may be null if all routes are public
  // As the catalog has it ("image"): what access rules name. Empty: who has such is refused.
  std::string type;
};

struct Match {
  const Service* service = nullptr;  // null: no service has this prefix
  const Route* route = nullptr;      // null: none; see status
  int status = 200;                  // 404, 405 with `allow`, 400 for a path that can't be decoded
  std::string allow;                 // "GET, HEAD"
  std::string path;  // decoded, without the prefix; a slash inside a segment stays %2F
  std::map<std::string, std::string, std::less<>> params;
};

// Built at start, then immutable and Thread-safe. HEAD falls back to a GET route without its body.
// More literal segments win over parameters. A path is decoded segment by segment: an encoded slash
// never splits a segment, and "..", empty and NUL-carrying segments match nothing. A pattern that
// ends in "/" matches with and without that slash; any other only without. The longest prefix wins;
// a service with the prefix "" takes what is left.
class Router {
 public:
  Router();
  ~Router();
  Router(const Router&) = delete;
  Router& operator=(const Router&) = delete;

  // A pattern that stands twice with one method is a bug of ours: CHECK.
  void Mount(Service service);
  // `target_path` is still encoded and has no query.
  Match Find(std::string_view method, std::string_view target_path) const;
  const std::vector<std::unique_ptr<Service>>& services() const { return services_; }

 private:
  struct Node;  // a tree of segments for each service, in the order of services_
  std::vector<std::unique_ptr<Service>> services_;
  std::vector<std::unique_ptr<Node>> trees_;
};

}  // namespace base::http
