#include <algorithm>
#include <set>

#include "base/coding.h"
#include "controlplane/identity/cascade.h"
#include "controlplane/identity/resources.h"
#include "controlplane/identity/roles.h"

namespace controlplane::identity {

namespace {

constexpr size_t kMaxDomainName = 64;  // Keystone's limits, which its clients' tests know
constexpr size_t kMaxName = 255;
constexpr size_t kMaxGroupName = 64;
constexpr size_t kMaxTag = 255;

Field NameField(size_t max_characters) {
  return {.name = "name",
          .required = true,
          .min_characters = 1,
          .max_characters = max_characters,
          .clean = true};
}
Field IdField(std::string_view name) {
  return {.name = name, .nullable = true, .max_characters = kMaxIdBytes, .clean = true};
}

// Tokens from before are void from the moment something is disabled, and stay so when it is enabled
// again.
void VoidTokensIfDisabled(Change& change) {
  bool was = change.before == nullptr || Flag(*change.before, "enabled");
  if (was && !Flag(change.body, "enabled"))
    VoidTokensBefore(change.call.api.clock.NowUs(), change.body);
}

base::Result<void> DefaultDomain(Change& change) {
  if (Text(change.body, "domain_id").empty()) change.body["domain_id"] = CallersDomain(change.call);
  std::string_view id = Text(change.body, "domain_id");
  RecordPtr domain = change.tx.now().Get(Kind::kProject, id);
  if (domain == nullptr || !Flag(*domain, "is_domain")) return NotFound("domain", id);
  return {};
}

base::Result<void> CheckImmutableOption(const JsonObject& body) {
  const Json* options = body.if_contains("options");
  if (options == nullptr) return {};
  for (const auto& [name, value] : options->get_object())
    if (name != "immutable" || !value.is_bool())
      return Invalid("Invalid option '" + std::string(name) +
                     "': only \"immutable\", true or false, is known.");
  return {};
}

base::Result<void> DeleteDomain(Call& call, Transaction& tx, const Record& domain) {
  if (Flag(domain, "enabled"))
    return Forbidden("Cannot delete a domain that is enabled, please disable it first.");
  RemoveDomain(tx, domain);
  return {};
}

base::Result<void> PlaceProject(Change& change) {
  JsonObject& body = change.body;
  if (Flag(body, "is_domain")) {
    if (!Text(body, "domain_id").empty() || !Text(body, "parent_id").empty())
      return Invalid("A project acting as a domain has neither a domain_id nor a parent_id.");
    body["domain_id"] = nullptr;
    body["parent_id"] = nullptr;
    return {};
  }
  std::string parent_id(Text(body, "parent_id"));
  if (parent_id.empty()) {
    RETURN_IF_ERROR(DefaultDomain(change));
    body["parent_id"] = body["domain_id"];
    return {};
  }
  const Snapshot& now = change.tx.now();
  ASSIGN_OR_RETURN(RecordPtr parent, Existing(now, Kind::kProject, "project", parent_id));
  std::string domain_id(Flag(*parent, "is_domain") ? parent->id : Text(*parent, "domain_id"));
  std::string_view wanted = Text(body, "domain_id");
  if (!wanted.empty() && wanted != domain_id)
    return Invalid("The project's domain_id and its parent's differ.");
  if (!Flag(*parent, "enabled")) return Forbidden("The parent project is disabled.");
  if (ParentsOf(now, *parent).size() + 1 >= kMaxProjectDepth)
    return Forbidden("Max hierarchy depth reached for " + parent_id + " branch.");
  body["domain_id"] = domain_id;
  return {};
}

base::Result<void> CheckProject(Change& change) {
  if (change.before == nullptr) RETURN_IF_ERROR(PlaceProject(change));
  RETURN_IF_ERROR(CheckTags(change.body));
  RETURN_IF_ERROR(CheckImmutableOption(change.body));
  VoidTokensIfDisabled(change);
  return {};
}

base::Result<void> DeleteProject(Call& call, Transaction& tx, const Record& project) {
  if (Flag(project, "is_domain")) return DeleteDomain(call, tx, project);
  if (!tx.now().Where(Index::kProjectParent, {project.id}).empty())
    return Forbidden("Cannot delete the project " + project.id +
                     " since it is not a leaf in the hierarchy.");
  RemoveProject(tx, project);
  return {};
}

// ?tags=a,b (all of them), tags-any, not-tags, not-tags-any; and domains only when asked for.
bool ListsProject(const Call& call, const Record& project) {
  auto is_domain = call.request.Query("is_domain");
  if (Flag(project, "is_domain") != (is_domain.has_value() && MeansTrue(*is_domain))) return false;
  auto count = [&](std::string_view key, size_t* wanted) {
    size_t found = 0;
    std::string_view rest = *call.request.Query(key);
    for (bool more = true; more;) {
      size_t comma = rest.find(',');
      ++*wanted;
      if (Contains(project.body, "tags", rest.substr(0, comma))) ++found;
      more = comma != std::string_view::npos;
      if (more) rest.remove_prefix(comma + 1);
    }
    return found;
  };
  auto matches = [&](std::string_view key, bool any, bool negated) {
    if (!call.request.Query(key).has_value()) return true;
    size_t wanted = 0;
    size_t found = count(key, &wanted);
    return (any ? found > 0 : found == wanted) != negated;
  };
  return matches("tags", false, false) && matches("tags-any", true, false) &&
         matches("not-tags", false, true) && matches("not-tags-any", true, true);
}

bool SeesProject(const Call& call, const Record& project) {
  std::string_view domain_id =
      Flag(project, "is_domain") ? std::string_view(project.id) : Text(project, "domain_id");
  return SeesDomain(call, domain_id) || call.by->caller.project_id == project.id;
}

// ?parents_as_ids, ?parents_as_list, ?subtree_as_ids, ?subtree_as_list on one project.
JsonObject SubtreeIds(const Snapshot& now, std::string_view id) {
  JsonObject tree;
  for (const RecordPtr& child : now.Where(Index::kProjectParent, {id})) {
    JsonObject below = SubtreeIds(now, child->id);
    tree[child->id] = below.empty() ? Json(nullptr) : Json(std::move(below));
  }
  return tree;
}

void RenderHierarchy(const Call& call, const Record& project, JsonObject& view) {
  const base::http::Request& request = call.request;
  if (request.params.empty() || request.method != "GET") return;
  const Snapshot& now = *call.now;
  std::vector<std::string> parents = ParentsOf(now, project);
  if (request.Query("parents_as_ids").has_value()) {
    Json chain = JsonObject{{Text(project, "domain_id"), nullptr}};
    for (auto parent = parents.rbegin(); parent != parents.rend(); ++parent)
      chain = JsonObject{{*parent, std::move(chain)}};
    view["parents"] = std::move(chain);
  } else if (request.Query("parents_as_list").has_value()) {
    JsonArray list;
    for (const std::string& id : parents)
      if (RecordPtr parent = now.Get(Kind::kProject, id); parent && SeesProject(call, *parent))
        list.push_back(JsonObject{{"project", View(call, *parent, "/projects")}});
    view["parents"] = std::move(list);
  }
  if (request.Query("subtree_as_ids").has_value()) {
    JsonObject tree = SubtreeIds(now, project.id);
    view["subtree"] = tree.empty() ? Json(nullptr) : Json(std::move(tree));
  } else if (request.Query("subtree_as_list").has_value()) {
    JsonArray list;
    for (const RecordPtr& below : ProjectsBelow(now, project.id))
      if (SeesProject(call, *below))
        list.push_back(JsonObject{{"project", View(call, *below, "/projects")}});
    view["subtree"] = std::move(list);
  }
}

// The options that we keep to; one that we would only store would promise what nobody does.
base::Result<void> CheckUserOptions(const JsonObject& body) {
  const Json* options = body.if_contains("options");
  if (options == nullptr) return {};
  for (const auto& [name, value] : options->get_object()) {
    bool known = name == "ignore_lockout_failure_attempts" || name == "lock_password";
    if (!known || !value.is_bool())
      return Invalid("Invalid user option '" + std::string(name) +
                     "'; known are ignore_lockout_failure_attempts and lock_password, "
                     "true or false.");
  }
  return {};
}

base::Result<void> PrepareUser(Call& call, JsonObject& input, bool creating) {
  const Json* password = input.if_contains("password");
  if (password == nullptr) return {};
  if (password->is_null()) {
    input["_password_hash"] = nullptr;
  } else {
    std::string text(base::View(password->get_string()));
    if (text.size() > kMaxPasswordBytes)
      return Invalid("A password has at most " + std::to_string(kMaxPasswordBytes) + " bytes.");
    ASSIGN_OR_RETURN(std::string hash, call.api.passwords.Hash(text));
    input["_password_hash"] = hash;
  }
  input.erase("password");
  return {};
}

base::Result<void> CheckUser(Change& change) {
  if (change.before == nullptr) RETURN_IF_ERROR(DefaultDomain(change));
  RETURN_IF_ERROR(CheckUserOptions(change.body));
  VoidTokensIfDisabled(change);
  if (change.before != nullptr &&
      Text(change.body, "_password_hash") != Text(*change.before, "_password_hash"))
    VoidTokensBefore(change.call.api.clock.NowUs(), change.body);
  // An administrator's change opens a locked account.
  if (change.before != nullptr) change.tx.Remove(Kind::kLoginFailures, change.id);
  return {};
}

bool SeesUser(const Call& call, const Record& user) {
  return SeesDomain(call, Text(user, "domain_id")) || IsSelf(call, user.id);
}

bool ListsInADomain(const Call& call) {
  return SeesAll(call) || SeesDomain(call, call.by->caller.domain_id);
}

bool SeesOfDomain(const Call& call, const Record& record) {
  return SeesDomain(call, Text(record, "domain_id"));
}

}  // namespace

std::string CallersDomain(const Call& call) {
  const base::auth::Caller& caller = call.by->caller;
  if (!caller.domain_id.empty()) return caller.domain_id;
  if (!caller.project_domain_id.empty()) return caller.project_domain_id;
  return "default";
}

base::Result<void> CheckTags(const JsonObject& project) {
  std::vector<std::string> tags = Strings(project, "tags");
  if (tags.size() > kMaxTags)
    return Invalid("A project has at most " + std::to_string(kMaxTags) + " tags.");
  if (std::set<std::string>(tags.begin(), tags.end()).size() != tags.size())
    return Invalid("Invalid input for field 'tags': it has non-unique elements.");
  for (const std::string& tag : tags)
    if (tag.empty() || base::CountCharacters(tag) > kMaxTag || !IsCleanName(tag) ||
        tag.find_first_of("/,") != std::string::npos)
      return Invalid("Invalid tag: it needs 1 to 255 characters without '/' and ','.");
  return {};
}

Resource DomainResource() {
  Resource resource{.kind = Kind::kProject,
                    .path = "/domains",
                    .collection = "domains",
                    .member = "domain",
                    .label = "domain"};
  resource.fields = {
      NameField(kMaxDomainName),
      {.name = "description", .nullable = true, .fallback = "\"\""},
      {.name = "enabled", .type = Type::kBool, .fallback = "true"},
      {.name = "tags", .type = Type::kStrings, .fallback = "[]", .clean = true},
      {.name = "options", .type = Type::kObject, .fallback = "{}"},
  };
  resource.extras = true;
  resource.filters = {"name", "enabled"};
  resource.unique = Index::kProjectName;
  resource.belongs = [](const Record& record) { return Flag(record, "is_domain"); };
  resource.may_list = ListsInADomain;
  resource.may_read = [](const Call& call, const Record& domain) {
    const base::auth::Caller& caller = call.by->caller;
    return SeesDomain(call, domain.id) || caller.domain_id == domain.id ||
           caller.project_domain_id == domain.id;
  };
  resource.check = [](Change& change) -> base::Result<void> {
    change.body["is_domain"] = true;
    change.body["domain_id"] = nullptr;
    change.body["parent_id"] = nullptr;
    RETURN_IF_ERROR(CheckTags(change.body));
    RETURN_IF_ERROR(CheckImmutableOption(change.body));
    VoidTokensIfDisabled(change);
    return {};
  };
  resource.on_delete = DeleteDomain;
  resource.render = [](const Call&, const Record&, JsonObject& view) {
    for (std::string_view name : {"is_domain", "domain_id", "parent_id"}) view.erase(name);
  };
  return resource;
}

Resource ProjectResource() {
  Resource resource{.kind = Kind::kProject,
                    .path = "/projects",
                    .collection = "projects",
                    .member = "project",
                    .label = "project"};
  Field domain = IdField("domain_id");
  domain.fixed = true;
  Field parent = IdField("parent_id");
  parent.fixed = true;
  resource.fields = {
      NameField(kMaxDomainName),
      domain,
      {.name = "description", .nullable = true, .fallback = "\"\""},
      {.name = "enabled", .type = Type::kBool, .fallback = "true"},
      parent,
      {.name = "is_domain", .type = Type::kBool, .fixed = true, .fallback = "false"},
      {.name = "tags", .type = Type::kStrings, .fallback = "[]", .clean = true},
      {.name = "options", .type = Type::kObject, .fallback = "{}"},
  };
  resource.extras = true;
  resource.filters = {"name", "domain_id", "parent_id", "enabled"};
  resource.unique = Index::kProjectName;
  resource.may_list = ListsInADomain;
  resource.may_read = SeesProject;
  resource.listed = ListsProject;
  resource.check = CheckProject;
  resource.on_delete = DeleteProject;
  resource.render = RenderHierarchy;
  return resource;
}

Resource UserResource() {
  Resource resource{.kind = Kind::kUser,
                    .path = "/users",
                    .collection = "users",
                    .member = "user",
                    .label = "user"};
  Field domain = IdField("domain_id");
  domain.fixed = true;
  resource.fields = {
      NameField(kMaxName),
      domain,
      {.name = "enabled", .type = Type::kBool, .fallback = "true"},
      IdField("default_project_id"),
      {.name = "description", .nullable = true},
      {.name = "password", .nullable = true, .min_characters = 1},
      {.name = "options", .type = Type::kObject, .fallback = "{}"},
  };
  resource.extras = true;
  resource.filters = {"name", "domain_id", "enabled"};
  resource.unique = Index::kUserName;
  resource.may_list = ListsInADomain;
  resource.may_read = SeesUser;
  resource.prepare = PrepareUser;
  resource.check = CheckUser;
  resource.on_delete = [](Call&, Transaction& tx, const Record& user) -> base::Result<void> {
    RemoveUser(tx, user);
    return {};
  };
  resource.render = [](const Call&, const Record&, JsonObject& view) {
    view["password_expires_at"] = nullptr;
  };
  return resource;
}

Resource GroupResource() {
  Resource resource{.kind = Kind::kGroup,
                    .path = "/groups",
                    .collection = "groups",
                    .member = "group",
                    .label = "group"};
  Field domain = IdField("domain_id");
  domain.fixed = true;
  resource.fields = {
      NameField(kMaxGroupName),
      domain,
      {.name = "description", .nullable = true, .fallback = "\"\""},
  };
  resource.extras = true;
  resource.filters = {"name", "domain_id"};
  resource.unique = Index::kGroupName;
  resource.may_list = ListsInADomain;
  resource.may_read = SeesOfDomain;
  resource.check = [](Change& change) {
    return change.before == nullptr ? DefaultDomain(change) : base::Result<void>();
  };
  resource.on_delete = [](Call&, Transaction& tx, const Record& group) -> base::Result<void> {
    RemoveGroup(tx, group);
    return {};
  };
  return resource;
}

Resource RoleResource() {
  Resource resource{.kind = Kind::kRole,
                    .path = "/roles",
                    .collection = "roles",
                    .member = "role",
                    .label = "role"};
  Field domain = IdField("domain_id");
  domain.fixed = true;
  domain.fallback = "null";
  resource.fields = {
      NameField(kMaxName),
      domain,
      {.name = "description", .nullable = true, .fallback = "null"},
      {.name = "options", .type = Type::kObject, .fallback = "{}"},
  };
  resource.extras = true;
  resource.filters = {"name", "domain_id"};
  resource.unique = Index::kRoleName;
  resource.may_list = SeesAll;
  resource.may_read = SeesOfDomain;
  resource.listed = [](const Call& call, const Record& role) {
    return call.request.Query("domain_id").has_value() || Text(role, "domain_id").empty();
  };
  resource.check = [](Change& change) -> base::Result<void> {
    std::string_view id = Text(change.body, "domain_id");
    RecordPtr owner = change.tx.now().Get(Kind::kProject, id);
    if (!id.empty() && (owner == nullptr || !Flag(*owner, "is_domain")))
      return NotFound("domain", id);
    return CheckImmutableOption(change.body);
  };
  resource.on_delete = [](Call&, Transaction& tx, const Record& role) -> base::Result<void> {
    RemoveRole(tx, role);
    return {};
  };
  return resource;
}

}  // namespace controlplane::identity
