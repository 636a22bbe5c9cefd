#include <array>

#include "controlplane/identity/apis.h"

// Configuration that belongs to one domain. Quarry keeps it for those who manage it and has no
// driver yet that acts on it: users live in identity itself. Only the groups and options below can
// be set, so that a mistyped one is noticed.

namespace controlplane::identity {

namespace {

// With the values that hold where a domain says nothing.
const JsonObject& Defaults() {
  static const JsonObject& defaults = *new JsonObject{
      {"identity", JsonObject{{"driver", "sql"}, {"list_limit", nullptr}}},
      {"ldap", JsonObject{{"url", "ldap://localhost"},
                          {"user", nullptr},
                          {"suffix", "cn=example,cn=com"},
                          {"query_scope", "one"},
                          {"page_size", 0},
                          {"use_tls", false},
                          {"user_tree_dn", nullptr},
                          {"user_filter", nullptr},
                          {"user_objectclass", "inetOrgPerson"},
                          {"user_id_attribute", "cn"},
                          {"user_name_attribute", "sn"},
                          {"user_mail_attribute", "mail"},
                          {"user_enabled_attribute", "enabled"},
                          {"group_tree_dn", nullptr},
                          {"group_filter", nullptr},
                          {"group_objectclass", "groupOfNames"},
                          {"group_id_attribute", "cn"},
                          {"group_name_attribute", "ou"},
                          {"group_member_attribute", "member"}}},
  };
  return defaults;
}

std::string Path(const Call& call) {
  std::string path;
  auto group = call.request.params.find("group");
  auto option = call.request.params.find("option");
  if (option != call.request.params.end()) path = "option " + option->second + " in ";
  if (group != call.request.params.end()) path += "group " + group->second;
  return path.empty() ? "any options" : path;
}

Error NoConfig(const Call& call) {
  std::string message = "Could not find " + Path(call) + " in domain configuration";
  auto domain = call.request.params.find("domain_id");
  if (domain != call.request.params.end()) message += " for domain " + domain->second;
  return Error(Code::kNotFound, message + ".");
}

// The part of a configuration that the path names, as answers show it: all, {group: {...}} or
// {option: value}.
base::Result<JsonObject> Select(const Call& call, const JsonObject& config) {
  auto group = call.request.params.find("group");
  if (group == call.request.params.end()) return config;
  const Json* options = config.if_contains(group->second);
  if (options == nullptr) return NoConfig(call);
  auto option = call.request.params.find("option");
  if (option == call.request.params.end()) return JsonObject{{group->second, *options}};
  const Json* value = options->get_object().if_contains(option->second);
  if (value == nullptr) return NoConfig(call);
  return JsonObject{{option->second, *value}};
}

base::Result<void> CheckDomain(const Snapshot& now, const std::string& id) {
  RecordPtr domain = now.Get(Kind::kProject, id);
  if (domain == nullptr || !Flag(*domain, "is_domain")) return NotFound("domain", id);
  return {};
}

// Only groups and options that exist, only simple values.
base::Result<void> CheckConfig(const JsonObject& config) {
  for (const auto& [group, options] : config) {
    const Json* known = Defaults().if_contains(group);
    if (known == nullptr || !options.is_object())
      return Error(
          Code::kPermissionDenied,
          "Group " + std::string(group) + " is not supported for domain specific configurations.");
    for (const auto& [option, value] : options.get_object()) {
      if (known->get_object().if_contains(option) == nullptr || value.is_object() ||
          value.is_array())
        return Error(Code::kPermissionDenied,
                     "Option " + std::string(option) + " in group " + std::string(group) +
                         " is not supported for domain specific configurations.");
    }
  }
  return {};
}

Result Show(Call& call) {
  if (!SeesAll(call)) return Forbidden();
  const std::string& id = call.Param("domain_id");
  RETURN_IF_ERROR(CheckDomain(*call.now, id));
  RecordPtr config = call.now->Get(Kind::kDomainConfig, id);
  if (config == nullptr || config->body.empty()) return NoConfig(call);
  ASSIGN_OR_RETURN(JsonObject part, Select(call, config->body));
  return Shown("config", std::move(part));
}

Result ShowDefault(Call& call) {
  if (!SeesAll(call)) return Forbidden();
  ASSIGN_OR_RETURN(JsonObject part, Select(call, Defaults()));
  return Shown("config", std::move(part));
}

Result Replace(Call& call) {
  ASSIGN_OR_RETURN(JsonObject config, BodyMember(call.request, "config"));
  RETURN_IF_ERROR(CheckConfig(config));
  const std::string& id = call.Param("domain_id");
  bool existed = false;
  RETURN_IF_ERROR(call.api.store.Transact([&](Transaction& tx) -> base::Result<void> {
    RETURN_IF_ERROR(CheckDomain(tx.now(), id));
    existed = tx.now().Get(Kind::kDomainConfig, id) != nullptr;
    tx.Put(Kind::kDomainConfig, id, config);
    return {};
  }));
  return existed ? Shown("config", std::move(config)) : Created("config", std::move(config));
}

// PATCH on the whole, on a group ({"config": {group: {...}}}) or on an option ({"config": {option:
// value}}).
Result Update(Call& call) {
  ASSIGN_OR_RETURN(JsonObject input, BodyMember(call.request, "config"));
  auto group = call.request.params.find("group");
  auto option = call.request.params.find("option");
  if (option != call.request.params.end()) {
    if (input.size() != 1 || input.if_contains(option->second) == nullptr)
      return Error(Code::kPermissionDenied, "The body names another option than the path.");
    input = JsonObject{{group->second, std::move(input)}};
  } else if (group != call.request.params.end() &&
             (input.size() != 1 || input.if_contains(group->second) == nullptr)) {
    return Error(Code::kPermissionDenied, "The body names another group than the path.");
  }
  RETURN_IF_ERROR(CheckConfig(input));
  const std::string& id = call.Param("domain_id");
  JsonObject config;
  RETURN_IF_ERROR(call.api.store.Transact([&](Transaction& tx) -> base::Result<void> {
    RETURN_IF_ERROR(CheckDomain(tx.now(), id));
    RecordPtr before = tx.now().Get(Kind::kDomainConfig, id);
    if (before == nullptr) return NoConfig(call);
    RETURN_IF_ERROR(Select(call, before->body));
    config = before->body;
    for (const auto& [name, options] : input) {
      JsonObject merged =
          config.if_contains(name) != nullptr ? config[name].get_object() : JsonObject();
      for (const auto& [key, value] : options.get_object()) merged[key] = value;
      config[name] = std::move(merged);
    }
    tx.Put(Kind::kDomainConfig, id, config);
    return {};
  }));
  return Shown("config", std::move(config));
}

Result Remove(Call& call) {
  const std::string& id = call.Param("domain_id");
  return Written(call, [&](Transaction& tx) -> base::Result<void> {
    RETURN_IF_ERROR(CheckDomain(tx.now(), id));
    RecordPtr before = tx.now().Get(Kind::kDomainConfig, id);
    if (before == nullptr) return NoConfig(call);
    RETURN_IF_ERROR(Select(call, before->body));
    JsonObject config = before->body;
    auto group = call.request.params.find("group");
    auto option = call.request.params.find("option");
    if (option != call.request.params.end())
      config[group->second].get_object().erase(option->second);
    else if (group != call.request.params.end())
      config.erase(group->second);
    else
      config.clear();
    if (config.empty())
      tx.Remove(Kind::kDomainConfig, id);
    else
      tx.Put(Kind::kDomainConfig, id, std::move(config));
    return {};
  });
}

}  // namespace

void AddDomainConfigApi(Routes& routes) {
  std::string whole = "/domains/{domain_id}/config";
  for (std::string suffix : {"", "/{group}", "/{group}/{option}"}) {
    routes.Add("GET", "/domains/config" + suffix + "/default", Access::kToken, ShowDefault);
    routes.Add("GET", whole + suffix, Access::kToken, Show);
    routes.Add("PATCH", whole + suffix, Access::kAdmin, Update);
    routes.Add("DELETE", whole + suffix, Access::kAdmin, Remove);
  }
  routes.Add("PUT", whole, Access::kAdmin, Replace);
}

}  // namespace controlplane::identity
