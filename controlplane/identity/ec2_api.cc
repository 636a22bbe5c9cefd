#include "base/hash.h"
#include "base/uuid.h"
#include "controlplane/identity/apis.h"
#include "controlplane/identity/roles.h"

// EC2 keys: credentials of type ec2 under the names that EC2 gives their parts. The secret signs
// requests on both sides, so it has to be kept as it is, and its owner can see it again.

namespace controlplane::identity {

namespace {

std::string IdOf(std::string_view access) { return base::Sha256(base::AsBytes(access)).hex(); }

base::Result<void> CheckOwner(const Call& call, const Snapshot& now, bool may) {
  const std::string& user_id = call.Param("user_id");
  if (!may) return Forbidden();
  if (now.Get(Kind::kUser, user_id) == nullptr) return NotFound("user", user_id);
  return {};
}

bool MayLook(const Call& call) { return SeesAll(call) || IsSelf(call, call.Param("user_id")); }
bool MayChange(const Call& call) {
  return (IsAdmin(call) || IsSelf(call, call.Param("user_id"))) && call.by->may_delegate();
}

JsonObject KeyView(const Call& call, const Record& credential) {
  JsonObject blob;
  auto parsed = base::ParseJson(Text(credential, "blob"));
  if (parsed.has_value() && parsed->is_object()) blob = std::move(parsed->get_object());
  std::string access(Text(blob, "access"));
  std::string user_id(Text(credential, "user_id"));
  return JsonObject{
      {"access", access},
      {"secret", Text(blob, "secret")},
      {"tenant_id", TextOrNull(Text(credential, "project_id"))},
      {"trust_id", nullptr},
      {"user_id", user_id},
      {"links",
       JsonObject{{"self", call.Url("/users/" + user_id + "/credentials/OS-EC2/" + access)}}}};
}

base::Result<RecordPtr> Find(const Call& call, const Snapshot& now) {
  const std::string& access = call.Param("access");
  RecordPtr credential = now.Get(Kind::kCredential, IdOf(access));
  if (credential == nullptr || Text(*credential, "user_id") != call.Param("user_id") ||
      Text(*credential, "type") != "ec2")
    return NotFound("credential", access);
  return credential;
}

Result List(Call& call) {
  RETURN_IF_ERROR(CheckOwner(call, *call.now, MayLook(call)));
  JsonArray items;
  for (const RecordPtr& credential :
       call.now->Where(Index::kCredentialUser, {call.Param("user_id")}))
    if (Text(*credential, "type") == "ec2") items.push_back(KeyView(call, *credential));
  return ListResponse(call, "credentials", std::move(items));
}

Result Show(Call& call) {
  RETURN_IF_ERROR(CheckOwner(call, *call.now, MayLook(call)));
  ASSIGN_OR_RETURN(RecordPtr credential, Find(call, *call.now));
  return Shown("credential", KeyView(call, *credential));
}

Result Create(Call& call) {
  RETURN_IF_ERROR(CheckOwner(call, *call.now, MayChange(call)));
  ASSIGN_OR_RETURN(JsonObject body, BodyObject(call.request));
  std::string project_id(Text(body, "tenant_id"));
  const std::string& user_id = call.Param("user_id");
  std::string access = base::NewUuidHex();
  JsonObject blob{{"access", access}, {"secret", base::NewUuidHex()}, {"trust_id", nullptr}};
  JsonObject credential{{"blob", boost::json::serialize(blob)},
                        {"type", "ec2"},
                        {"user_id", user_id},
                        {"project_id", project_id}};
  RETURN_IF_ERROR(call.api.store.Transact([&](Transaction& tx) -> base::Result<void> {
    RETURN_IF_ERROR(CheckOwner(call, tx.now(), true));
    RETURN_IF_ERROR(CheckRoomFor(tx.now(), Index::kCredentialUser, user_id));
    ASSIGN_OR_RETURN(RecordPtr project, Existing(tx.now(), Kind::kProject, "project", project_id));
    // A key is of use only where its user has a role; one for somewhere else is a mistake.
    if (!IsAdmin(call) &&
        AssignedRoleIds(tx.now(), user_id, {ScopeKind::kProject, project_id}).empty())
      return Forbidden();
    tx.Put(Kind::kCredential, IdOf(access), credential);
    return {};
  }));
  return Created("credential",
                 KeyView(call, Record{Kind::kCredential, IdOf(access), std::move(credential)}));
}

Result Delete(Call& call) {
  RETURN_IF_ERROR(CheckOwner(call, *call.now, MayChange(call)));
  return Written(call, [&](Transaction& tx) -> base::Result<void> {
    ASSIGN_OR_RETURN(RecordPtr credential, Find(call, tx.now()));
    tx.Remove(Kind::kCredential, credential->id);
    return {};
  });
}

}  // namespace

void AddEc2Api(Routes& routes) {
  std::string all = "/users/{user_id}/credentials/OS-EC2";
  routes.Add("GET", all, Access::kToken, List);
  routes.Add("POST", all, Access::kToken, Create);
  routes.Add("GET", all + "/{access}", Access::kToken, Show);
  routes.Add("DELETE", all + "/{access}", Access::kToken, Delete);
}

}  // namespace controlplane::identity
