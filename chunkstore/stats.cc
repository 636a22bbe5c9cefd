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

bool IsLenderAlone(const Record& record) { return record.count > 0 && !record.is_wanted(); }

// What would go if some pages lost their last reference: walks down from them, counting for every
// child how many of its references come from pages that go. A child whose references all do goes as
// well. Linear in what goes and its children; remembers only the children that somebody else may
// keep.
class Departures {
 public:
  explicit Departures(ChunkStoreImpl& store) : store_(store) {}

  struct Sum {
    uint64_t plain_bytes = 0;
    uint64_t borrowed_bytes = 0;    // of those
    uint64_t stored_bytes = 0;      // of chunks
    int64_t lender_bytes = 0;       // of what is kept for its blocks alone; less than 0: more is
    uint64_t all_stored_bytes = 0;  // pages as well
    uint64_t chunks = 0;
  };
  const Sum& sum() const { return sum_; }

  // One reference on `id` goes; with it what only it kept.
  Result<void> Drop(const Digest256& id) {
    RETURN_IF_ERROR(DropOne(id, By::kPage));
    return Settle();
  }
  // Something without references; Settle finds what only such things kept.
  void Gone(const Digest256& id, const Record& record) {
    CountChunk(record);
    CountBlob(id, record);
  }
  Result<void> Settle() {
    while (!referrers_.empty()) {
      const auto [id, record] = referrers_.back();
      referrers_.pop_back();
      const Result<std::vector<Digest256>> below = Below(id, record);
      // What a corrupt page or blob refers to is unknown: it stays, as it would with the collector.
      if (!below.has_value() && below.error().code() == Code::kCorruption) continue;
      RETURN_IF_ERROR(below);
      const By by = record.kind == BlobKind::kPage ? By::kPage : By::kBorrower;
      for (const Digest256& child : *below) {
        RETURN_IF_ERROR(DropOne(child, by));
      }
    }
    return {};
  }

 private:
  Result<std::vector<Digest256>> Below(const Digest256& id, const Record& record) {
    if (record.kind == BlobKind::kPage) {
      ASSIGN_OR_RETURN(const std::shared_ptr<const MapPage> page, store_.ReadPage(id));
      return page->Children();
    }
    ASSIGN_OR_RETURN(BlobTable table, store_.ReadTable({id, record.suffix}, record.stored_length));
    return std::move(table.owners);
  }

  enum class By { kPage, kBorrower };
  Result<void> DropOne(const Digest256& id, By by) {
    ASSIGN_OR_RETURN(const std::optional<Record> record, store_.references().Find(id));
    if (!record) return {};
    Dropped dropped;
    if (record->count > 1) dropped = dropped_[id];
    ++(by == By::kPage ? dropped.wants : dropped.loans);
    // A chunk that nobody wants any more is a lender at least for now.
    if (by == By::kPage && dropped.wants == record->count - record->lent) {
      CountChunk(*record);
      sum_.lender_bytes -= static_cast<int64_t>(record->stored_length);
    }
    if (dropped.wants + dropped.loans < record->count) {
      dropped_[id] = dropped;
      return {};
    }
    dropped_.erase(id);
    sum_.lender_bytes += static_cast<int64_t>(record->stored_length);
    CountBlob(id, *record);
    return {};
  }

  void CountBlob(const Digest256& id, const Record& record) {
    sum_.all_stored_bytes += record.stored_length;
    // A chunk once, whatever a damaged index says of it.
    const bool borrows = record.borrowed_bytes > 0 && borrowers_.insert(id).second;
    if (record.kind == BlobKind::kPage || borrows) referrers_.emplace_back(id, record);
  }

  void CountChunk(const Record& record) {
    if (record.kind != BlobKind::kChunk) return;
    ++sum_.chunks;
    sum_.plain_bytes += record.plain_length;
    sum_.borrowed_bytes += record.borrowed_bytes;
    sum_.stored_bytes += record.stored_length;
  }

  struct Dropped {
    uint64_t wants = 0;
    uint64_t loans = 0;
  };
  ChunkStoreImpl& store_;
  Sum sum_;
  // Pages and borrowers that go, and of which was not looked at yet what they refer to.
  std::vector<std::pair<Digest256, Record>> referrers_;
  std::unordered_map<Digest256, Dropped> dropped_;
  std::unordered_set<Digest256> borrowers_;  // that go
};

// Plain bytes of the blocks of a lender that chunks borrow which somebody wants, each block once.
Result<uint64_t> BytesLent(ChunkStoreImpl& store, const Digest256& id, const Record& record) {
  const Result<BlobTable> table = store.ReadTable({id, record.suffix}, record.stored_length);
  const bool damaged = !table.has_value() && (table.error().code() == Code::kCorruption ||
                                              table.error().code() == Code::kNotFound);
  if (damaged) return 0;
  RETURN_IF_ERROR(table);
  uint64_t bytes = 0;
  size_t left = 0;  // blocks that may be lent
  for (const Block& block : table->blocks) left += block.is_here();
  std::vector<bool> lent(table->blocks.size());
  RETURN_IF_ERROR(store.references().VisitLent(
      id, [&](const BlobRef& borrower, std::span<const uint16_t> pages) -> Result<bool> {
        ASSIGN_OR_RETURN(const std::optional<Record> theirs, store.references().Find(borrower.id));
        if (!theirs || !theirs->is_wanted() || theirs->suffix != borrower.suffix) return true;
        for (const uint16_t page : pages) {
          if (page * kBlockGridBytes >= table->plain_length) continue;
          const size_t at = table->BlockAt(page * kBlockGridBytes);
          if (lent[at] || !table->blocks[at].is_here()) continue;
          lent[at] = true;
          bytes += table->blocks[at].plain_length;
          --left;
        }
        return left > 0;
      }));
  return bytes;
}

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
        const bool refers = parsed.kind == 'p' || parsed.kind == 's';
        if (refers && Mark(parsed.page)) todo->push_back(parsed.page);
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
  uint64_t lent_alone = 0;
  Departures garbage(*this);
  for (size_t i = 0; i < kRecordPartitions; ++i) {
    RETURN_IF_ERROR(
        references_.VisitRecords(i, [&](const Digest256& id, const Record& record) -> Result<bool> {
          stats.physical_bytes += record.stored_length;
          if (record.kind == BlobKind::kChunk && IsLenderAlone(record)) {
            stats.lender_bytes += record.stored_length;
            ASSIGN_OR_RETURN(const uint64_t lent, BytesLent(*this, id, record));
            lent_alone += lent;
          } else if (record.kind == BlobKind::kChunk) {
            ++stats.chunks;
            stats.unique_bytes += record.plain_length;
            stats.borrowed_bytes += record.borrowed_bytes;
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
  stats.borrowed_bytes -= garbage.sum().borrowed_bytes;
  // Nobody has them as part of a chunk of his own: the first that borrows them saves nothing.
  stats.borrowed_bytes -= std::min(stats.borrowed_bytes, lent_alone);
  stats.lender_bytes -= static_cast<uint64_t>(garbage.sum().lender_bytes);
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
  stats.unique_borrowed_bytes = departures.sum().borrowed_bytes - before.borrowed_bytes;
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
