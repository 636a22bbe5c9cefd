#include "blockd/discovery/discovery.h"

namespace blockd::discovery {
namespace {

using api::Call;
using base::JsonArray;
using base::JsonObject;
using base::Result;
using base::http::Response;

JsonObject Document(const Call& call) {
  const std::string self = call.request.base_url + std::string(call.prefix) + "/v3/";
  const JsonArray links = {
      JsonObject{
          {"rel", "describedby"}, {"type", "text/html"}, {"href", "https://docs.openstack.org/"}},
      JsonObject{{"rel", "self"}, {"href", self}},
  };
  const JsonObject media = {{"base", "application/json"},
                            {"type", "application/vnd.openstack.volume+json;version=3"}};
  const JsonObject version = {{"id", "v3.0"},
                              {"status", "CURRENT"},
                              {"version", api::Microversion{api::kNewestMinor}.ToString()},
                              {"min_version", "3.0"},
                              {"updated", "2023-08-31T00:00:00Z"},
                              {"links", links},
                              {"media-types", JsonArray{media}}};
  return {{"versions", JsonArray{version}}};
}

Result<Response> Choices(const Call& call) { return Response::OfJson(300, Document(call)); }
Result<Response> Current(const Call& call) { return Response::OfJson(200, Document(call)); }

}  // namespace

void AppendVersionRoutes(std::string_view prefix, std::vector<base::http::Route>* routes) {
  routes->push_back(api::PublicRoute(prefix, "GET", "/", Choices));
  routes->push_back(api::PublicRoute(prefix, "GET", "/v3/", Current));
}

}  // namespace blockd::discovery
