#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

// What identity keeps: records of a kind, each a JSON object under its id. Members whose name
// begins with '_' are our own (password hashes, instants): no client can set one and no answer
// shows one.

namespace controlplane::identity {

// The order is the order in memory only; on disk a kind goes by its name (KindName), which never
// changes.
enum class Kind {
  kProject,  // a domain is a project with is_domain
  kUser,
  kGroup,
  kMembership,  // user_id, group_id
  kRole,
  kImpliedRole,  // prior_role_id, implied_role_id
  kAssignment,   // actor_kind, actor_id, target_kind, target_id, role_id, inherited
  kRegion,
  kService,
  kEndpoint,
  kPolicy,
  kCredential,
  kApplicationCredential,
  kAccessRule,
  kTrust,
  kConsumer,
  kEndpointGroup,
  kDomainConfig,   // id: the domain's
  kRevocation,     // id: a token's audit id; user_id, _until_us
  kLoginFailures,  // id: the user's; _count, _last_us
  kTokenKey,       // _secret, _created_us
};
constexpr size_t kKinds = static_cast<size_t>(Kind::kTokenKey) + 1;

std::string_view KindName(Kind kind);

// Immutable once it is shared.
struct Record {
  Kind kind;
  std::string id;
  base::JsonObject body;
};
using RecordPtr = std::shared_ptr<const Record>;

// Ways to find records other than by id: by the text of one or two members. A name is unique within
// its index.
enum class Index {
  kProjectName,                // domain_id, name
  kProjectParent,              // parent_id
  kUserName,                   // domain_id, name
  kGroupName,                  // domain_id, name
  kMembershipUser,             // user_id
  kMembershipGroup,            // group_id
  kRoleName,                   // domain_id, name
  kImpliedPrior,               // prior_role_id
  kAssignmentActor,            // actor_id
  kAssignmentTarget,           // target_id
  kRegionParent,               // parent_region_id
  kEndpointService,            // service_id
  kEndpointRegion,             // region_id
  kCredentialUser,             // user_id
  kApplicationCredentialName,  // user_id, name
  kApplicationCredentialUser,  // user_id
  kAccessRuleUser,             // user_id
  kTrustTrustor,               // trustor_user_id
  kTrustTrustee,               // trustee_user_id
  kRevocationUser,             // user_id
};
constexpr size_t kIndexes = static_cast<size_t>(Index::kRevocationUser) + 1;

struct IndexDefinition {
  Kind kind;
  std::vector<std::string_view> members;
};
const IndexDefinition& DefinitionOf(Index index);
// The key of a record in an index; REQUIRES: the record is of the index's kind.
std::string IndexKey(const IndexDefinition& definition, const base::JsonObject& body);
std::string IndexKey(std::initializer_list<std::string_view> values);

// Members by type. A member that is absent, null or of another type is empty, `fallback` or 0.
std::string_view Text(const base::JsonObject& object, std::string_view name);
bool Flag(const base::JsonObject& object, std::string_view name, bool fallback = false);
int64_t Number(const base::JsonObject& object, std::string_view name);
inline std::string_view Text(const Record& record, std::string_view name) {
  return Text(record.body, name);
}
inline bool Flag(const Record& record, std::string_view name, bool fallback = false) {
  return Flag(record.body, name, fallback);
}
inline int64_t Number(const Record& record, std::string_view name) {
  return Number(record.body, name);
}
// Is `text` in the array of strings `object[name]`?
bool Contains(const base::JsonObject& object, std::string_view name, std::string_view text);
// The strings in the array `object[name]`.
std::vector<std::string> Strings(const base::JsonObject& object, std::string_view name);

base::Json TextOrNull(std::string_view text);  // null for ""

}  // namespace controlplane::identity
