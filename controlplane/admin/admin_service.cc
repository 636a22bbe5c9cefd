#include "controlplane/admin/admin_service.h"

#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/http/errors.h"
#include "base/log.h"
#include "base/uuid.h"
#include "controlplane/admin/reports.h"
#include "imaged/holder.h"

namespace controlplane::admin {
namespace {

using base::Code;
using base::Error;
using base::Json;
using base::JsonObject;
using base::Result;
using base::http::Access;
using base::http::Request;
using base::http::Response;
using base::http::Route;

Response RenderError(const Request&, int status, const Error& error) {
  return Response::OfJson(
      status, JsonObject{{"error", JsonObject{{"code", status},
                                              {"title", base::http::ReasonPhrase(status)},
                                              {"message", error.message()}}}});
}

// The flag of a JSON body; an empty body means that nothing was asked for.
Result<bool> FlagOf(const Request& request, std::string_view name) {
  if (request.body.empty()) return false;
  ASSIGN_OR_RETURN(const Json body, base::ParseJson(request.body));
  if (!body.is_object()) return Error(Code::kInvalidArgument, "the body is not a JSON object");
  bool value = false;
  for (const auto& member : body.get_object()) {
    if (member.key() != name || !member.value().is_bool()) {
      return Error(Code::kInvalidArgument,
                   fmt::format("the body may hold only {{\"{}\": true or false}}", name));
    }
    value = member.value().get_bool();
  }
  return value;
}

Response Accepted(const std::string& id) { return Response::OfJson(202, JsonObject{{"id", id}}); }

}  // namespace

Result<chunkstore::HolderStats> StatsOfImage(chunkstore::ChunkStore& store,
                                             std::string_view image_id) {
  const Error missing(Code::kNotFound, fmt::format("no image {} with data", image_id));
  if (!base::IsUuid(image_id)) return missing;
  ASSIGN_OR_RETURN(const auto held, store.Holders(imaged::HolderPrefix(image_id), "", 2));
  for (const auto& one : held) {
    if (one.root.has_value()) return store.StatsOf(one.holder);
  }
  return missing;
}

Result<std::string> AdminService::StartCollect(bool orphans) {
  return operations_.Start("gc",
                           [this, orphans](const chunkstore::ProgressFn& progress) -> Result<Json> {
                             if (before_collect_) RETURN_IF_ERROR(before_collect_());
                             ASSIGN_OR_RETURN(const auto report, store_.Collect(orphans, progress));
                             return ToJson(report);
                           });
}

Result<std::string> AdminService::StartScrub(bool repair) {
  return operations_.Start("scrub",
                           [this, repair](const chunkstore::ProgressFn& progress) -> Result<Json> {
                             ASSIGN_OR_RETURN(const auto report, store_.Scrub(repair, progress));
                             const Result<void> noted = scrubs_.Ended();
                             if (!noted.has_value())
                               LOG(kWarn, "admin", "{}", noted.error().ToString());
                             return Explained(ToJson(report));
                           });
}

Result<Response> AdminService::StatsOf(const Request& request) {
  ASSIGN_OR_RETURN(const auto stats, StatsOfImage(store_, request.Param("image_id")));
  return Response::OfJson(200, Explained(ToJson(stats)));
}

Json AdminService::Explained(Json report) {
  if (!explain_holders_) return report;
  const Result<void> explained = explain_holders_(&report);
  // The report stands without.
  if (!explained.has_value()) LOG(kWarn, "admin", "{}", explained.error().ToString());
  return report;
}

base::http::Service AdminService::service(std::string prefix) {
  const auto route = [](std::string method, std::string pattern, base::http::Handler handler) {
    Route made;
    made.method = std::move(method);
    made.pattern = std::move(pattern);
    made.access = Access::kAdmin;
    made.handler = std::move(handler);
    return made;
  };
  base::http::Service service;
  service.name = "admin";
  service.prefix = std::move(prefix);
  service.render_error = RenderError;
  service.verifier = &verifier_;
  service.routes.push_back(
      route("POST", "/v1/gc", [this](const Request& request) -> Result<Response> {
        ASSIGN_OR_RETURN(const bool orphans, FlagOf(request, "orphans"));
        ASSIGN_OR_RETURN(const std::string id, StartCollect(orphans));
        return Accepted(id);
      }));
  service.routes.push_back(
      route("POST", "/v1/scrub", [this](const Request& request) -> Result<Response> {
        ASSIGN_OR_RETURN(const bool repair, FlagOf(request, "repair"));
        ASSIGN_OR_RETURN(const std::string id, StartScrub(repair));
        return Accepted(id);
      }));
  service.routes.push_back(
      route("GET", "/v1/operations", [this](const Request&) -> Result<Response> {
        ASSIGN_OR_RETURN(Json all, operations_.DescribeAll());
        return Response::OfJson(200, JsonObject{{"operations", std::move(all)}});
      }));
  service.routes.push_back(
      route("GET", "/v1/operations/{id}", [this](const Request& request) -> Result<Response> {
        ASSIGN_OR_RETURN(const Json operation, operations_.Describe(request.Param("id")));
        return Response::OfJson(200, operation);
      }));
  service.routes.push_back(
      route("DELETE", "/v1/operations/{id}", [this](const Request& request) -> Result<Response> {
        RETURN_IF_ERROR(operations_.Cancel(request.Param("id")));
        return Response::Empty(204);
      }));
  service.routes.push_back(route("GET", "/v1/stats", [this](const Request&) -> Result<Response> {
    ASSIGN_OR_RETURN(const auto stats, store_.Stats());
    return Response::OfJson(200, ToJson(stats));
  }));
  service.routes.push_back(route("GET", "/v1/stats/{image_id}",
                                 [this](const Request& request) { return StatsOf(request); }));
  return service;
}

}  // namespace controlplane::admin
