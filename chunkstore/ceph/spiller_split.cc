#include <algorithm>
#include <deque>
#include <utility>

#include "chunkstore/ceph/spiller.h"

// The part of Spiller that splits shards.

namespace chunkstore::ceph {

using base::Code;
using base::Error;
using base::Result;

Result<uint64_t> Spiller::Count(const std::string& object, std::string* middle) {
  // Every n-th key, n growing: the middle one of these is near enough to the middle.
  std::vector<std::string> sample;
  uint64_t spacing = 1;
  uint64_t keys = 0;
  ObjectRead read;
  read.page = options_.page_keys;
  read.after = BeforeKey("");
  for (;;) {
    ASSIGN_OR_RETURN(ObjectView view, objects_.Read(object, read));
    for (auto& entry : view.page) {
      if (keys++ % spacing == 0) sample.push_back(entry.first);
      if (sample.size() < 1024) continue;
      for (size_t i = 0; i < sample.size() / 2; ++i) sample[i] = std::move(sample[2 * i]);
      sample.resize(sample.size() / 2);
      spacing *= 2;
    }
    if (!view.more || view.page.empty()) break;
    read.after = view.page.back().first;
  }
  if (!sample.empty()) {
    ASSIGN_OR_RETURN(*middle, KeyOf(sample[sample.size() / 2]));
  }
  return keys;
}

Result<void> Spiller::SplitIfLarge(const std::string& object) {
  std::deque<std::string> objects = {object};
  while (!objects.empty()) {
    const std::string next = std::move(objects.front());
    objects.pop_front();
    std::string middle;
    ASSIGN_OR_RETURN(uint64_t keys, Count(next, &middle));
    auto at = std::find_if(directory_.shards.begin(), directory_.shards.end(),
                           [&next](const Directory::Shard& shard) { return shard.object == next; });
    if (at == directory_.shards.end()) continue;
    if (keys <= options_.shard_keys || middle <= at->range.from) {
      ObjectWrite write = ToShard();
      write.set = {{kCountKey, EncodeNumber(keys)}};
      RETURN_IF_ERROR(WriteMine(next, write));
      continue;
    }
    const auto index = static_cast<size_t>(at - directory_.shards.begin());
    RETURN_IF_ERROR(Split(index, middle, keys));
    objects.push_back(next);
    objects.push_back(directory_.shards[index + 1].object);
  }
  return {};
}

Result<void> Spiller::Split(size_t index, const std::string& middle, uint64_t keys) {
  const Directory::Shard whole = directory_.shards[index];
  const Directory::Shard upper{.range = {.from = middle, .to = whole.range.to},
                               .object = NewShardName(partition_)};
  const Directory::Shard lower{.range = {.from = whole.range.from, .to = middle},
                               .object = whole.object};
  RETURN_IF_ERROR(MakeShard(upper, keys));
  RETURN_IF_ERROR(Copy(whole.object, BeforeKey(middle), upper.object));
  Directory directory = directory_;
  directory.pending.clear();
  directory.shards[index] = lower;
  directory.shards.insert(directory.shards.begin() + static_cast<ptrdiff_t>(index) + 1, upper);
  RETURN_IF_ERROR(WriteDirectory(std::move(directory)));
  // Nobody comes here any more for the upper half, but for who read the old directory: the new
  // range sends them back.
  ObjectWrite cut = ToShard();
  cut.set = {{kRangeKey, EncodeRange(lower.range)}};
  cut.remove_range = {BeforeKey(middle), kAfterKeys};
  return WriteMine(lower.object, cut);
}

Result<void> Spiller::Copy(const std::string& from, const std::string& after,
                           const std::string& to) {
  constexpr size_t kMaxCopyBytes = 8 * 1024 * 1024;
  ObjectRead read;
  read.page = std::max<size_t>(1, options_.page_keys / 2);
  read.after = after;
  for (;;) {
    ASSIGN_OR_RETURN(ObjectView view, objects_.Read(from, read));
    ObjectWrite write = ToShard();
    size_t bytes = 0;
    for (const Entry& entry : view.page) {
      if (bytes > kMaxCopyBytes) {
        RETURN_IF_ERROR(WriteMine(to, write));
        write = ToShard();
        bytes = 0;
      }
      bytes += entry.first.size() + entry.second.size();
      write.set.insert(entry);
    }
    if (!write.set.empty()) RETURN_IF_ERROR(WriteMine(to, write));
    if (!view.more || view.page.empty()) return {};
    read.after = view.page.back().first;
  }
}

}  // namespace chunkstore::ceph
