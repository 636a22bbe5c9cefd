#pragma once

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/http/router.h"
#include "base/json.h"
#include "blockd/api/route.h"
#include "blockd/catalog.h"
#include "blockd/exports.h"
#include "chunkstore/memory/memory_meta_store.h"

// The Block Storage API without sockets: a request goes through the router, the access rules and
// the error renderer as the server would take it.

namespace blockd {

using CallerPtr = std::shared_ptr<const base::auth::Caller>;

inline constexpr std::string_view kMyProject = "11111111111111111111111111111111";
inline constexpr std::string_view kYourProject = "22222222222222222222222222222222";
inline constexpr std::string_view kAdminProject = "33333333333333333333333333333333";

// What a token with that role carries: a higher role implies the lower ones.
CallerPtr Reader(std::string_view project = kMyProject);
CallerPtr MemberOf(std::string_view project = kMyProject);
CallerPtr Admin(std::string_view project = kAdminProject);

// The limits that were set last, by volume.
class FakeExports : public Exports {
 public:
  base::Result<base::JsonObject> Publish(const ExportSpec&) override { return base::JsonObject(); }
  base::Result<void> Withdraw(std::string_view) override { return {}; }
  bool IsConnected(std::string_view) override { return false; }
  std::vector<std::string> Published() override { return {}; }
  base::Result<void> SetLimits(std::string_view volume_id, uint64_t,
                               const std::map<std::string, std::string>& qos) override {
    limits[std::string(volume_id)] = qos;
    return {};
  }
  base::Result<void> SetProjectLimits(std::string_view,
                                      const std::map<std::string, std::string>&) override {
    return {};
  }
  void Forget(std::string_view) override {}

  std::map<std::string, std::map<std::string, std::string>> limits;
};

// Routes over a catalog in memory.
class Harness {
 public:
  Harness();
  // Once, before any call: below /volume, as AppendRoutes of blockd/api binds them.
  void Mount(std::vector<base::http::Route> routes);
  void Mount(const std::vector<api::Route>& routes);

  // `target` begins with a slash, below the caller's project: "/types". `minor`: the microversion;
  // -1: none is said.
  base::http::Response Call(const CallerPtr& caller, std::string_view method,
                            std::string_view target, std::string_view body = {}, int minor = 70);
  // `target` from below the service's prefix, and any headers.
  using HeaderList = std::vector<std::pair<std::string, std::string>>;
  base::http::Response CallAt(const CallerPtr& caller, std::string_view method,
                              std::string_view target, std::string_view body,
                              const HeaderList& headers);

  // A volume as the catalog has it, available, in `project`.
  VolumeRecord AddVolume(std::string_view project, uint64_t size_gb, std::string_view type_id);

  base::http::Router& router() { return *router_; }

  chunkstore::MemoryMetaStore meta;
  base::ManualClock clock;
  chunkstore::jobs::Journal journal;
  Catalog catalog;
  FakeExports exports;

 private:
  class NoVerifier : public base::auth::TokenVerifier {
   public:
    base::Result<CallerPtr> Verify(std::string_view) override {
      return base::Error(base::Code::kUnauthenticated, "no token");
    }
  };
  NoVerifier verifier_;
  std::unique_ptr<base::http::Router> router_ = std::make_unique<base::http::Router>();
};

// The body as JSON; null if it is none.
base::Json BodyOf(const base::http::Response& response);
// The names of an object's members.
std::set<std::string> NamesOf(const base::Json& value);
// What a path of members and indices leads to: At(json, "volume_types", 0, "id").
inline const base::Json& At(const base::Json& value) { return value; }
template <typename... Rest>
const base::Json& At(const base::Json& value, std::string_view name, const Rest&... rest);
template <typename... Rest>
const base::Json& At(const base::Json& value, int index, const Rest&... rest);

const base::Json& MemberOrNull(const base::Json& value, std::string_view name);
const base::Json& ElementOrNull(const base::Json& value, int index);

template <typename... Rest>
const base::Json& At(const base::Json& value, std::string_view name, const Rest&... rest) {
  return At(MemberOrNull(value, name), rest...);
}
template <typename... Rest>
const base::Json& At(const base::Json& value, int index, const Rest&... rest) {
  return At(ElementOrNull(value, index), rest...);
}
// The text at such a path; empty if there is none.
template <typename... Path>
std::string TextAt(const base::http::Response& response, const Path&... path) {
  const base::Json body = BodyOf(response);
  const base::Json& value = At(body, path...);
  return value.is_string() ? std::string(base::View(value.get_string())) : std::string();
}
// The message of an error with this name; empty if it is none.
std::string Message(const base::http::Response& response, std::string_view name);

}  // namespace blockd
