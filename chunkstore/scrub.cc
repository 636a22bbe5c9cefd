#include <algorithm>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "base/log.h"
#include "chunkstore/chunk_store_impl.h"

namespace chunkstore {
namespace {

using base::Code;
using base::Digest256;
using base::Error;
using base::Result;

constexpr size_t kTagBatch = 1024;
constexpr uint64_t kRecordCost = 256;  // what looking at a record counts against the throttle

// One pass over everything; collects findings. One thread.
class Scrubber {
 public:
  Scrubber(ChunkStoreImpl& store, BlobStore& blobs, MetaStore& meta, bool repair,
           const ProgressFn& progress)
      : store_(store),
        blobs_(blobs),
        meta_(meta),
        repair_(repair),
        progress_(progress),
        throttle_(store.options().background_bytes_per_s) {}

  // All of the index can be read: that of other services too, whom nobody else would tell.
  Result<void> Index() {
    ASSIGN_OR_RETURN(const std::vector<std::string> partitions, meta_.Partitions(""));
    uint64_t done = 0;
    for (const std::string& partition : partitions) {
      uint64_t bytes = 0;
      RETURN_IF_ERROR(meta_.Scan(partition, "", "", SIZE_MAX,
                                 [&](std::string_view key, std::string_view value) {
                                   bytes += key.size() + value.size();
                                   return true;
                                 }));
      throttle_.Spend(bytes);
      if (!Tell("parts of the index", ++done, partitions.size()))
        return Error(Code::kCancelled, "called off");
    }
    return {};
  }

  // What can be said where the index can't be read: whether each blob is right by itself.
  Result<void> BlobsWithoutIndex(const Error& damage) {
    report_ = {};
    std::vector<std::pair<BlobRef, uint64_t>> found;
    RETURN_IF_ERROR(blobs_.List([&](std::string_view name, uint64_t size_bytes) {
      const Result<BlobRef> ref = ParseBlobName(name);
      if (ref.has_value()) found.emplace_back(*ref, size_bytes);
      return true;
    }));
    FindAlone({.problem = "the index is damaged; references, counts and orphans were not checked, "
                          "blobs by themselves only: " +
                          damage.message()});
    for (const auto& [ref, size_bytes] : found) {
      ++report_.checked_blobs;
      report_.checked_bytes += size_bytes;
      throttle_.Spend(size_bytes);
      BlobTable table;
      const Result<void> plain = AloneRight(ref, size_bytes, &table);
      if (!plain.has_value() && plain.error().code() == Code::kCorruption) {
        FindAlone({.id = ref.id.hex(), .blob = BlobName(ref), .problem = plain.error().message()});
      } else if (!plain.has_value() && plain.error().code() != Code::kNotFound) {
        return plain.error();
      }
      if (!Tell("blobs", report_.checked_blobs, found.size()))
        return Error(Code::kCancelled, "called off");
    }
    return {};
  }

  Result<void> Blobs() {
    ASSIGN_OR_RETURN(total_, CountRecords());
    for (size_t i = 0; i < kRecordPartitions; ++i) {
      ASSIGN_OR_RETURN(const bool all,
                       store_.references().VisitRecords(
                           i, [&](const Digest256& id, const Record& record) -> Result<bool> {
                             RETURN_IF_ERROR(Blob(id, record));
                             return Tell("blobs", report_.checked_blobs, total_);
                           }));
      if (!all) return Error(Code::kCancelled, "called off");
    }
    return {};
  }

  // Every reference has a reason, counts are right, and complete pages have all their references.
  Result<void> References() {
    for (size_t i = 0; i < kRecordPartitions; ++i) {
      RETURN_IF_ERROR(Intents(i));
      RETURN_IF_ERROR(PartitionTags(i));
      ASSIGN_OR_RETURN(const bool all,
                       store_.references().VisitRecords(
                           i, [&](const Digest256& id, const Record& record) -> Result<bool> {
                             RETURN_IF_ERROR(Count(id, record));
                             throttle_.Spend(kRecordCost);
                             return true;
                           }));
      (void)all;
      if (!Tell("references", i + 1, kRecordPartitions))
        return Error(Code::kCancelled, "called off");
    }
    return Holders();
  }

