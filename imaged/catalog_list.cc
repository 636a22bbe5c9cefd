#include <algorithm>
#include <queue>
#include <set>

#include "imaged/catalog.h"
#include "imaged/index.h"

// Lists. A query names the scopes of the index in one of which each image of its answer stands. If
// the order asked for is one that the index keeps, the scopes' entries are merged and the walk ends
// with the page; otherwise all candidates are looked at, and only a page of them is kept.

namespace imaged {
namespace {

using base::Code;
using base::Error;
using base::Result;

constexpr size_t kMinBatch = 32;
constexpr size_t kMaxBatch = 1024;

// Walks one scope's entries in order, in batches.
class Cursor {
 public:
  // [from, to) are suffixes; an empty `to` means the scope's end.
  Cursor(chunkstore::MetaStore& meta, std::string scope, std::string_view from, std::string_view to,
         bool descending, size_t batch)
      : meta_(meta),
        scope_(std::move(scope)),
        from_(scope_ + std::string(from)),
        to_(to.empty() ? chunkstore::PrefixEnd(scope_) : scope_ + std::string(to)),
        descending_(descending),
        batch_(std::clamp(batch, kMinBatch, kMaxBatch)) {}

  Result<void> Advance() {
    if (++next_ < suffixes_.size() || ended_) return {};
    return Fill();
  }
  Result<void> Fill() {
    suffixes_.clear();
    next_ = 0;
    auto visit = [this](std::string_view key, std::string_view) {
      suffixes_.emplace_back(key.substr(scope_.size()));
      return true;
    };
    if (descending_)
      RETURN_IF_ERROR(meta_.ScanReverse(kImagesPartition, from_, to_, batch_, visit));
    else
      RETURN_IF_ERROR(meta_.Scan(kImagesPartition, from_, to_, batch_, visit));
    ended_ = suffixes_.size() < batch_;
    if (suffixes_.empty()) return {};
    if (descending_)
      to_ = scope_ + suffixes_.back();
    else
      from_ = scope_ + suffixes_.back() + '\0';
    batch_ = std::min(batch_ * 2, kMaxBatch);
    return {};
  }
  // Null at the end.
  const std::string* Suffix() const {
    return next_ < suffixes_.size() ? &suffixes_[next_] : nullptr;
  }

 private:
  chunkstore::MetaStore& meta_;
  const std::string scope_;
  std::string from_;
  std::string to_;
  const bool descending_;
  size_t batch_;
  std::vector<std::string> suffixes_;
  size_t next_ = 0;
  bool ended_ = false;
};

// Several scopes as one sequence; an image that stands in more than one comes once.
class Merge {
 public:
  Merge(std::vector<Cursor> cursors, bool descending)
      : cursors_(std::move(cursors)), descending_(descending) {}

  Result<void> Start() {
    for (Cursor& cursor : cursors_) RETURN_IF_ERROR(cursor.Fill());
    return {};
  }
  // The next id; nothing at the end.
  Result<std::optional<std::string>> Next() {
    const std::string* best = nullptr;
    for (const Cursor& cursor : cursors_) {
      const std::string* suffix = cursor.Suffix();
      if (suffix == nullptr) continue;
      if (best == nullptr || (descending_ ? *suffix > *best : *suffix < *best)) best = suffix;
    }
    if (best == nullptr) return std::optional<std::string>();
    const std::string taken = *best;
    for (Cursor& cursor : cursors_)
      if (cursor.Suffix() != nullptr && *cursor.Suffix() == taken)
        RETURN_IF_ERROR(cursor.Advance());
    return std::optional<std::string>(IdOfIndexKey(taken));
  }

 private:
  std::vector<Cursor> cursors_;
  const bool descending_;
};

// The index order that gives this query's pages as they are, if one does.
std::optional<IndexOrder> IndexFor(const ListQuery& query) {
  if (query.sort.empty()) return IndexOrder::kCreated;
  if (query.sort.size() > 1 || query.sort[0].descending != query.tie_descending)
    return std::nullopt;
  if (query.sort[0].key == SortKey::kCreatedAt) return IndexOrder::kCreated;
  if (query.sort[0].key == SortKey::kName) return IndexOrder::kName;
  return std::nullopt;
}

bool Descending(const ListQuery& query) {
  return query.sort.empty() ? query.tie_descending : query.sort[0].descending;
}

}  // namespace

namespace {

using GetImage = std::function<Result<Image>(std::string_view id)>;

// Calls `take` with each image that matches, in the index's order, until it says false.
Result<void> Walk(const ListQuery& query, const GetImage& get, Merge merge,
                  const std::function<bool(Image)>& take) {
  RETURN_IF_ERROR(merge.Start());
  while (true) {
    ASSIGN_OR_RETURN(const std::optional<std::string> id, merge.Next());
    if (!id.has_value()) return {};
    Result<Image> image = get(*id);
    if (!image.has_value()) {
      if (image.error().code() == Code::kNotFound) continue;  // deleted since
      return image.error();
    }
    if (Matches(query, *image) && !take(*std::move(image))) return {};
  }
}

// Keeps the first `limit` of what it is given, in the query's order.
class Page {
 public:
  Page(const ListQuery& query, const Image* marker) : query_(query), marker_(marker) {}

