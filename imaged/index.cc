#include "imaged/index.h"

#include <algorithm>

#include "base/coding.h"
#include "base/hash.h"

namespace imaged {
namespace {

constexpr size_t kIdBytes = 36;
constexpr size_t kMaxPlainScopeBytes = 64;
constexpr std::string_view kAllScope = "a";
constexpr std::string_view kPublicScope = "p";
constexpr std::string_view kCommunityScope = "c";

bool IsPlain(std::string_view text) {
  auto plain = [](unsigned char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
           c == '_' || c == '.';
  };
  return text.size() <= kMaxPlainScopeBytes && std::all_of(text.begin(), text.end(), plain);
}

// A project's id as a part of a key: ids are Keystone's as a rule, but an administrator may set any
// string, and anybody may name any string as a member. '#' is not a plain character, so that no two
// ids share a form.
std::string KeyPart(std::string_view project_id) {
  if (IsPlain(project_id)) return std::string(project_id);
  return "#" + base::Sha256(base::AsBytes(project_id)).hex();
}

std::string OwnerScope(std::string_view project_id) { return "o:" + KeyPart(project_id); }
std::string MemberScope(std::string_view project_id) { return "m:" + KeyPart(project_id); }

std::string ScopePrefix(std::string_view scope, IndexOrder order) {
  std::string prefix = "x/";
  prefix.append(scope).append(order == IndexOrder::kCreated ? "/c/" : "/n/");
  return prefix;
}

std::vector<std::string> ScopesOfImage(const Image& image) {
  std::vector<std::string> scopes = {std::string(kAllScope)};
  if (!image.owner.empty()) scopes.push_back(OwnerScope(image.owner));
  if (image.visibility == Visibility::kPublic) scopes.emplace_back(kPublicScope);
  if (image.visibility == Visibility::kCommunity) scopes.emplace_back(kCommunityScope);
  for (const Member& member : image.members) scopes.push_back(MemberScope(member.project_id));
  return scopes;
}

// Zero bytes are escaped, so that the terminator sorts before every longer name.
void AppendOrderedName(std::string_view name, std::string* out) {
  out->push_back('\x01');  // after the '\0' of "no name"
  for (char c : name.substr(0, kNameOrderBytes)) {
    out->push_back(c);
    if (c == '\0') out->push_back('\xff');
  }
  out->push_back('\0');
  out->push_back('\x01');
}

const std::string* FindEqual(const ListQuery& query, std::string_view key) {
  for (const auto& [name, value] : query.equal)
    if (name == key) return &value;
  return nullptr;
}

}  // namespace

std::string RecordKey(std::string_view id) { return "i/" + std::string(id); }
std::string UploadKey(std::string_view holder) { return std::string(kUploadPrefix).append(holder); }
std::string TraceKey(std::string_view id) { return "t/" + std::string(id); }
std::string DeletedKey(std::string_view id) { return "d/" + std::string(id); }
std::string ReleaseKey(std::string_view holder) {
  return std::string(kReleasePrefix).append(holder);
}
std::string UsageKey(std::string_view project_id) { return "q/" + KeyPart(project_id); }

std::string NamePrefix(std::string_view name) {
  std::string prefix;
  AppendOrderedName(name, &prefix);
  return prefix;
}

std::string IndexSuffix(IndexOrder order, const Image& image) {
  std::string suffix;
  if (order == IndexOrder::kName) {
    if (image.name.has_value())
      AppendOrderedName(*image.name, &suffix);
    else
      suffix.push_back('\0');
  }
  base::PutOrdered64(&suffix, static_cast<uint64_t>(image.created_at_us));
  suffix.append(image.id);
  return suffix;
}

std::string_view IdOfIndexKey(std::string_view key) {
  return key.size() < kIdBytes ? std::string_view() : key.substr(key.size() - kIdBytes);
}

std::vector<std::string> IndexKeys(const Image& image) {
  std::vector<std::string> keys;
  for (IndexOrder order : {IndexOrder::kCreated, IndexOrder::kName}) {
    const std::string suffix = IndexSuffix(order, image);
    for (const std::string& scope : ScopesOfImage(image))
      keys.push_back(ScopePrefix(scope, order) + suffix);
  }
  std::sort(keys.begin(), keys.end());
  return keys;
}

std::vector<std::string> ScopesOf(const ListQuery& query, IndexOrder order) {
  const std::string* owner = FindEqual(query, "owner");
  const bool mine = owner != nullptr && *owner == query.viewer.project_id;
  std::vector<std::string> scopes;
  if (query.visibility == Visibility::kPublic) {
    scopes.emplace_back(kPublicScope);
  } else if (query.visibility == Visibility::kCommunity) {
    scopes.emplace_back(kCommunityScope);
  } else if (owner != nullptr && !owner->empty() && (query.viewer.is_admin || mine)) {
    scopes.push_back(OwnerScope(*owner));
  } else if (query.viewer.is_admin) {
    scopes.emplace_back(kAllScope);
  } else {
    if (!query.viewer.project_id.empty()) {
      scopes.push_back(OwnerScope(query.viewer.project_id));
      if (query.visibility != Visibility::kPrivate)
        scopes.push_back(MemberScope(query.viewer.project_id));
    }
    if (!query.visibility.has_value()) scopes.emplace_back(kPublicScope);
    if (query.all_visibilities) scopes.emplace_back(kCommunityScope);
  }
  for (std::string& scope : scopes) scope = ScopePrefix(scope, order);
  return scopes;
}

}  // namespace imaged
