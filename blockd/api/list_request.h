#pragma once

#include <algorithm>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "blockd/api/route.h"

// What the query string of a list asks for, the same for volumes, snapshots, types and all others.

namespace blockd::api {

constexpr size_t kMaxPage = 1000;  // also of a list without a limit

struct SortTerm {
  std::string key;
  bool descending = true;
  bool operator==(const SortTerm&) const = default;
};

struct ListRequest {
  size_t limit = kMaxPage;
  size_t offset = 0;
  std::string marker;          // the id of the last one seen; empty: from the start
  std::vector<SortTerm> sort;  // never empty; whoever sorts breaks ties by id
  bool all_tenants = false;    // asked for; who may have it is the handler's to check
  bool with_count = false;
  // What else stands in the query, in order: the handler knows which filters there are.
  std::vector<std::pair<std::string, std::string>> filters;

  // The first filter of that name.
  std::optional<std::string_view> Filter(std::string_view name) const;
};

// limit, offset, marker, sort ("name:asc,size") or sort_key with sort_dir, all_tenants, with_count.
// `sort_keys` are allowed; the default is created_at, newest first. kInvalidArgument, in Cinder's
// words where clients know them.
base::Result<ListRequest> ParseList(const Call& call, std::span<const std::string_view> sort_keys);

// "<collection>_links" with the next page's address, if a page of `count` that ends with `last_id`
// (which needs no encoding) is full; nothing otherwise.
void AppendNextLink(const Call& call, const ListRequest& list, std::string_view collection,
                    size_t count, std::string_view last_id, base::JsonObject* body);

// A page of `items`, which are all that there are, in order: from behind the marker and the offset
// on. `id_of` tells an item's id. kNotFound for a marker that is not there.
template <typename Item, typename IdOf>
base::Result<std::vector<Item>> PageOf(const ListRequest& list, std::vector<Item> items,
                                       const IdOf& id_of);

// --- implementation ---

base::Error NoMarker(std::string_view marker);

template <typename Item, typename IdOf>
base::Result<std::vector<Item>> PageOf(const ListRequest& list, std::vector<Item> items,
                                       const IdOf& id_of) {
  size_t first = 0;
  if (!list.marker.empty()) {
    while (first < items.size() && id_of(items[first]) != list.marker) ++first;
    if (first == items.size()) return NoMarker(list.marker);
    ++first;
  }
  first = list.offset < items.size() - first ? first + list.offset : items.size();
  const size_t count = std::min(list.limit, items.size() - first);
  std::vector<Item> page;
  page.reserve(count);
  for (size_t i = 0; i < count; ++i) page.push_back(std::move(items[first + i]));
  return page;
}

}  // namespace blockd::api
