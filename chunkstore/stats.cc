#include <algorithm>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "chunkstore/chunk_store_impl.h"

namespace chunkstore {
namespace {

using base::Code;
using base::Digest256;
using base::Error;
using base::Result;

// What would go if some pages lost their last reference: walks down from them, counting for every
// child how many of its references come from pages that go. A child whose references all do goes as
// well. Linear in what goes and its children; remembers only the children that somebody else may
// keep.
class Departures {
 public:
  explicit Departures(ChunkStoreImpl& store) : store_(store) {}

  struct Sum {
    uint64_t plain_bytes = 0;
    uint64_t stored_bytes = 0;      // of chunks
    uint64_t all_stored_bytes = 0;  // pages as well
    uint64_t chunks = 0;
  };
  const Sum& sum() const { return sum_; }

  // One reference on `id` goes; with it what only it kept.
  Result<void> Drop(const Digest256& id) {
    RETURN_IF_ERROR(DropOne(id));
    return Settle();
  }
  // Something without references; Settle finds what only such things kept.
  void Gone(const Digest256& id, const Record& record) { Count(id, record); }
  Result<void> Settle() {
    while (!pages_.empty()) {
      const Digest256 page_id = pages_.back();
      pages_.pop_back();
      Result<std::shared_ptr<const MapPage>> page = store_.ReadPage(page_id);
      // A corrupt page's children are unknown: they stay, as they would with the collector.
      if (!page.has_value() && page.error().code() == Code::kCorruption) continue;
      RETURN_IF_ERROR(page);
      for (const Digest256& child : (*page)->Children()) {
        RETURN_IF_ERROR(DropOne(child));
      }
    }
    return {};
  }

 private:
  Result<void> DropOne(const Digest256& id) {
    ASSIGN_OR_RETURN(const std::optional<Record> record, store_.references().Find(id));
    if (!record) return {};
    if (record->count > 1 && ++dropped_[id] < record->count) return {};
    dropped_.erase(id);
    Count(id, *record);
    return {};
  }

  void Count(const Digest256& id, const Record& record) {
    sum_.all_stored_bytes += record.stored_length;
    if (record.kind == BlobKind::kPage) pages_.push_back(id);
    if (record.kind != BlobKind::kChunk) return;
    ++sum_.chunks;
    sum_.plain_bytes += record.plain_length;
    sum_.stored_bytes += record.stored_length;
  }

  ChunkStoreImpl& store_;
  Sum sum_;
  std::vector<Digest256> pages_;  // that go, and whose children were not looked at yet
  std::unordered_map<Digest256, uint64_t> dropped_;
};

// Climbs from pages and chunks to the holders above them.
class Climber {
 public:
  Climber(ChunkStoreImpl& store, std::unordered_map<Token, std::string> names, Token own)
      : store_(store), names_(std::move(names)), own_(own) {}

  // Names of other holders, at most `limit`, sorted.
  std::vector<std::string> TakeNames() {
    return std::vector<std::string>(found_.begin(), found_.end());
  }
  bool full(size_t limit) const { return found_.size() >= limit; }

  // A page that is known already: not climbed through again. False if it was.
  bool Mark(const Digest256& page) { return seen_.insert(page).second; }

  Result<void> Climb(const Digest256& from) {
    std::vector<Digest256> todo = {from};
    while (!todo.empty() && !full(kMaxSharedWith)) {
      const Digest256 id = todo.back();
      todo.pop_back();
      RETURN_IF_ERROR(Above(id, &todo));
    }
    return {};
  }

 private:
  Result<void> Above(const Digest256& id, std::vector<Digest256>* todo) {
    std::string after;
    while (true) {
      ASSIGN_OR_RETURN(const auto tags, store_.references().Tags(id, after, kTagBatch));
      for (const std::string& tag : tags) {
        ASSIGN_OR_RETURN(const ParsedTag parsed, ParseTag(tag));
        if (parsed.kind == 'p' && Mark(parsed.page)) todo->push_back(parsed.page);
        if (parsed.kind != 'h' || parsed.token == own_ || full(kMaxSharedWith)) continue;
        const auto name = names_.find(parsed.token);
        if (name != names_.end()) found_.insert(name->second);
      }
      if (tags.size() < kTagBatch) return {};
      after = tags.back();
    }
  }

