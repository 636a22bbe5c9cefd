#include "controlplane/identity/identity.h"

#include "controlplane/identity/apis.h"
#include "controlplane/identity/bootstrap.h"
#include "controlplane/identity/resources.h"

namespace controlplane::identity {

using base::JsonArray;
using base::JsonObject;
using base::http::Access;
using base::http::Request;
using base::http::Response;

struct Identity::Impl {
  Options options;
  std::unique_ptr<Store> store;
  std::unique_ptr<PasswordHasher> passwords;
  std::unique_ptr<Sessions> sessions;
  std::unique_ptr<Api> api;
};

namespace {

JsonObject Version(const Request& request) {
  std::string url = request.base_url + kPrefix + "/v3/";
  return JsonObject{{"id", "v3.14"},
                    {"status", "stable"},
                    {"updated", "2020-04-07T00:00:00Z"},
                    {"links", JsonArray{JsonObject{{"rel", "self"}, {"href", url}}}},
                    {"media-types", JsonArray{JsonObject{
                                        {"base", "application/json"},
                                        {"type", "application/vnd.openstack.identity-v3+json"}}}}};
}

// GET /identity and /identity/v3: where clients find the version.
void AddVersions(std::vector<base::http::Route>* routes) {
  base::http::Route all;
  all.method = "GET";
  all.pattern = "/";
  all.access = Access::kPublic;
  all.handler = [](const Request& request) -> Result {
    JsonObject version = Version(request);
    std::string url(base::View(version["links"].at(0).at("href").as_string()));
    JsonObject versions{{"values", JsonArray{std::move(version)}}};
    Response response = Response::OfJson(300, JsonObject{{"versions", std::move(versions)}});
    response.headers.Set("Location", url);
    return response;
  };
  base::http::Route v3;
  v3.method = "GET";
  v3.pattern = "/v3/";
  v3.access = Access::kPublic;
  v3.handler = [](const Request& request) -> Result {
    return Response::OfJson(200, JsonObject{{"version", Version(request)}});
  };
  routes->push_back(std::move(all));
  routes->push_back(std::move(v3));
}

}  // namespace

Identity::Identity(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Identity::~Identity() = default;

base::Result<std::unique_ptr<Identity>> Identity::Open(const Options& options,
                                                       chunkstore::MetaStore& meta,
                                                       const base::Clock& clock) {
  auto impl = std::make_unique<Impl>();
  impl->options = options;
  ASSIGN_OR_RETURN(impl->store, Store::Open(impl->options.store, meta, clock));
  ASSIGN_OR_RETURN(impl->passwords, PasswordHasher::Create(impl->options));
  impl->sessions = std::make_unique<Sessions>(impl->options, *impl->store, clock);
  impl->api = std::unique_ptr<Api>(
      new Api{impl->options, clock, *impl->store, *impl->sessions, *impl->passwords});
  return std::unique_ptr<Identity>(new Identity(std::move(impl)));
}

base::Result<void> Identity::Bootstrap(const BootstrapRequest& request) {
  return RunBootstrap(*impl_->api, request);
}

base::Result<bool> Identity::IsBootstrapped() {
  ASSIGN_OR_RETURN(SnapshotPtr now, impl_->store->Read());
  return now->Named(Index::kUserName, kDefaultDomainId, "admin") != nullptr;
}

base::http::Service Identity::service() {
  Routes routes(*impl_->api);
  AddAuthApi(routes);
  for (Resource (*resource)() :
       {DomainResource, ProjectResource, UserResource, GroupResource, RoleResource, RegionResource,
        ServiceResource, EndpointResource, PolicyResource, CredentialResource, ConsumerResource,
        EndpointGroupResource})
    AddResource(routes, resource());
  AddGrantApi(routes);
  AddRoleApi(routes);
  AddUserApi(routes);
  AddProjectApi(routes);
  AddDomainConfigApi(routes);
  AddApplicationCredentialApi(routes);
  AddEc2Api(routes);
  AddTrustApi(routes);
  AddLimitApi(routes);
  base::http::Service service;
  service.name = "identity";
  service.type = "identity";
  service.prefix = kPrefix;
  service.routes = routes.Take();
  AddVersions(&service.routes);
  service.render_error = RenderError;
  service.verifier = impl_->sessions.get();
  return service;
}

base::auth::TokenVerifier& Identity::verifier() { return *impl_->sessions; }

base::Result<void> Identity::RotateTokenKeys() { return impl_->sessions->RotateKeys(); }

}  // namespace controlplane::identity
