#include <algorithm>
#include <deque>
#include <utility>

#include "chunkstore/ceph/omap_meta_store.h"
#include "chunkstore/ceph/scanner.h"

// The scans of OmapMetaStore.

namespace chunkstore::ceph {

using base::Result;

Result<void> OmapMetaStore::Scan(std::string_view partition, std::string_view from,
                                 std::string_view to, size_t limit, const Visitor& visit) {
  Scanner scanner(*objects_, heads_, partition, from, to, options_.page_keys);
  while (limit > 0 && !scanner.at_end()) {
    ASSIGN_OR_RETURN(auto entries, scanner.Next(limit));
    for (const auto& [key, value] : entries) {
      if (limit == 0 || !visit(key, value)) return {};
      --limit;
    }
  }
  return {};
}

namespace {

// The last shard's beginning in (from, to), or `from`.
std::string LastShard(const Layout* layout, std::string_view from, std::string_view to) {
  std::string last(from);
  if (layout == nullptr) return last;
  for (const Directory::Shard& shard : layout->directory.shards) {
    if (!to.empty() && shard.range.from >= to) break;
    if (shard.range.from > last) last = shard.range.from;
  }
  return last;
}

}  // namespace

Result<OmapMetaStore::Tail> OmapMetaStore::ReadTail(std::string_view partition,
                                                    std::string_view from, std::string_view to,
                                                    size_t limit) {
  Tail tail;
  const std::string shard = LastShard(heads_.Cached(partition).get(), from, to);
  tail.from = posts_.Before(partition, shard, to);
  Scanner scanner(*objects_, heads_, partition, tail.from, to, options_.page_keys);
  std::vector<std::string> posts;
  size_t seen = 0;
  while (!scanner.at_end()) {
    ASSIGN_OR_RETURN(auto entries, scanner.Next(options_.page_keys));
    for (auto& entry : entries) {
      if (++seen % ReversePosts::kSpacing == 0) posts.push_back(entry.first);
      tail.entries.push_back(std::move(entry));
      if (tail.entries.size() > limit) tail.entries.pop_front();
    }
  }
  // Not all of what was read is given back: the rest is before the first that is.
  if (seen > limit) tail.from = tail.entries.front().first;
  if (seen == 0 && tail.from != from) posts_.Forget(partition, tail.from);
  posts_.Learn(partition, std::move(posts));
  return tail;
}

Result<void> OmapMetaStore::ScanReverse(std::string_view partition, std::string_view from,
                                        std::string_view to, size_t limit, const Visitor& visit) {
  if (!to.empty() && to <= from) return {};
  std::string end(to);
  while (limit > 0) {
    ASSIGN_OR_RETURN(Tail tail, ReadTail(partition, from, end, std::min(limit, kReverseKeys)));
    for (auto entry = tail.entries.rbegin(); entry != tail.entries.rend(); ++entry) {
      if (!visit(entry->first, entry->second)) return {};
    }
    limit -= tail.entries.size();
    // (An empty end would be no end at all.)
    if (tail.from <= from) return {};
    end = tail.from;
  }
  return {};
}

}  // namespace chunkstore::ceph