  // Blobs that no record knows: given back with repair.
  Result<void> Orphans() {
    ASSIGN_OR_RETURN(const auto orphans, store_.FindOrphans(progress_));
    report_.orphan_blobs = orphans.size();
    if (!repair_) return {};
    for (const auto& [ref, size_bytes] : orphans) RETURN_IF_ERROR(blobs_.Remove(BlobName(ref)));
    return meta_.Sync();
  }

  ScrubReport& report() { return report_; }

 private:
  // As far as the blob by itself tells.
  Result<void> AloneRight(const BlobRef& ref, uint64_t size_bytes, BlobTable* table) {
    ASSIGN_OR_RETURN(const std::shared_ptr<Bytes> plain, store_.LoadOwn(ref, size_bytes, table));
    if (table->owners.empty() && !table->partial && base::Sha256(plain->view()) != ref.id)
      return Error(Code::kCorruption, "the plain bytes don't have the SHA-256 that names them");
    return {};
  }

  bool Tell(std::string_view phase, uint64_t done, uint64_t total) {
    return !progress_ || progress_({.phase = phase, .done = done, .total = total});
  }

  Result<uint64_t> CountRecords() {
    uint64_t count = 0;
    for (size_t i = 0; i < kRecordPartitions; ++i) {
      ASSIGN_OR_RETURN(const bool all, store_.references().VisitRecords(
                                           i, [&](const Digest256&, const Record&) -> Result<bool> {
                                             ++count;
                                             return true;
                                           }));
      (void)all;
    }
    return count;
  }

  // One whose holders nobody can tell.
  void FindAlone(ScrubReport::Finding finding) {
    ++report_.finding_count;
    LOG(kError, "chunkstore", "scrub: {} {}", finding.blob, finding.problem);
    if (report_.findings.size() < kMaxFindings) report_.findings.push_back(std::move(finding));
  }

  Result<void> Find(const Digest256& id, uint64_t suffix, std::string problem, bool repaired,
                    bool set_aside = false) {
    ++report_.finding_count;
    LOG(kError, "chunkstore", "scrub: {}: {}", BlobName({id, suffix}), problem);
    if (report_.findings.size() >= kMaxFindings) return {};
    ASSIGN_OR_RETURN(std::vector<std::string> holders, store_.HoldersAbove(id));
    report_.findings.push_back({.id = id.hex(),
                                .blob = suffix == 0 ? "" : BlobName({id, suffix}),
                                .problem = std::move(problem),
                                .holders = std::move(holders),
                                .repaired = repaired,
                                .set_aside = set_aside});
    return {};
  }

  // Reads the blob wholly. A corrupt one is quarantined with repair, so that the next upload of
  // these bytes heals it; a quarantined one that turns out right is taken back.
  Result<void> Blob(const Digest256& id, const Record& record) {
    ++report_.checked_blobs;
    report_.checked_bytes += record.stored_length;
    throttle_.Spend(record.stored_length + kRecordCost);
    if (record.suffix == 0) return Find(id, 0, "its blob is lost", false);
    if (record.partial && record.is_wanted())
      RETURN_IF_ERROR(Find(id, record.suffix, "only what others share of it is left", false));
    BlobTable table;
    Result<std::shared_ptr<const Bytes>> plain =
        store_.LoadBlob({id, record.suffix}, record.stored_length, &table);
    Result<void> right = Judge(record, table, plain);
    if (right.has_value() && !record.bad) return {};
    if (!right.has_value() && right.error().code() != Code::kCorruption &&
        right.error().code() != Code::kNotFound)
      return right.error();
    // It may have been healed or collected since we read its record.
    ASSIGN_OR_RETURN(const std::optional<Record> now, store_.references().Find(id));
    if (!now || now->suffix != record.suffix) return {};
    const bool should_be_bad = !right.has_value();
    bool changed = false;
    if (repair_ && now->bad != should_be_bad) {
      ASSIGN_OR_RETURN(changed, store_.references().Change(id, [&](Record& found) {
        const bool same = found.suffix == record.suffix;
        found.bad = should_be_bad;
        return same;
      }));
    }
    return Find(id, record.suffix,
                should_be_bad ? right.error().message() : "is quarantined, but its blob is right",
                changed && !should_be_bad, should_be_bad && (changed || now->bad));
  }

