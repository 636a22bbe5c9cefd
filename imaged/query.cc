#include "imaged/query.h"

#include <algorithm>
#include <compare>

#include "base/clock.h"

namespace imaged {
namespace {

bool IsAmong(const std::vector<std::string>& wanted, const std::optional<std::string>& value) {
  if (wanted.empty()) return true;
  return value.has_value() && std::find(wanted.begin(), wanted.end(), *value) != wanted.end();
}

bool IsBetween(const std::optional<int64_t>& min, const std::optional<int64_t>& max,
               const std::optional<int64_t>& value) {
  if (!min.has_value() && !max.has_value()) return true;
  if (!value.has_value()) return false;
  return (!min.has_value() || *value >= *min) && (!max.has_value() || *value <= *max);
}

std::optional<int64_t> Signed(const std::optional<uint64_t>& value) {
  if (!value.has_value()) return std::nullopt;
  return static_cast<int64_t>(*value);
}

// Clients see and send whole seconds.
bool TimeHolds(const std::vector<ListQuery::TimeTerm>& terms, int64_t time_us) {
  const int64_t second = time_us / base::kSecondUs;
  for (const ListQuery::TimeTerm& term : terms) {
    const auto order = second <=> term.time_us / base::kSecondUs;
    bool holds = false;
    switch (term.op) {
      case TimeOp::kEq:
        holds = order == 0;
        break;
      case TimeOp::kNeq:
        holds = order != 0;
        break;
      case TimeOp::kGt:
        holds = order > 0;
        break;
      case TimeOp::kGte:
        holds = order >= 0;
        break;
      case TimeOp::kLt:
        holds = order < 0;
        break;
      case TimeOp::kLte:
        holds = order <= 0;
        break;
    }
    if (!holds) return false;
  }
  return true;
}

bool EqualHolds(const Image& image, std::string_view key, std::string_view wanted) {
  auto number = [&](const std::optional<uint64_t>& value) {
    return value.has_value() && std::to_string(*value) == wanted;
  };
  auto text = [&](const std::optional<std::string>& value) { return value == wanted; };
  if (key == "owner") return image.owner == wanted;
  if (key == "size") return number(image.size_bytes);
  if (key == "virtual_size") return number(image.virtual_size_bytes);
  if (key == "min_disk") return number(image.min_disk_gb);
  if (key == "min_ram") return number(image.min_ram_mb);
  if (key == "checksum") return text(image.checksum);
  if (key == "os_hash_algo") return text(image.os_hash_algo);
  if (key == "os_hash_value") return text(image.os_hash_value);
  const auto property = image.properties.find(key);
  return property != image.properties.end() && property->second == wanted;
}

bool IsVisible(const ListQuery& query, const Image& image) {
  const Viewer& viewer = query.viewer;
  const bool mine = !viewer.project_id.empty() && image.owner == viewer.project_id;
  if (query.visibility.has_value() && image.visibility != *query.visibility) return false;
  if (!query.visibility.has_value() && !query.all_visibilities &&
      image.visibility == Visibility::kCommunity && !mine)
    return false;
  if (viewer.is_admin || mine) return true;
  switch (image.visibility) {
    case Visibility::kPublic:
    case Visibility::kCommunity:
      return true;
    case Visibility::kPrivate:
      return false;
    case Visibility::kShared:
      break;
  }
  const Member* member = image.FindMember(viewer.project_id);
  return member != nullptr && !viewer.project_id.empty() &&
         (!query.member_status.has_value() || member->status == *query.member_status);
}

bool HasTags(const Image& image, const std::vector<std::string>& wanted) {
  auto has = [&](const std::string& tag) {
    return std::binary_search(image.tags.begin(), image.tags.end(), tag);
  };
  return std::all_of(wanted.begin(), wanted.end(), has);
}

// Nothing sorts before everything.
template <typename T>
std::strong_ordering Order(const T& a, const T& b) {
  if (a < b) return std::strong_ordering::less;
  if (b < a) return std::strong_ordering::greater;
  return std::strong_ordering::equal;
}

std::strong_ordering OrderNames(const Image& a, const Image& b) {
  if (a.name.has_value() != b.name.has_value()) return a.name.has_value() <=> b.name.has_value();
  if (!a.name.has_value()) return std::strong_ordering::equal;
  const std::string_view left = *a.name;
  const std::string_view right = *b.name;
  return left.substr(0, kNameOrderBytes) <=> right.substr(0, kNameOrderBytes);
}

std::strong_ordering OrderBy(SortKey key, const Image& a, const Image& b) {
  switch (key) {
    case SortKey::kName:
      return OrderNames(a, b);
    case SortKey::kStatus:
      return Order(StatusName(a.status), StatusName(b.status));
    case SortKey::kContainerFormat:
      return Order(a.container_format, b.container_format);
    case SortKey::kDiskFormat:
      return Order(a.disk_format, b.disk_format);
    case SortKey::kSize:
      return Order(a.size_bytes, b.size_bytes);
    case SortKey::kId:
      return Order(a.id, b.id);
    case SortKey::kCreatedAt:
      return Order(a.created_at_us, b.created_at_us);
    case SortKey::kUpdatedAt:
      return Order(a.updated_at_us, b.updated_at_us);
  }
  return std::strong_ordering::equal;
}

}  // namespace

bool Matches(const ListQuery& query, const Image& image) {
  if (image.is_hidden != query.is_hidden || !IsVisible(query, image)) return false;
  if (query.is_protected.has_value() && image.is_protected != *query.is_protected) return false;
  if (!IsAmong(query.names, image.name) || !IsAmong(query.ids, image.id) ||
      !IsAmong(query.statuses, std::string(StatusName(image.status))) ||
      !IsAmong(query.disk_formats, image.disk_format) ||
      !IsAmong(query.container_formats, image.container_format))
    return false;
  for (const auto& [key, value] : query.equal)
    if (!EqualHolds(image, key, value)) return false;
  return HasTags(image, query.tags) &&
         IsBetween(query.size_min, query.size_max, Signed(image.size_bytes)) &&
         IsBetween(query.min_disk_min, query.min_disk_max, image.min_disk_gb) &&
         IsBetween(query.min_ram_min, query.min_ram_max, image.min_ram_mb) &&
         TimeHolds(query.created_at, image.created_at_us) &&
         TimeHolds(query.updated_at, image.updated_at_us);
}

bool ComesBefore(const ListQuery& query, const Image& a, const Image& b) {
  for (const SortTerm& term : query.sort) {
    const std::strong_ordering order = OrderBy(term.key, a, b);
    if (order != 0) return term.descending ? order > 0 : order < 0;
  }
  for (SortKey key : {SortKey::kCreatedAt, SortKey::kId}) {
    const std::strong_ordering order = OrderBy(key, a, b);
    if (order != 0) return query.tie_descending ? order > 0 : order < 0;
  }
  return false;
}

}  // namespace imaged
