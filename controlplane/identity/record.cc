#include "controlplane/identity/record.h"

#include <array>

namespace controlplane::identity {
namespace {

constexpr std::array<std::string_view, kKinds> kKindNames = {
    "project",    "user",           "group",     "membership", "role",           "implied_role",
    "assignment", "region",         "service",   "endpoint",   "policy",         "credential",
    "appcred",    "access_rule",    "trust",     "consumer",   "endpoint_group", "domain_config",
    "revocation", "login_failures", "token_key",
};

// Stands between the members of a key; names cannot hold it (CheckText in resource.cc).
constexpr char kSeparator = '\x1f';

}  // namespace

std::string_view KindName(Kind kind) { return kKindNames[static_cast<size_t>(kind)]; }

const IndexDefinition& DefinitionOf(Index index) {
  static const auto& definitions = *new std::array<IndexDefinition, kIndexes>{{
      {Kind::kProject, {"domain_id", "name"}},
      {Kind::kProject, {"parent_id"}},
      {Kind::kUser, {"domain_id", "name"}},
      {Kind::kGroup, {"domain_id", "name"}},
      {Kind::kMembership, {"user_id"}},
      {Kind::kMembership, {"group_id"}},
      {Kind::kRole, {"domain_id", "name"}},
      {Kind::kImpliedRole, {"prior_role_id"}},
      {Kind::kAssignment, {"actor_id"}},
      {Kind::kAssignment, {"target_id"}},
      {Kind::kRegion, {"parent_region_id"}},
      {Kind::kEndpoint, {"service_id"}},
      {Kind::kEndpoint, {"region_id"}},
      {Kind::kCredential, {"user_id"}},
      {Kind::kApplicationCredential, {"user_id", "name"}},
      {Kind::kApplicationCredential, {"user_id"}},
      {Kind::kAccessRule, {"user_id"}},
      {Kind::kTrust, {"trustor_user_id"}},
      {Kind::kTrust, {"trustee_user_id"}},
      {Kind::kRevocation, {"user_id"}},
  }};
  return definitions[static_cast<size_t>(index)];
}

std::string IndexKey(const IndexDefinition& definition, const base::JsonObject& body) {
  std::string key;
  for (std::string_view member : definition.members) {
    if (!key.empty() || member != definition.members.front()) key += kSeparator;
    key += Text(body, member);
  }
  return key;
}

std::string IndexKey(std::initializer_list<std::string_view> values) {
  std::string key;
  bool first = true;
  for (std::string_view value : values) {
    if (!first) key += kSeparator;
    first = false;
    key += value;
  }
  return key;
}

std::string_view Text(const base::JsonObject& object, std::string_view name) {
  const base::Json* value = object.if_contains(name);
  if (value == nullptr || !value->is_string()) return {};
  return base::View(value->get_string());
}

bool Flag(const base::JsonObject& object, std::string_view name, bool fallback) {
  const base::Json* value = object.if_contains(name);
  return value != nullptr && value->is_bool() ? value->get_bool() : fallback;
}

int64_t Number(const base::JsonObject& object, std::string_view name) {
  const base::Json* value = object.if_contains(name);
  return value != nullptr && value->is_int64() ? value->get_int64() : 0;
}

std::vector<std::string> Strings(const base::JsonObject& object, std::string_view name) {
  std::vector<std::string> strings;
  const base::Json* value = object.if_contains(name);
  if (value == nullptr || !value->is_array()) return strings;
  for (const base::Json& item : value->get_array())
    if (item.is_string()) strings.emplace_back(base::View(item.get_string()));
  return strings;
}

bool Contains(const base::JsonObject& object, std::string_view name, std::string_view text) {
  const base::Json* value = object.if_contains(name);
  if (value == nullptr || !value->is_array()) return false;
  for (const base::Json& item : value->get_array())
    if (item.is_string() && base::View(item.get_string()) == text) return true;
  return false;
}

base::Json TextOrNull(std::string_view text) {
  if (text.empty()) return nullptr;
  return base::Json(text);
}

}  // namespace controlplane::identity
