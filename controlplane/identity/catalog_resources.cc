#include <algorithm>

#include "base/coding.h"
#include "base/hash.h"
#include "base/uuid.h"
#include "controlplane/identity/cascade.h"
#include "controlplane/identity/catalog.h"
#include "controlplane/identity/resources.h"

namespace controlplane::identity {

namespace {

constexpr size_t kMaxName = 255;

Field IdField(std::string_view name) {
  return {.name = name, .nullable = true, .max_characters = kMaxIdBytes, .clean = true};
}

base::Result<std::string> ChooseRegionId(Call&, const JsonObject& input) {
  const Json* id = input.if_contains("id");
  if (id == nullptr || id->is_null()) return base::NewUuidHex();
  if (!id->is_string()) return Invalid("A region's id is a string.");
  std::string text(base::View(id->get_string()));
  if (text.empty()) return base::NewUuidHex();
  if (text.size() > kMaxIdBytes || !IsCleanName(text) || text.find('/') != std::string::npos)
    return Invalid("A region's id has at most " + std::to_string(kMaxIdBytes) +
                   " bytes, without '/' and control characters.");
  return text;
}

base::Result<void> CheckRegion(Change& change) {
  std::string parent_id(Text(change.body, "parent_region_id"));
  const Snapshot& now = change.tx.now();
  std::string_view first = parent_id;
  for (size_t depth = 0; !parent_id.empty(); ++depth) {
    if (parent_id == change.id || depth == kMaxProjectDepth)
      return Forbidden("A region cannot lie within itself, or deeper than " +
                       std::to_string(kMaxProjectDepth) + " regions.");
    RecordPtr parent = now.Get(Kind::kRegion, parent_id);
    if (parent == nullptr) return NotFound("region", first);
    parent_id = Text(*parent, "parent_region_id");
  }
  return {};
}

base::Result<void> CheckEndpoint(Change& change) {
  JsonObject& body = change.body;
  const Snapshot& now = change.tx.now();
  std::string_view interface = Text(body, "interface");
  if (interface != "public" && interface != "internal" && interface != "admin")
    return Invalid("Invalid input for field 'interface': it is public, internal or admin.");
  if (now.Get(Kind::kService, Text(body, "service_id")) == nullptr)
    return Invalid("The service of this endpoint, " + std::string(Text(body, "service_id")) +
                   ", is not known.");
  if (!IsKnownTemplate(Text(body, "url")))
    return Invalid("The URL has a substitution that is not known.");
  // "region" is the older name; naming a region by it makes the region.
  std::string region(Text(body, "region"));
  bool made = !region.empty() && now.Get(Kind::kRegion, region) == nullptr;
  if (made)
    change.tx.Put(Kind::kRegion, region, {{"description", ""}, {"parent_region_id", nullptr}});
  if (!region.empty()) body["region_id"] = region;
  body.erase("region");
  std::string_view region_id = Text(body, "region_id");
  if (!made && !region_id.empty() && now.Get(Kind::kRegion, region_id) == nullptr)
    return Invalid("The region of this endpoint, " + std::string(region_id) + ", is not known.");
  return {};
}

bool SeesCredential(const Call& call, const Record& credential) {
  return SeesAll(call) || IsSelf(call, Text(credential, "user_id"));
}

base::Result<std::string> ChooseCredentialId(Call&, const JsonObject& input) {
  if (Text(input, "type") != "ec2") return base::NewUuidHex();
  auto blob = base::ParseJson(Text(input, "blob"));
  if (!blob.has_value() || !blob->is_object())
    return Invalid("The blob of an ec2 credential is a JSON object.");
  std::string_view access = Text(blob->get_object(), "access");
  if (access.empty()) return Invalid("The blob of an ec2 credential needs \"access\".");
  return base::Sha256(base::AsBytes(access)).hex();
}

base::Result<void> CheckCredential(Change& change) {
  const Call& call = change.call;
  if (Text(change.body, "user_id").empty()) change.body["user_id"] = call.by->caller.user_id;
  std::string_view user_id = Text(change.body, "user_id");
  if (!IsAdmin(call) && !IsSelf(call, user_id)) return Forbidden();
  if (!call.by->may_delegate()) return Forbidden();
  if (change.tx.now().Get(Kind::kUser, user_id) == nullptr) return NotFound("user", user_id);
  if (change.before == nullptr)
    RETURN_IF_ERROR(CheckRoomFor(change.tx.now(), Index::kCredentialUser, user_id));
  std::string_view project_id = Text(change.body, "project_id");
  if (project_id.empty() && Text(change.body, "type") == "ec2")
    return Invalid("'project_id' is a required property of an ec2 credential.");
  return {};
}

base::Result<void> CheckEndpointGroup(Change& change) {
  for (const auto& [name, value] : change.body["filters"].get_object())
    if (name != "service_id" && name != "region_id" && name != "interface")
      return Invalid("Attributes not found in endpoint group filters: " + std::string(name) + ".");
  return {};
}

}  // namespace

Resource RegionResource() {
  Resource resource{.kind = Kind::kRegion,
                    .path = "/regions",
                    .collection = "regions",
                    .member = "region",
                    .label = "region"};
  Field parent = IdField("parent_region_id");
  parent.fallback = "null";
  resource.fields = {{.name = "description", .nullable = true, .fallback = "\"\""}, parent};
  resource.extras = true;
  resource.filters = {"parent_region_id"};
  resource.put_creates = true;
  resource.choose_id = ChooseRegionId;
  resource.check = CheckRegion;
  resource.on_delete = [](Call&, Transaction& tx, const Record& region) -> base::Result<void> {
    if (!tx.now().Where(Index::kRegionParent, {region.id}).empty() ||
        !tx.now().Where(Index::kEndpointRegion, {region.id}).empty())
      return Forbidden("Unable to delete region " + region.id +
                       " because it or its child regions have associated endpoints.");
    return {};
  };
  return resource;
}

Resource ServiceResource() {
  Resource resource{.kind = Kind::kService,
                    .path = "/services",
                    .collection = "services",
                    .member = "service",
                    .label = "service"};
  resource.fields = {
      {.name = "name", .nullable = true, .max_characters = kMaxName, .clean = true},
      {.name = "type",
       .required = true,
       .min_characters = 1,
       .max_characters = kMaxName,
       .clean = true},
      {.name = "enabled", .type = Type::kBool, .fallback = "true"},
      {.name = "description", .nullable = true},
  };
  resource.extras = true;
  resource.filters = {"name", "type"};
  resource.may_list = SeesAll;
  resource.may_read = [](const Call& call, const Record&) { return SeesAll(call); };
  resource.on_delete = [](Call&, Transaction& tx, const Record& service) -> base::Result<void> {
    RemoveService(tx, service);
    return {};
  };
  return resource;
}

Resource EndpointResource() {
  Resource resource{.kind = Kind::kEndpoint,
                    .path = "/endpoints",
                    .collection = "endpoints",
                    .member = "endpoint",
                    .label = "endpoint"};
  Field service = IdField("service_id");
  service.required = true;
  service.nullable = false;
  resource.fields = {
      {.name = "interface", .required = true, .clean = true},
      IdField("region_id"),
      IdField("region"),
      service,
      {.name = "url", .required = true, .min_characters = 1, .clean = true},
      {.name = "enabled", .type = Type::kBool, .fallback = "true"},
      {.name = "name", .nullable = true, .max_characters = kMaxName},
  };
  resource.extras = true;
  resource.filters = {"interface", "service_id", "region_id"};
  resource.may_list = SeesAll;
  resource.may_read = [](const Call& call, const Record&) { return SeesAll(call); };
  resource.check = CheckEndpoint;
  resource.render = [](const Call&, const Record& endpoint, JsonObject& view) {
    view["region_id"] = TextOrNull(Text(endpoint, "region_id"));
    view["region"] = view["region_id"];
  };
  return resource;
}

Resource PolicyResource() {
  Resource resource{.kind = Kind::kPolicy,
                    .path = "/policies",
                    .collection = "policies",
                    .member = "policy",
                    .label = "policy"};
  resource.fields = {
      {.name = "blob", .required = true},
      {.name = "type", .required = true, .max_characters = kMaxName, .clean = true},
  };
  resource.extras = true;
  resource.filters = {"type"};
  resource.may_list = SeesAll;
  resource.may_read = [](const Call& call, const Record&) { return SeesAll(call); };
  return resource;
}

Resource CredentialResource() {
  Resource resource{.kind = Kind::kCredential,
                    .path = "/credentials",
                    .collection = "credentials",
                    .member = "credential",
                    .label = "credential"};
  Field project = IdField("project_id");
  project.fallback = "null";
  resource.fields = {
      {.name = "blob", .required = true},
      {.name = "type", .required = true, .max_characters = kMaxName, .clean = true},
      IdField("user_id"),
      project,
  };
  resource.filters = {"user_id", "type"};
  resource.writes = base::http::Access::kToken;
  resource.may_read = SeesCredential;
  resource.may_write = [](const Call& call, const Record& credential) {
    return (IsAdmin(call) || IsSelf(call, Text(credential, "user_id"))) && call.by->may_delegate();
  };
  resource.choose_id = ChooseCredentialId;
  resource.check = CheckCredential;
  return resource;
}

Resource ConsumerResource() {
  Resource resource{.kind = Kind::kConsumer,
                    .path = "/OS-OAUTH1/consumers",
                    .collection = "consumers",
                    .member = "consumer",
                    .label = "consumer"};
  resource.fields = {{.name = "description", .nullable = true, .fallback = "null"}};
  resource.may_list = SeesAll;
  resource.may_read = [](const Call& call, const Record&) { return SeesAll(call); };
  resource.prepare = [](Call&, JsonObject& input, bool creating) -> base::Result<void> {
    if (creating) input["_secret"] = base::NewUuidHex();
    return {};
  };
  resource.reveal = [](const Record& consumer, JsonObject& view) {
    view["secret"] = Text(consumer, "_secret");
  };
  return resource;
}

Resource EndpointGroupResource() {
  Resource resource{.kind = Kind::kEndpointGroup,
                    .path = "/OS-EP-FILTER/endpoint_groups",
                    .collection = "endpoint_groups",
                    .member = "endpoint_group",
                    .label = "Endpoint Group"};
  resource.fields = {
      {.name = "name",
       .required = true,
       .min_characters = 1,
       .max_characters = kMaxName,
       .clean = true},
      {.name = "description", .nullable = true, .fallback = "null"},
      {.name = "filters", .type = Type::kObject, .required = true},
  };
  resource.filters = {"name"};
  resource.may_list = SeesAll;
  resource.may_read = [](const Call& call, const Record&) { return SeesAll(call); };
  resource.check = CheckEndpointGroup;
  return resource;
}

}  // namespace controlplane::identity
