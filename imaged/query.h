#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "imaged/image.h"

// What a list asks for, apart from how it came in (handlers_images.cc reads it from a query string)
// and from how it is answered (catalog.cc).

namespace imaged {

enum class SortKey : uint8_t {
  kName,
  kStatus,
  kContainerFormat,
  kDiskFormat,
  kSize,
  kId,
  kCreatedAt,
  kUpdatedAt,
};
struct SortTerm {
  SortKey key = SortKey::kCreatedAt;
  bool descending = true;
};

// Names are compared by their first bytes, as many as an index entry has room for; then creation
// decides.
constexpr size_t kNameOrderBytes = 200;

// Whose eyes a list has.
struct Viewer {
  std::string project_id;  // empty: none
  bool is_admin = false;   // sees all projects' images
};

enum class TimeOp : uint8_t { kEq, kNeq, kGt, kGte, kLt, kLte };

struct ListQuery {
  Viewer viewer;

  // Which images at all. Without a visibility: all that the viewer sees but other projects'
  // community images.
  std::optional<Visibility> visibility;
  bool all_visibilities = false;  // visibility=all
  std::optional<MemberStatus> member_status =
      MemberStatus::kAccepted;  // of shared images; nothing: any

  // Each condition must hold; within one, any of the values.
  std::vector<std::string> names, ids, statuses, disk_formats, container_formats;
  std::vector<std::pair<std::string, std::string>>
      equal;  // another attribute or a custom property: its value
  std::vector<std::string> tags;
  std::optional<int64_t> size_min, size_max, min_disk_min, min_disk_max, min_ram_min, min_ram_max;
  struct TimeTerm {
    TimeOp op = TimeOp::kEq;
    int64_t time_us = 0;  // whole seconds: what clients see
  };
  std::vector<TimeTerm> created_at, updated_at;
  std::optional<bool> is_protected;
  bool is_hidden = false;

  std::vector<SortTerm> sort;  // empty: newest first; creation and id break ties
  bool tie_descending = true;
  std::string marker;  // the id of the last one of the page before; empty: from the start
  size_t limit = 25;
};

// What `image` must be to appear in the query's pages: visible to the viewer, and every condition.
bool Matches(const ListQuery& query, const Image& image);

// The whole order: `sort`, then creation, then id. True if `a` comes before `b`.
bool ComesBefore(const ListQuery& query, const Image& a, const Image& b);

}  // namespace imaged
