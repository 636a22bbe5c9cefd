#include "chunkstore/ceph/omap_meta_store.h"

#include <utility>

#include <fmt/format.h>

namespace chunkstore::ceph {

using base::Code;
using base::Error;
using base::Result;

namespace {

bool IsCode(const Result<void>& result, Code code) {
  return !result && result.error().code() == code;
}

Error Unexpected(std::string_view partition) {
  return Error(Code::kConflict,
               fmt::format("a key in partition {} is not what was expected", partition));
}

// The last change of each key counts.
std::map<std::string, std::optional<std::string>> LastOf(
    const std::vector<MetaBatch::Change>& changes) {
  std::map<std::string, std::optional<std::string>> last;
  for (const auto& change : changes) last.insert_or_assign(change.key, change.value);
  return last;
}

// Nothing if two contradict each other.
std::optional<std::map<std::string, std::optional<std::string>>> AllOf(
    const std::vector<MetaBatch::Expectation>& expectations) {
  std::map<std::string, std::optional<std::string>> all;
  for (const auto& expected : expectations) {
    auto [at, is_new] = all.emplace(expected.key, expected.value);
    if (!is_new && at->second != expected.value) return std::nullopt;
  }
  return all;
}

std::optional<std::string> Plain(const std::string& stored) {
  if (IsTombstone(stored)) return std::nullopt;
  return stored.substr(1);
}

void AddChanges(const Layout& layout, const std::map<std::string, std::optional<std::string>>& all,
                ObjectWrite* write) {
  const std::string epoch = EncodeNumber(layout.epoch);
  write->expected.emplace(kEpochKey, epoch);
  write->expected.emplace(kClosedKey, "");
  // A batch that only expects is a write all the same: one guard for all keys at once.
  if (all.empty()) write->set.emplace(kEpochKey, epoch);
  for (const auto& [key, value] : all) {
    if (value) {
      write->set.emplace(StoredKey(key), StoredValue(*value));
    } else if (layout.directory.shards.empty()) {
      write->remove.insert(StoredKey(key));
    } else {
      write->set.emplace(StoredKey(key), kTombstone);  // a shard may have it
    }
  }
}

}  // namespace

OmapMetaStore::OmapMetaStore(std::unique_ptr<Objects> objects, const CephMetaOptions& options)
    : options_(options),
      objects_(std::move(objects)),
      heads_(*objects_),
      spills_(*objects_, heads_, options_) {}

Result<bool> OmapMetaStore::LookInShards(Found& found, const std::vector<std::string>& keys) {
  const Directory& directory = found.head.layout->directory;
  std::map<const Directory::Shard*, ObjectRead> reads;
  for (const std::string& key : keys) {
    found.in_shard.emplace(key, std::nullopt);
    if (directory.shards.empty()) continue;
    reads[&directory.ShardOf(key)].keys.insert(StoredKey(key));
  }
  for (auto& [shard, read] : reads) {
    read.keys.insert(kRangeKey);
    Result<ObjectView> view = objects_->Read(shard->object, read);
    if (!view && view.error().code() == Code::kNotFound) return false;
    if (!view) return std::move(view).error();
    const std::string* stored_range = view->Find(kRangeKey);
    if (stored_range == nullptr) return Error(Code::kCorruption, "a shard without a range");
    ASSIGN_OR_RETURN(Range range, DecodeRange(*stored_range));
    if (!range.Contains(shard->range)) return false;
    for (const auto& [stored_key, stored] : view->found) {
      if (stored_key == kRangeKey) continue;
      ASSIGN_OR_RETURN(std::string key, KeyOf(stored_key));
      RETURN_IF_ERROR(CheckStored(stored));
      found.in_shard[key] = stored;
    }
  }
  return true;
}

Result<std::optional<OmapMetaStore::Found>> OmapMetaStore::Look(
    std::string_view partition, const std::vector<std::string>& keys) {
  ObjectRead read;
  for (const std::string& key : keys) read.keys.insert(StoredKey(key));
  Found found;
  ASSIGN_OR_RETURN(found.head, heads_.Read(partition, std::move(read)));
  std::vector<std::string> missing;
  for (const std::string& key : keys) {
    const std::string* stored = found.head.open ? found.head.view.Find(StoredKey(key)) : nullptr;
    if (stored == nullptr) {
      missing.push_back(key);
    } else {
      RETURN_IF_ERROR(CheckStored(*stored));
      found.in_head.emplace(key, *stored);
    }
  }
  if (!found.head.open) {
    for (const std::string& key : missing) found.in_shard.emplace(key, std::nullopt);
    return std::optional<Found>(std::move(found));
  }
  ASSIGN_OR_RETURN(bool seen, LookInShards(found, missing));
  if (!seen) return std::optional<Found>();
  return std::optional<Found>(std::move(found));
}

Result<std::string> OmapMetaStore::Get(std::string_view partition, std::string_view key) {
  const std::string wanted(key);
  for (Attempts attempts; attempts.Next();) {
    ASSIGN_OR_RETURN(std::optional<Found> found, Look(partition, {wanted}));
    if (!found) continue;
    const Values& values = found->in_head.empty() ? found->in_shard : found->in_head;
    const std::optional<std::string>& stored = values.at(wanted);
    if (stored && !IsTombstone(*stored)) return stored->substr(1);
    return Error(Code::kNotFound, fmt::format("no such key in partition {}", partition));
  }
  return Attempts::GivenUp(partition);
}

Result<void> OmapMetaStore::Commit(std::string_view partition, const MetaBatch& batch) {
  RETURN_IF_ERROR(CheckBatch(partition, batch));
  std::optional<Values> expected = AllOf(batch.expectations());
  if (!expected) return Unexpected(partition);
  Values changes = LastOf(batch.changes());
  bool look_first = false;
  for (Attempts attempts; attempts.Next(); look_first = true) {
    Result<std::optional<bool>> done = TryCommit(partition, *expected, changes, look_first);
    if (!done) return done.error().Annotate(fmt::format("commit to partition {}", partition));
    if (!*done) continue;
    if (!**done) return Unexpected(partition);
    spills_.Changed(partition, changes.size());
    return {};
  }
  return Attempts::GivenUp(partition);
}

bool OmapMetaStore::Holds(const Found& found, const Values& expected,
                          std::map<std::string, std::string>* guards) {
  for (const auto& [key, value] : expected) {
    auto in_head = found.in_head.find(key);
    const bool is_in_head = in_head != found.in_head.end();
    const std::optional<std::string>& stored =
        is_in_head ? in_head->second : found.in_shard.at(key);
    if ((stored ? Plain(*stored) : std::nullopt) != value) return false;
    guards->emplace(StoredKey(key), is_in_head ? *stored : "");
    if (is_in_head || !found.head.open) continue;
    // The key may come to the head and go on to the shard until we write: absent here is not
    // enough.
    const std::string* moves = found.head.view.Find(kMovesKey);
    guards->emplace(kMovesKey, moves == nullptr ? "" : *moves);
  }
  return true;
}

std::vector<std::string> OmapMetaStore::KeysOf(const Values& values) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : values) keys.push_back(key);
  return keys;
}