  void Add(Image image) {
    if (marker_ != nullptr && !ComesBefore(query_, *marker_, image)) return;
    auto before = [this](const Image& a, const Image& b) { return ComesBefore(query_, a, b); };
    if (heap_.size() == query_.limit) {
      if (heap_.empty() || !before(image, heap_.front())) return;
      std::pop_heap(heap_.begin(), heap_.end(), before);
      heap_.back() = std::move(image);
    } else {
      heap_.push_back(std::move(image));
    }
    std::push_heap(heap_.begin(), heap_.end(), before);
  }
  std::vector<Image> Take() && {
    auto before = [this](const Image& a, const Image& b) { return ComesBefore(query_, a, b); };
    std::sort_heap(heap_.begin(), heap_.end(), before);
    return std::move(heap_);
  }

 private:
  const ListQuery& query_;
  const Image* marker_;
  std::vector<Image> heap_;  // the last one of the page on top
};

std::vector<std::string> Unique(const std::vector<std::string>& texts) {
  const std::set<std::string> unique(texts.begin(), texts.end());
  return {unique.begin(), unique.end()};
}

}  // namespace

Result<std::vector<Image>> Catalog::List(const ListQuery& query) {
  std::optional<Image> marker;
  if (!query.marker.empty()) {
    Result<Image> found = Get(query.marker);
    if (!found.has_value()) {
      if (found.error().code() != Code::kNotFound) return found.error();
      return Error(Code::kInvalidArgument, found.error().message());
    }
    marker = *std::move(found);
  }
  if (query.limit == 0) return std::vector<Image>();
  const GetImage get = [this](std::string_view id) { return Get(id); };
  Page page(query, marker.has_value() ? &*marker : nullptr);
  auto collect = [&page](Image image) {
    page.Add(std::move(image));
    return true;
  };

  if (!query.ids.empty()) {
    for (const std::string& id : Unique(query.ids)) {
      Result<Image> image = get(id);
      if (!image.has_value() && image.error().code() != Code::kNotFound) return image.error();
      if (image.has_value() && Matches(query, *image)) page.Add(*std::move(image));
    }
    return std::move(page).Take();
  }

  const bool descending = Descending(query);
  auto cursors = [&](IndexOrder order, std::string_view from, std::string_view to, size_t batch) {
    std::vector<Cursor> made;
    for (std::string& scope : ScopesOf(query, order))
      made.emplace_back(meta_, std::move(scope), from, to, descending, batch);
    return made;
  };

  if (!query.names.empty()) {
    // Two names may share a range: each image is looked at once.
    std::set<std::string> prefixes;
    for (const std::string& name : query.names) prefixes.insert(NamePrefix(name));
    for (const std::string& prefix : prefixes) {
      Merge merge(cursors(IndexOrder::kName, prefix, chunkstore::PrefixEnd(prefix), kMinBatch),
                  descending);
      RETURN_IF_ERROR(Walk(query, get, std::move(merge), collect));
    }
    return std::move(page).Take();
  }

  const std::optional<IndexOrder> order = IndexFor(query);
  if (!order.has_value()) {
    Merge merge(cursors(IndexOrder::kCreated, {}, {}, kMaxBatch), descending);
    RETURN_IF_ERROR(Walk(query, get, std::move(merge), collect));
    return std::move(page).Take();
  }

  // The page begins beyond the marker's own place.
  std::string from;
  std::string to;
  if (marker.has_value()) {
    const std::string place = IndexSuffix(*order, *marker);
    if (descending)
      to = place;
    else
      from = place + '\0';
  }
  std::vector<Image> images;
  auto append = [&](Image image) {
    images.push_back(std::move(image));
    return images.size() < query.limit;
  };
  Merge merge(cursors(*order, from, to, query.limit), descending);
  RETURN_IF_ERROR(Walk(query, get, std::move(merge), append));
  return images;
}

}  // namespace imaged
