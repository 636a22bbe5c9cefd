#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "controlplane/identity/snapshot.h"
#include "controlplane/identity/token_codec.h"

// Who has which roles where. Pure functions of a Snapshot.

namespace controlplane::identity {

// What a role is given on: assignments name it by these words.
struct Target {
  ScopeKind kind = ScopeKind::kUnscoped;
  std::string id;  // empty for the system
};

// The target_id of assignments on the system.
constexpr std::string_view kSystemTarget = "system";
std::string_view TargetKindName(ScopeKind kind);  // "project", "domain", "system"

// The project's parents from the nearest up to, not including, the domain.
std::vector<std::string> ParentsOf(const Snapshot& now, const Record& project);
// Projects below `project_id`, nearest first.
std::vector<RecordPtr> ProjectsBelow(const Snapshot& now, std::string_view project_id);

// Does an assignment give its role on this target: directly, or inherited from a project above or
// the domain?
bool AppliesTo(const Snapshot& now, const Record& assignment, const Target& target);

// The user and the groups it is in: whose assignments count for it.
std::vector<std::string> ActorsOf(const Snapshot& now, std::string_view user_id);

// Role ids that the user holds on the target by assignment, without implied ones.
std::set<std::string> AssignedRoleIds(const Snapshot& now, std::string_view user_id,
                                      const Target& target);
// Adds the roles that these imply, and those that these imply, and so on.
std::set<std::string> WithImplied(const Snapshot& now, std::set<std::string> role_ids);
// As a token shows them: roles that belong to a domain only count through what they imply. By id.
std::vector<RecordPtr> TokenRoles(const Snapshot& now, const std::set<std::string>& role_ids);

// Targets of the kind on which the user holds any role, enabled ones only.
std::vector<RecordPtr> TargetsOf(const Snapshot& now, std::string_view user_id, ScopeKind kind);

// Enabled, and in an enabled domain.
bool ProjectIsUsable(const Snapshot& now, const Record& project);
bool DomainIsUsable(const Record* domain);

}  // namespace controlplane::identity