Result<std::optional<bool>> OmapMetaStore::TryCommit(std::string_view partition,
                                                     const Values& expected, const Values& changes,
                                                     bool look_first) {
  const std::optional<bool> kAgain;
  ObjectWrite write;
  std::shared_ptr<const Layout> layout = heads_.Cached(partition);
  if (!look_first && layout != nullptr && layout->directory.shards.empty()) {
    // All keys are in the head: the write itself can tell.
    for (const auto& [key, value] : expected) {
      write.expected.emplace(StoredKey(key), value ? StoredValue(*value) : "");
    }
  } else {
    ASSIGN_OR_RETURN(std::optional<Found> found, Look(partition, KeysOf(expected)));
    if (!found) return kAgain;
    if (!Holds(*found, expected, &write.expected)) return std::optional(false);
    if (!found->head.open) {
      RETURN_IF_ERROR(heads_.Open(partition));
      return kAgain;
    }
    layout = found->head.layout;
  }
  AddChanges(*layout, changes, &write);
  Result<void> written = objects_->Write(HeadName(partition), write);
  if (written) return std::optional(true);
  bool again = IsCode(written, Code::kConflict) || IsCode(written, Code::kNotFound);
  if (!again) return std::move(written).error();
  return kAgain;
}

Result<std::vector<std::string>> OmapMetaStore::Partitions(std::string_view prefix) {
  ASSIGN_OR_RETURN(auto registered, heads_.Registered(prefix));
  std::vector<std::string> names;
  for (const auto& [name, registration] : registered) {
    bool has_keys = false;
    RETURN_IF_ERROR(Scan(name, "", "", 1, [&](std::string_view, std::string_view) {
      has_keys = true;
      return false;
    }));
    if (has_keys) {
      names.push_back(name);
    } else {
      RETURN_IF_ERROR(heads_.Retire(name, registration).Annotate("retire an empty partition"));
    }
  }
  return names;
}

std::unique_ptr<MetaStore> NewOmapMetaStore(std::unique_ptr<Objects> objects,
                                            const CephMetaOptions& options) {
  return std::make_unique<OmapMetaStore>(std::move(objects), options);
}

Result<std::unique_ptr<MetaStore>> OpenCephMetaStore(std::shared_ptr<Cluster> cluster,
                                                     const CephMetaOptions& options) {
  return NewOmapMetaStore(OpenRadosObjects(std::move(cluster)), options);
}

}  // namespace chunkstore::ceph
