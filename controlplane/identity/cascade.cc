#include "controlplane/identity/cascade.h"

#include <vector>

namespace controlplane::identity {
namespace {

void RemoveAll(Transaction& tx, const std::vector<RecordPtr>& records) {
  for (const RecordPtr& record : records) tx.Remove(record->kind, record->id);
}

// Records of a kind whose member has this value, where no index is worth its keep.
void RemoveNaming(Transaction& tx, Kind kind, std::string_view member, std::string_view id) {
  for (const RecordPtr& record : tx.now().All(kind))
    if (Text(*record, member) == id) tx.Remove(kind, record->id);
}

}  // namespace

void RemoveUser(Transaction& tx, const Record& user) {
  const Snapshot& now = tx.now();
  RemoveAll(tx, now.Where(Index::kMembershipUser, {user.id}));
  RemoveAll(tx, now.Where(Index::kAssignmentActor, {user.id}));
  RemoveAll(tx, now.Where(Index::kCredentialUser, {user.id}));
  RemoveAll(tx, now.Where(Index::kApplicationCredentialUser, {user.id}));
  RemoveAll(tx, now.Where(Index::kAccessRuleUser, {user.id}));
  RemoveAll(tx, now.Where(Index::kTrustTrustor, {user.id}));
  RemoveAll(tx, now.Where(Index::kTrustTrustee, {user.id}));
  RemoveAll(tx, now.Where(Index::kRevocationUser, {user.id}));
  tx.Remove(Kind::kLoginFailures, user.id);
  tx.Remove(Kind::kUser, user.id);
}

void RemoveGroup(Transaction& tx, const Record& group) {
  RemoveAll(tx, tx.now().Where(Index::kMembershipGroup, {group.id}));
  RemoveAll(tx, tx.now().Where(Index::kAssignmentActor, {group.id}));
  tx.Remove(Kind::kGroup, group.id);
}

void RemoveRole(Transaction& tx, const Record& role) {
  RemoveNaming(tx, Kind::kAssignment, "role_id", role.id);
  RemoveNaming(tx, Kind::kImpliedRole, "prior_role_id", role.id);
  RemoveNaming(tx, Kind::kImpliedRole, "implied_role_id", role.id);
  tx.Remove(Kind::kRole, role.id);
}

void RemoveProject(Transaction& tx, const Record& project) {
  RemoveAll(tx, tx.now().Where(Index::kAssignmentTarget, {project.id}));
  RemoveNaming(tx, Kind::kCredential, "project_id", project.id);
  RemoveNaming(tx, Kind::kApplicationCredential, "project_id", project.id);
  RemoveNaming(tx, Kind::kTrust, "project_id", project.id);
  tx.Remove(Kind::kProject, project.id);
}

void RemoveDomain(Transaction& tx, const Record& domain) {
  const Snapshot& now = tx.now();
  for (const RecordPtr& user : now.All(Kind::kUser))
    if (Text(*user, "domain_id") == domain.id) RemoveUser(tx, *user);
  for (const RecordPtr& group : now.All(Kind::kGroup))
    if (Text(*group, "domain_id") == domain.id) RemoveGroup(tx, *group);
  for (const RecordPtr& project : now.All(Kind::kProject))
    if (Text(*project, "domain_id") == domain.id) RemoveProject(tx, *project);
  for (const RecordPtr& role : now.All(Kind::kRole))
    if (Text(*role, "domain_id") == domain.id) RemoveRole(tx, *role);
  tx.Remove(Kind::kDomainConfig, domain.id);
  RemoveProject(tx, domain);
}

void RemoveService(Transaction& tx, const Record& service) {
  RemoveAll(tx, tx.now().Where(Index::kEndpointService, {service.id}));
  tx.Remove(Kind::kService, service.id);
}

}  // namespace controlplane::identity
