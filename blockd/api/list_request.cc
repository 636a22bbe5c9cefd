#include "blockd/api/list_request.h"

#include <algorithm>
#include <optional>

#include "base/text.h"
#include "blockd/api/body.h"
#include "blockd/api/errors.h"

namespace blockd::api {
namespace {

using base::Result;
using SortKeys = std::span<const std::string_view>;

constexpr size_t kMaxSortTerms = 8;
constexpr std::string_view kBlanks = " ";

Result<size_t> ParseCount(std::string_view text, std::string_view name) {
  const std::optional<size_t> value = base::ParseNumber<size_t>(text);
  if (value.has_value()) return *value;
  return Bad(std::string(name) + " param must be an integer from 0 on, not '" + Echo(text) + "'.");
}

Result<SortTerm> ParseTerm(std::string_view key, std::string_view direction, SortKeys keys) {
  SortTerm term;
  term.key = std::string(base::Trim(key, kBlanks));
  if (std::find(keys.begin(), keys.end(), term.key) == keys.end())
    return Bad("Invalid input received: Invalid sort key: " + Echo(term.key) + ".");
  direction = base::Trim(direction, kBlanks);
  if (direction != "asc" && direction != "desc" && !direction.empty())
    return Bad("Invalid input received: Unknown sort direction, must be 'desc' or 'asc'.");
  term.descending = direction != "asc";
  return term;
}

Result<void> CheckTerms(const std::vector<SortTerm>& terms) {
  if (terms.size() <= kMaxSortTerms) return {};
  return Bad("A list may be sorted by at most " + std::to_string(kMaxSortTerms) + " keys.");
}

Result<std::vector<SortTerm>> ParseSort(std::string_view text, SortKeys keys) {
  std::vector<SortTerm> terms;
  while (true) {
    const size_t comma = text.find(',');
    const std::string_view part = text.substr(0, comma);
    const size_t colon = part.find(':');
    const std::string_view direction =
        colon == std::string_view::npos ? std::string_view() : part.substr(colon + 1);
    ASSIGN_OR_RETURN(SortTerm term, ParseTerm(part.substr(0, colon), direction, keys));
    terms.push_back(std::move(term));
    RETURN_IF_ERROR(CheckTerms(terms));
    if (comma == std::string_view::npos) return terms;
    text.remove_prefix(comma + 1);
  }
}

Result<std::vector<SortTerm>> ParseClassicSort(std::string_view key, std::string_view direction,
                                               SortKeys keys) {
  if (key.empty()) key = "created_at";
  ASSIGN_OR_RETURN(SortTerm term, ParseTerm(key, direction, keys));
  return std::vector<SortTerm>{std::move(term)};
}

bool IsControl(std::string_view key) {
  for (std::string_view known :
       {"limit", "offset", "marker", "sort", "sort_key", "sort_dir", "all_tenants", "with_count"})
    if (key == known) return true;
  return false;
}

}  // namespace

std::optional<std::string_view> ListRequest::Filter(std::string_view name) const {
  for (const auto& [key, value] : filters)
    if (key == name) return value;
  return std::nullopt;
}

base::Error NoMarker(std::string_view marker) {
  return base::Error(base::Code::kNotFound, "Marker " + Echo(marker) + " could not be found.");
}

Result<ListRequest> ParseList(const Call& call, SortKeys sort_keys) {
  ListRequest list;
  const base::http::Request& request = call.request;
  if (const auto limit = request.Query("limit"); limit.has_value()) {
    ASSIGN_OR_RETURN(const size_t wanted, ParseCount(*limit, "limit"));
    list.limit = std::min(wanted, kMaxPage);
  }
  if (const auto offset = request.Query("offset"); offset.has_value()) {
    ASSIGN_OR_RETURN(list.offset, ParseCount(*offset, "offset"));
  }
  list.marker = std::string(request.Query("marker").value_or(""));
  const auto sort = request.Query("sort");
  const auto key = request.Query("sort_key");
  const auto direction = request.Query("sort_dir");
  if (sort.has_value() && (key.has_value() || direction.has_value()))
    return Bad(
        "Invalid input received: The 'sort_key' and 'sort_dir' parameters are deprecated "
        "and cannot be used with the 'sort' parameter.");
  if (sort.has_value()) {
    ASSIGN_OR_RETURN(list.sort, ParseSort(*sort, sort_keys));
  } else {
    ASSIGN_OR_RETURN(list.sort,
                     ParseClassicSort(key.value_or(""), direction.value_or(""), sort_keys));
  }
  if (const auto all = request.Query("all_tenants"); all.has_value() && !all->empty()) {
    ASSIGN_OR_RETURN(list.all_tenants, ParseBool(*all, "all_tenants"));
  }
  if (const auto count = request.Query("with_count"); count.has_value()) {
    ASSIGN_OR_RETURN(list.with_count, ParseBool(*count, "with_count"));
  }
  for (const auto& [name, value] : request.query)
    if (!IsControl(name)) list.filters.emplace_back(name, value);
  return list;
}

void AppendNextLink(const Call& call, const ListRequest& list, std::string_view collection,
                    size_t count, std::string_view last_id, base::JsonObject* body) {
  if (count == 0 || count < list.limit) return;
  const std::string_view target = call.request.target;
  const size_t mark = target.find('?');
  std::string href = call.request.base_url + std::string(target.substr(0, mark)) + "?";
  std::string_view query = mark == std::string_view::npos ? "" : target.substr(mark + 1);
  while (!query.empty()) {
    const std::string_view field = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(query.size(), field.size() + 1));
    if (!field.starts_with("marker=") && !field.starts_with("offset="))
      href.append(field).append("&");
  }
  href.append("marker=").append(last_id);
  base::JsonArray links;
  links.push_back(base::JsonObject{{"rel", "next"}, {"href", std::move(href)}});
  body->emplace(std::string(collection) + "_links", std::move(links));
}

}  // namespace blockd::api
