#include "imaged/list_request.h"

#include <array>
#include <optional>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/text.h"
#include "imaged/policy.h"

namespace imaged {
namespace {

using base::Code;
using base::Error;
using base::Result;
using base::http::Request;

Error Bad(std::string message) { return Error(Code::kInvalidArgument, std::move(message)); }

std::string Text(std::string_view view) { return std::string(view.substr(0, 200)); }

constexpr std::string_view kBlanks = " ";

constexpr std::array<std::pair<std::string_view, SortKey>, 8> kSortKeys = {{
    {"name", SortKey::kName},
    {"status", SortKey::kStatus},
    {"container_format", SortKey::kContainerFormat},
    {"disk_format", SortKey::kDiskFormat},
    {"size", SortKey::kSize},
    {"id", SortKey::kId},
    {"created_at", SortKey::kCreatedAt},
    {"updated_at", SortKey::kUpdatedAt},
}};

Result<SortKey> ParseSortKey(std::string_view text) {
  for (const auto& [name, key] : kSortKeys)
    if (name == base::Trim(text, kBlanks)) return key;
  std::string names;
  for (const auto& [name, key] : kSortKeys) {
    if (!names.empty()) names += ", ";
    names += name;
  }
  return Bad("Invalid sort key: " + Text(text) + ". It must be one of the following: " + names +
             ".");
}

Result<bool> ParseDescending(std::string_view text) {
  const std::string_view direction = base::Trim(text, kBlanks);
  if (direction == "desc") return true;
  if (direction == "asc") return false;
  return Bad("Invalid sort direction: " + Text(direction) +
             ". It must be one of the following: asc, desc.");
}

// "sort=name:asc,size", or pairs of "sort_key" and "sort_dir" in order, or one direction for all
// keys.
class SortReader {
 public:
  Result<void> AddSort(std::string_view text) {
    modern_ = true;
    while (true) {
      const size_t comma = text.find(',');
      const std::string_view term = text.substr(0, comma);
      const size_t colon = term.find(':');
      ASSIGN_OR_RETURN(const SortKey key, ParseSortKey(term.substr(0, colon)));
      bool descending = true;
      if (colon != std::string_view::npos) {
        ASSIGN_OR_RETURN(descending, ParseDescending(term.substr(colon + 1)));
      }
      keys_.push_back(key);
      directions_.push_back(descending);
      if (comma == std::string_view::npos) return {};
      text.remove_prefix(comma + 1);
    }
  }
  Result<void> AddKey(std::string_view text) {
    classic_ = true;
    ASSIGN_OR_RETURN(const SortKey key, ParseSortKey(text));
    keys_.push_back(key);
    return {};
  }
  Result<void> AddDirection(std::string_view text) {
    classic_ = true;
    ASSIGN_OR_RETURN(const bool descending, ParseDescending(text));
    directions_.push_back(descending);
    return {};
  }
  Result<void> Finish(ListQuery* query) {
    if (modern_ && classic_) return Bad("Old and new sorting syntax cannot be combined");
    if (keys_.empty() && !directions_.empty()) keys_.push_back(SortKey::kCreatedAt);
    if (directions_.size() > 1 && directions_.size() != keys_.size())
      return Bad("Number of sort dirs does not match the number of sort keys");
    if (directions_.empty()) directions_.push_back(true);
    for (size_t i = 0; i < keys_.size(); ++i)
      query->sort.push_back({keys_[i], directions_[directions_.size() == 1 ? 0 : i]});
    query->tie_descending = directions_.size() == 1 ? bool(directions_[0]) : true;
    return {};
  }