  static Result<void> Judge(const Record& record, const BlobTable& table,
                            const Result<std::shared_ptr<const Bytes>>& plain) {
    if (!plain.has_value()) return plain.error();
    if (table.kind != record.kind || table.plain_length != record.plain_length ||
        table.partial != record.partial || table.borrowed_bytes() != record.borrowed_bytes)
      return Error(Code::kCorruption, "the blob is not the one that its record says");
    if (record.kind == BlobKind::kPage) {
      RETURN_IF_ERROR(DecodePage((*plain)->view()));
    }
    return {};
  }

  // An ingest that was given up while its process stood still may intend one blob more before it
  // finds out; if it died just then, nothing else names that blob any more.
  Result<void> Intents(size_t partition) {
    std::vector<std::string> keys;
    RETURN_IF_ERROR(meta_.Scan(RecordPartition(partition), "w", PrefixEnd("w"), SIZE_MAX,
                               [&](std::string_view key, std::string_view) {
                                 keys.emplace_back(key);
                                 return true;
                               }));
    for (const std::string& key : keys) {
      ASSIGN_OR_RETURN(const Token token, NumberOfKey(key, 1));
      ASSIGN_OR_RETURN(const std::optional<Journal> journal, store_.GetJournal(token));
      if (journal) continue;
      const Result<std::string> still = meta_.Get(RecordPartition(partition), key);
      if (!still.has_value() && still.error().code() != Code::kNotFound) return still.error();
      if (!still.has_value()) continue;
      ++report_.leaked_references;
      if (!repair_) continue;
      std::vector<Doomed> doomed;
      RETURN_IF_ERROR(store_.references().DropIngest(token, partition, &doomed));
      RETURN_IF_ERROR(meta_.Sync());
      RETURN_IF_ERROR(store_.RemoveDoomed(doomed));
    }
    return {};
  }

  // Tags whose reason is gone are leaks: given back with repair. Counts the others.
  Result<void> PartitionTags(size_t partition) {
    tags_.clear();
    ASSIGN_OR_RETURN(const std::vector<Digest256> garbage,
                     store_.references().ListGarbage(partition));
    garbage_ = std::unordered_set<Digest256>(garbage.begin(), garbage.end());
    for (const char kind : {'t', 'u'}) {
      std::string from(1, kind);
      while (true) {
        std::vector<std::string> keys;
        RETURN_IF_ERROR(meta_.Scan(RecordPartition(partition), from,
                                   PrefixEnd(std::string(1, kind)), kTagBatch,
                                   [&](std::string_view key, std::string_view) {
                                     keys.emplace_back(key);
                                     return true;
                                   }));
        for (const std::string& key : keys) {
          RETURN_IF_ERROR(Tag(partition, key));
        }
        if (keys.size() < kTagBatch) break;
        from = keys.back() + '\0';
      }
    }
    return {};
  }

  Result<void> Tag(size_t partition, const std::string& key) {
    const bool of_ingest = key[0] == 'u';
    ASSIGN_OR_RETURN(const Digest256 id, IdOfKey(key, of_ingest ? 9 : 1));
    const std::string tag = of_ingest ? key.substr(0, 9) : key.substr(33);
    ASSIGN_OR_RETURN(const ParsedTag parsed, ParseTag(tag));
    ++tags_[id];
    ASSIGN_OR_RETURN(const bool has_reason, HasReason(parsed));
    if (has_reason) return {};
    // The reason outlives the tag: if the tag is still there after its reason was not, it leaked.
    Result<std::string> still = meta_.Get(RecordPartition(partition), key);
    if (!still.has_value())
      return still.error().code() == Code::kNotFound ? Result<void>() : Result<void>(still.error());
    ++report_.leaked_references;
    if (repair_) RETURN_IF_ERROR(store_.references().DropFromAll({&id, 1}, tag));
    return {};
  }

