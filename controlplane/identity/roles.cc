#include "controlplane/identity/roles.h"

#include <algorithm>

#include "controlplane/identity/options.h"

namespace controlplane::identity {

std::string_view TargetKindName(ScopeKind kind) {
  switch (kind) {
    case ScopeKind::kProject:
      return "project";
    case ScopeKind::kDomain:
      return "domain";
    case ScopeKind::kSystem:
      return "system";
    case ScopeKind::kUnscoped:
      break;
  }
  return "";
}

std::vector<std::string> ParentsOf(const Snapshot& now, const Record& project) {
  std::vector<std::string> parents;
  RecordPtr parent = now.Get(Kind::kProject, Text(project, "parent_id"));
  while (parent != nullptr && !Flag(*parent, "is_domain") && parents.size() < kMaxProjectDepth) {
    parents.push_back(parent->id);
    parent = now.Get(Kind::kProject, Text(*parent, "parent_id"));
  }
  return parents;
}

std::vector<RecordPtr> ProjectsBelow(const Snapshot& now, std::string_view project_id) {
  std::vector<RecordPtr> below = now.Where(Index::kProjectParent, {project_id});
  for (size_t i = 0; i < below.size(); ++i)
    for (RecordPtr& child : now.Where(Index::kProjectParent, {below[i]->id}))
      below.push_back(std::move(child));
  return below;
}

bool AppliesTo(const Snapshot& now, const Record& assignment, const Target& target) {
  std::string_view at = Text(assignment, "target_id");
  std::string_view kind = Text(assignment, "target_kind");
  bool inherited = Flag(assignment, "inherited");
  if (!inherited) {
    if (kind != TargetKindName(target.kind)) return false;
    return target.kind == ScopeKind::kSystem || at == target.id;
  }
  if (target.kind != ScopeKind::kProject) return false;
  RecordPtr project = now.Get(Kind::kProject, target.id);
  if (project == nullptr) return false;
  if (kind == "domain") return at == Text(*project, "domain_id");
  std::vector<std::string> parents = ParentsOf(now, *project);
  return std::find(parents.begin(), parents.end(), at) != parents.end();
}

std::vector<std::string> ActorsOf(const Snapshot& now, std::string_view user_id) {
  std::vector<std::string> actors{std::string(user_id)};
  for (const RecordPtr& membership : now.Where(Index::kMembershipUser, {user_id}))
    actors.emplace_back(Text(*membership, "group_id"));
  return actors;
}

std::set<std::string> AssignedRoleIds(const Snapshot& now, std::string_view user_id,
                                      const Target& target) {
  std::set<std::string> role_ids;
  for (const std::string& actor : ActorsOf(now, user_id))
    for (const RecordPtr& assignment : now.Where(Index::kAssignmentActor, {actor}))
      if (AppliesTo(now, *assignment, target)) role_ids.emplace(Text(*assignment, "role_id"));
  return role_ids;
}

std::set<std::string> WithImplied(const Snapshot& now, std::set<std::string> role_ids) {
  std::vector<std::string> open(role_ids.begin(), role_ids.end());
  while (!open.empty()) {
    std::string prior = std::move(open.back());
    open.pop_back();
    for (const RecordPtr& rule : now.Where(Index::kImpliedPrior, {prior})) {
      std::string implied(Text(*rule, "implied_role_id"));
      if (role_ids.insert(implied).second) open.push_back(std::move(implied));
    }
  }
  return role_ids;
}

std::vector<RecordPtr> TokenRoles(const Snapshot& now, const std::set<std::string>& role_ids) {
  std::vector<RecordPtr> roles;
  for (const std::string& id : WithImplied(now, role_ids)) {
    RecordPtr role = now.Get(Kind::kRole, id);
    if (role != nullptr && Text(*role, "domain_id").empty()) roles.push_back(std::move(role));
  }
  return roles;
}

std::vector<RecordPtr> TargetsOf(const Snapshot& now, std::string_view user_id, ScopeKind kind) {
  std::set<std::string> ids;
  for (const std::string& actor : ActorsOf(now, user_id)) {
    for (const RecordPtr& assignment : now.Where(Index::kAssignmentActor, {actor})) {
      std::string at(Text(*assignment, "target_id"));
      if (!Flag(*assignment, "inherited")) {
        if (Text(*assignment, "target_kind") == TargetKindName(kind)) ids.insert(at);
      } else if (kind == ScopeKind::kProject) {
        for (const RecordPtr& below : ProjectsBelow(now, at)) ids.insert(below->id);
      }
    }
  }
  std::vector<RecordPtr> targets;
  for (const std::string& id : ids) {
    RecordPtr target = now.Get(Kind::kProject, id);
    if (target == nullptr) continue;
    bool usable =
        kind == ScopeKind::kDomain ? DomainIsUsable(target.get()) : ProjectIsUsable(now, *target);
    if (usable) targets.push_back(std::move(target));
  }
  return targets;
}

bool ProjectIsUsable(const Snapshot& now, const Record& project) {
  if (Flag(project, "is_domain") || !Flag(project, "enabled")) return false;
  return DomainIsUsable(now.Get(Kind::kProject, Text(project, "domain_id")).get());
}

bool DomainIsUsable(const Record* domain) {
  return domain != nullptr && Flag(*domain, "is_domain") && Flag(*domain, "enabled");
}

}  // namespace controlplane::identity