  static constexpr size_t kTagBatch = 1024;
  ChunkStoreImpl& store_;
  const std::unordered_map<Token, std::string> names_;
  const Token own_;
  std::unordered_set<Digest256> seen_;
  std::set<std::string> found_;
};

// Everything in a content that somebody else refers to as well, pages first.
Result<void> ClimbFromAll(ChunkStoreImpl& store, const Digest256& root, Climber& climber) {
  std::vector<Digest256> pages = {root};
  climber.Mark(root);
  RETURN_IF_ERROR(climber.Climb(root));
  while (!pages.empty() && !climber.full(kMaxSharedWith)) {
    const Digest256 id = pages.back();
    pages.pop_back();
    ASSIGN_OR_RETURN(const std::shared_ptr<const MapPage> page, store.ReadPage(id));
    for (const Digest256& child : page->Children()) {
      if (page->level > 0 && climber.Mark(child)) pages.push_back(child);
      ASSIGN_OR_RETURN(const std::optional<Record> record, store.references().Find(child));
      if (record && record->count > 1) RETURN_IF_ERROR(climber.Climb(child));
    }
  }
  return {};
}

}  // namespace

Result<StoreStats> ChunkStoreImpl::Stats() {
  StoreStats stats;
  Departures garbage(*this);
  for (size_t i = 0; i < kRecordPartitions; ++i) {
    RETURN_IF_ERROR(
        references_.VisitRecords(i, [&](const Digest256& id, const Record& record) -> Result<bool> {
          stats.physical_bytes += record.stored_length;
          if (record.kind == BlobKind::kChunk) {
            ++stats.chunks;
            stats.unique_bytes += record.plain_length;
            stats.compressed_bytes += record.stored_length;
          }
          if (record.count == 0) garbage.Gone(id, record);
          return true;
        }));
    ASSIGN_OR_RETURN(const std::vector<Doomed> doomed, references_.ListDoomed(i, SIZE_MAX));
    for (const Doomed& one : doomed) {
      stats.physical_bytes += one.stored_length;
      stats.garbage_bytes += one.stored_length;
    }
  }
  RETURN_IF_ERROR(garbage.Settle());
  stats.chunks -= garbage.sum().chunks;
  stats.unique_bytes -= garbage.sum().plain_bytes;
  stats.compressed_bytes -= garbage.sum().stored_bytes;
  stats.garbage_bytes += garbage.sum().all_stored_bytes;
  RETURN_IF_ERROR(VisitHolders([&](std::string_view, const HolderRecord& record) {
    if (!record.held) return;
    ++stats.holders;
    stats.logical_bytes += record.size_bytes;
    stats.nonzero_bytes += record.nonzero_bytes;
  }));
  return stats;
}

Result<HolderStats> ChunkStoreImpl::StatsOf(std::string_view holder) {
  ASSIGN_OR_RETURN(const std::optional<HolderRecord> record, GetHolder(holder));
  if (!record || !record->held)
    return Error(Code::kNotFound, "nothing is held under \"" + std::string(holder) + "\"");
  // What waits for the collector keeps nothing: it goes first.
  Departures departures(*this);
  for (size_t i = 0; i < kRecordPartitions; ++i) {
    ASSIGN_OR_RETURN(const std::vector<Digest256> garbage, references_.ListGarbage(i));
    for (const Digest256& id : garbage) {
      ASSIGN_OR_RETURN(const std::optional<Record> dead, references_.Find(id));
      if (dead && dead->count == 0) departures.Gone(id, *dead);
    }
  }
  RETURN_IF_ERROR(departures.Settle());
  const Departures::Sum before = departures.sum();
  RETURN_IF_ERROR(departures.Drop(record->root));

  HolderStats stats;
  stats.logical_bytes = record->size_bytes;
  stats.nonzero_bytes = record->nonzero_bytes;
  stats.unique_bytes = departures.sum().plain_bytes - before.plain_bytes;
  stats.unique_compressed_bytes = departures.sum().stored_bytes - before.stored_bytes;
  stats.shared_bytes = stats.nonzero_bytes - std::min(stats.nonzero_bytes, stats.unique_bytes);
  std::unordered_map<Token, std::string> names;
  RETURN_IF_ERROR(VisitHolders([&](std::string_view name, const HolderRecord& other) {
    if (other.held) names.emplace(other.token, name);
  }));
  Climber climber(*this, std::move(names), record->token);
  RETURN_IF_ERROR(ClimbFromAll(*this, record->root, climber));
  stats.shared_with = climber.TakeNames();
  return stats;
}

Result<std::vector<std::string>> ChunkStoreImpl::HoldersAbove(const Digest256& id) {
  std::unordered_map<Token, std::string> names;
  RETURN_IF_ERROR(VisitHolders([&](std::string_view name, const HolderRecord& other) {
    if (other.held) names.emplace(other.token, name);
  }));
  Climber climber(*this, std::move(names), 0);
  RETURN_IF_ERROR(climber.Climb(id));
  return climber.TakeNames();
}

Result<void> ChunkStoreImpl::VisitHolders(const HolderVisitor& visit) {
  Result<void> decoded;
  RETURN_IF_ERROR(meta_.Scan(kHoldersPartition, "h", PrefixEnd("h"), SIZE_MAX,
                             [&](std::string_view key, std::string_view value) {
                               const Result<HolderRecord> record = DecodeHolder(value);
                               if (record.has_value())
                                 visit(key.substr(1), *record);
                               else
                                 decoded = record.error();
                               return record.has_value();
                             }));
  return decoded;
}

}  // namespace chunkstore