  Result<bool> HasReason(const ParsedTag& tag) {
    if (tag.kind == 'p') return PageExists(tag.page, tag.incarnation);
    if (tag.kind == 's') return store_.references().IsKnown({tag.page, tag.incarnation});
    // A look a while ago is good enough to say yes; a leak since is the next scrub's.
    if (tag.kind == 'h' && tokens_.contains(tag.token)) return true;
    // Journal, holders, journal: a token goes from the one to the other and back, never straight
    // through both.
    for (int look = 0; look < 2; ++look) {
      ASSIGN_OR_RETURN(const std::optional<Journal> journal, store_.GetJournal(tag.token));
      if (journal) return true;
      if (tag.kind == 'u') return false;
      if (look == 0) RETURN_IF_ERROR(LoadTokens());
      if (tokens_.contains(tag.token)) return true;
    }
    return false;
  }

  Result<void> LoadTokens() {
    tokens_.clear();
    return store_.VisitHolders([&](std::string_view, const HolderRecord& record) {
      if (record.held) tokens_.insert(record.token);
    });
  }

  Result<bool> PageExists(const Digest256& page, uint64_t incarnation) {
    ASSIGN_OR_RETURN(const std::optional<Record> record, store_.references().Find(page));
    if (record && record->incarnation == incarnation) return true;
    ASSIGN_OR_RETURN(const std::vector<Doomed> doomed,
                     store_.references().ListDoomed(PartitionOf(page), SIZE_MAX));
    return std::any_of(doomed.begin(), doomed.end(), [&](const Doomed& one) {
      return one.blob.id == page && one.incarnation == incarnation && one.has_references;
    });
  }

  Result<void> Count(const Digest256& id, const Record& record) {
    // What was counted a moment ago, and then, where that does not fit, exactly.
    const auto counted = tags_.find(id);
    const uint64_t tags = counted == tags_.end() ? 0 : counted->second;
    if (tags != record.count || garbage_.contains(id) != (tags == 0)) {
      ASSIGN_OR_RETURN(const auto problem, store_.references().CheckCount(id, repair_));
      if (problem) RETURN_IF_ERROR(Find(id, record.suffix, *problem, repair_));
    }
    if (record.bad || record.count == 0) return {};
    if (record.partial) return Lent(id, record);
    if (record.borrowed_bytes > 0) return Owners(id, record);
    if (record.kind != BlobKind::kPage || record.building) return {};
    return Children(id, record);
  }

  // A borrower refers to each of its owners.
  Result<void> Owners(const Digest256& id, const Record& record) {
    const BlobRef borrower{id, record.suffix};
    const Result<BlobTable> table = store_.ReadTable(borrower, record.stored_length);
    if (!table.has_value()) return FoundAlready(table.error());
    for (const ChunkStoreImpl::Loan& loan : ChunkStoreImpl::LoansOf(table->blocks, table->owners)) {
      const Digest256& owner = loan.owner.id;
      ASSIGN_OR_RETURN(const bool tagged, HasTag(owner, BorrowerTag(borrower)));
      if (tagged) continue;
      ASSIGN_OR_RETURN(const std::optional<Record> now, store_.references().Find(id));
      if (!now || now->suffix != record.suffix) return {};
      bool repaired = false;
      if (repair_) {
        ASSIGN_OR_RETURN(repaired, store_.references().LendAnyway(owner, borrower, loan.pages));
      }
      RETURN_IF_ERROR(Find(
          owner, 0, "chunk " + id.hex() + " borrows of it and does not refer to it", repaired));
    }
    return {};
  }

  // What is left of a chunk is all that it lends.
  Result<void> Lent(const Digest256& id, const Record& record) {
    const Result<BlobTable> table = store_.ReadTable({id, record.suffix}, record.stored_length);
    if (!table.has_value()) return FoundAlready(table.error());
    ASSIGN_OR_RETURN(const std::vector<uint16_t> pages, store_.references().LentPages(id));
    size_t found = 0;
    for (const Block& block : table->blocks) {
      found += block.is_here() &&
               std::binary_search(pages.begin(), pages.end(), block.plain_offset / kBlockGridBytes);
    }
    ASSIGN_OR_RETURN(const std::optional<Record> now, store_.references().Find(id));
    if (found == pages.size() || !now || !(*now == record)) return {};
    return Find(id, record.suffix, "lends blocks that it has not", false);
  }