 private:
  bool modern_ = false;
  bool classic_ = false;
  std::vector<SortKey> keys_;
  std::vector<bool> directions_;
};

// "in:a,b,\"c,d\"": commas part the values, but not within double quotes.
Result<std::vector<std::string>> SplitValues(std::string_view text) {
  std::vector<std::string> values;
  while (true) {
    std::string_view value;
    if (text.starts_with('"')) {
      const size_t end = text.find('"', 1);
      if (end == std::string_view::npos) return Bad("Invalid filter value: a quote is not closed.");
      value = text.substr(1, end - 1);
      text.remove_prefix(end + 1);
      if (!text.empty() && !text.starts_with(','))
        return Bad("Invalid filter value: a comma is missing after a closing quote.");
    } else {
      value = text.substr(0, text.find(','));
      if (value.find('"') != std::string_view::npos)
        return Bad("Invalid filter value: a comma is missing before an opening quote.");
      text.remove_prefix(value.size());
    }
    values.emplace_back(value);
    if (text.empty()) return values;
    text.remove_prefix(1);
  }
}

// A value with its operator in front; no operator is "eq".
std::pair<std::string_view, std::string_view> SplitOperator(std::string_view text) {
  for (std::string_view op : {"in", "eq", "neq", "gte", "gt", "lte", "lt"})
    if (text.size() > op.size() && text.starts_with(op) && text[op.size()] == ':')
      return {op, text.substr(op.size() + 1)};
  return {"eq", text};
}

Result<void> AddAnyOf(std::string_view value, std::vector<std::string>* values) {
  const auto [op, operand] = SplitOperator(value);
  if (op == "in") {
    ASSIGN_OR_RETURN(*values, SplitValues(operand));
    return {};
  }
  if (op != "eq") return Bad("Unable to filter by unknown operator '" + std::string(op) + "'.");
  *values = {std::string(operand)};
  return {};
}

Result<void> AddTime(std::string_view key, std::string_view value,
                     std::vector<ListQuery::TimeTerm>* terms) {
  static constexpr std::pair<std::string_view, TimeOp> kOperators[] = {
      {"eq", TimeOp::kEq},   {"neq", TimeOp::kNeq}, {"gt", TimeOp::kGt},
      {"gte", TimeOp::kGte}, {"lt", TimeOp::kLt},   {"lte", TimeOp::kLte}};
  const auto [op, operand] = SplitOperator(value);
  for (const auto& [name, time_op] : kOperators) {
    if (name != op) continue;
    const Result<int64_t> time_us = base::ParseTime(operand);
    if (!time_us.has_value())
      return Bad("Bad \"" + std::string(key) +
                 "\" query filter format. Use ISO 8601 DateTime notation.");
    terms->push_back({time_op, *time_us});
    return {};
  }
  return Bad("Unable to filter by unknown operator '" + std::string(op) + "'.");
}

Result<void> AddBound(std::string_view value, std::optional<int64_t>* bound) {
  *bound = base::ParseNumber<int64_t>(value);
  if (bound->has_value()) return {};
  return Bad("Unable to filter on a range with a non-numeric value.");
}

Result<bool> ParseFlag(std::string_view key, std::string_view value) {
  if (value == "true" || value == "True") return true;
  if (value == "false" || value == "False") return false;
  return Bad("Invalid value '" + Text(value) + "' for '" + std::string(key) +
             "' filter. Valid values are 'true' or 'false'.");
}

Result<size_t> ParseLimit(std::string_view value) {
  const std::optional<int64_t> limit = base::ParseNumber<int64_t>(value);
  if (!limit.has_value()) return Bad("limit param must be an integer");
  if (*limit < 0) return Bad("limit param must be positive");
  return std::min(static_cast<size_t>(*limit), kMaxListLimit);
}

Result<void> SetVisibilityFilter(std::string_view value, ListQuery* query) {
  query->all_visibilities = value == "all";
  query->visibility = ParseVisibility(value);
  if (query->visibility.has_value() || query->all_visibilities || value.empty()) return {};
  return Bad("Invalid visibility value: " + Text(value));
}

Result<void> SetMemberStatus(std::string_view value, ListQuery* query) {
  query->member_status = ParseMemberStatus(value);
  if (query->member_status.has_value() || value == "all") return {};
  return Bad("Invalid status: " + Text(value));
}

Result<void> AddFilter(std::string_view key, std::string_view value, ListQuery* query) {
  if (key == "visibility") return SetVisibilityFilter(value, query);
  if (key == "member_status") return SetMemberStatus(value, query);
  if (key == "name") return AddAnyOf(value, &query->names);
  if (key == "id") return AddAnyOf(value, &query->ids);
  if (key == "status") return AddAnyOf(value, &query->statuses);
  if (key == "disk_format") return AddAnyOf(value, &query->disk_formats);
  if (key == "container_format") return AddAnyOf(value, &query->container_formats);
  if (key == "created_at") return AddTime(key, value, &query->created_at);
  if (key == "updated_at") return AddTime(key, value, &query->updated_at);
  if (key == "size_min") return AddBound(value, &query->size_min);
  if (key == "size_max") return AddBound(value, &query->size_max);
  if (key == "min_disk_min") return AddBound(value, &query->min_disk_min);
  if (key == "min_disk_max") return AddBound(value, &query->min_disk_max);
  if (key == "min_ram_min") return AddBound(value, &query->min_ram_min);
  if (key == "min_ram_max") return AddBound(value, &query->min_ram_max);
  if (key == "changes-since")
    return Bad("The \"changes-since\" filter is no longer available on v2.");
  if (key == "tag") {
    query->tags.emplace_back(base::Trim(value, kBlanks));
  } else if (key == "protected") {
    ASSIGN_OR_RETURN(query->is_protected, ParseFlag(key, value));
  } else if (key == "os_hidden") {
    ASSIGN_OR_RETURN(query->is_hidden, ParseFlag(key, value));
  } else if (key == "limit") {
    ASSIGN_OR_RETURN(query->limit, ParseLimit(value));
  } else if (key == "marker") {
    query->marker = std::string(value);
  } else {
    query->equal.emplace_back(key, value);
  }
  return {};
}

bool IsUnreserved(unsigned char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
         c == '_' || c == '.' || c == '~';
}

void AppendEncoded(std::string_view text, std::string* out) {
  constexpr char kHex[] = "0123456789ABCDEF";
  for (const char raw : text) {
    const auto c = static_cast<unsigned char>(raw);
    if (IsUnreserved(c)) {
      out->push_back(raw);
    } else if (c == ' ') {
      out->push_back('+');
    } else {
      out->push_back('%');
      out->push_back(kHex[c >> 4]);
      out->push_back(kHex[c & 15]);
    }
  }
}

}  // namespace

Result<ListQuery> ParseListRequest(const Request& request) {
  ListQuery query;
  query.viewer = ViewerOf(*request.caller);
  query.limit = kDefaultListLimit;
  if (request.query.size() > kMaxListTerms)
    return Bad("A list may have at most " + std::to_string(kMaxListTerms) + " parameters.");
  SortReader sort;
  for (const auto& [key, value] : request.query) {
    if (key == "sort")
      RETURN_IF_ERROR(sort.AddSort(value));
    else if (key == "sort_key")
      RETURN_IF_ERROR(sort.AddKey(value));
    else if (key == "sort_dir")
      RETURN_IF_ERROR(sort.AddDirection(value));
    else
      RETURN_IF_ERROR(AddFilter(key, value, &query));
  }
  RETURN_IF_ERROR(sort.Finish(&query));
  if (query.sort.size() > kMaxListTerms || query.names.size() > kMaxListTerms ||
      query.ids.size() > kMaxListTerms)
    return Bad("A list may have at most " + std::to_string(kMaxListTerms) + " values.");
  return query;
}

std::string ListLink(const Request& request, std::string_view marker) {
  std::string link = "/v2/images";
  char separator = '?';
  auto append = [&](std::string_view key, std::string_view value) {
    link.push_back(separator);
    separator = '&';
    AppendEncoded(key, &link);
    link.push_back('=');
    AppendEncoded(value, &link);
  };
  for (const auto& [key, value] : request.query)
    if (key != "marker") append(key, value);
  if (!marker.empty()) append("marker", marker);
  return link;
}

}  // namespace imaged