  Result<bool> HasTag(const Digest256& id, const std::string& tag) {
    const Result<std::string> tagged = meta_.Get(RecordPartition(PartitionOf(id)), TagKey(id, tag));
    if (!tagged.has_value() && tagged.error().code() != Code::kNotFound) return tagged.error();
    return tagged.has_value();
  }

  // Of what can't be read: by the other pass, or it was collected since.
  static Result<void> FoundAlready(const Error& error) {
    const bool found = error.code() == Code::kCorruption || error.code() == Code::kNotFound;
    return found ? Result<void>() : Result<void>(error);
  }

  // A complete page refers to each of its children.
  Result<void> Children(const Digest256& id, const Record& record) {
    Result<std::shared_ptr<const MapPage>> page = store_.ReadPage(id);
    if (!page.has_value()) return FoundAlready(page.error());
    const std::string tag = PageTag(id, record.incarnation);
    for (const Digest256& child : (*page)->Children()) {
      ASSIGN_OR_RETURN(const bool tagged, HasTag(child, tag));
      if (tagged) continue;
      ASSIGN_OR_RETURN(const std::optional<Record> now, store_.references().Find(id));
      if (!now || now->incarnation != record.incarnation) return {};
      bool repaired = false;
      if (repair_) repaired = store_.references().AddToAll({&child, 1}, tag).has_value();
      RETURN_IF_ERROR(
          Find(child, 0, "page " + id.hex() + " needs it and does not refer to it", repaired));
    }
    return {};
  }

  // What is held has its root, and refers to it.
  Result<void> Holders() {
    std::vector<std::pair<std::string, HolderRecord>> held;
    RETURN_IF_ERROR(store_.VisitHolders([&](std::string_view name, const HolderRecord& record) {
      if (!record.held) return;
      held.emplace_back(name, record);
      held.back().second.attributes.clear();
    }));
    for (const auto& [name, record] : held) {
      for (const Digest256& target : {record.root, record.manifest}) {
        const std::string tag = HolderTag(record.token);
        ASSIGN_OR_RETURN(const bool tagged, HasTag(target, tag));
        if (tagged) continue;
        ASSIGN_OR_RETURN(const std::optional<HolderRecord> now, store_.GetHolder(name));
        if (!now || now->token != record.token) continue;
        bool repaired = false;
        if (repair_) repaired = store_.references().AddToAll({&target, 1}, tag).has_value();
        RETURN_IF_ERROR(
            Find(target, 0, "\"" + name + "\" holds it and does not refer to it", repaired));
      }
    }
    return {};
  }

  ChunkStoreImpl& store_;
  BlobStore& blobs_;
  MetaStore& meta_;
  const bool repair_;
  const ProgressFn& progress_;
  Throttle throttle_;
  ScrubReport report_;
  uint64_t total_ = 0;
  std::set<Token> tokens_;                        // of holders, when last looked at
  std::unordered_map<Digest256, uint64_t> tags_;  // of the partition at hand
  std::unordered_set<Digest256> garbage_;
};

}  // namespace

Result<ScrubReport> ChunkStoreImpl::Scrub(bool repair, const ProgressFn& progress) {
  Scrubber scrubber(*this, blobs_, meta_, repair, progress);
  Result<void> checked = scrubber.Index();
  if (checked.has_value()) checked = scrubber.Blobs();
  if (checked.has_value()) checked = scrubber.References();
  if (checked.has_value()) checked = scrubber.Orphans();
  // A damaged blob is a finding; so this damage is the index's own.
  if (!checked.has_value() && checked.error().code() == Code::kCorruption)
    checked = scrubber.BlobsWithoutIndex(Error(checked.error()));
  RETURN_IF_ERROR(checked);
  return std::move(scrubber.report());
}

}  // namespace chunkstore
