#include <algorithm>
#include <map>

#include "base/log.h"
#include "chunkstore/chunk_store_impl.h"

namespace chunkstore {
namespace {

using base::Code;
using base::Digest256;
using base::Error;
using base::Result;

constexpr size_t kDropBatch = 1024;
constexpr uint64_t kTellEvery = 64;

// Makes the index again from blobs. One thread, alone in the store.
class Rebuilder {
 public:
  Rebuilder(ChunkStoreImpl& store, BlobStore& blobs, MetaStore& meta, const ProgressFn& progress)
      : store_(store), blobs_(blobs), meta_(meta), progress_(progress) {}

  Result<void> DropAll() {
    std::vector<std::string> partitions = {std::string(kHoldersPartition)};
    for (size_t i = 0; i < kRecordPartitions; ++i) partitions.push_back(RecordPartition(i));
    for (const std::string_view prefix : {"i/", "b/"}) {
      ASSIGN_OR_RETURN(const std::vector<std::string> more, meta_.Partitions(prefix));
      partitions.insert(partitions.end(), more.begin(), more.end());
    }
    for (const std::string& partition : partitions) RETURN_IF_ERROR(Drop(partition));
    return meta_.Sync();
  }

  // Records of all blobs, without references. Every page's and manifest's bytes are verified; of a
  // chunk the table, unless two blobs claim the same id.
  Result<void> Records() {
    std::vector<std::pair<BlobRef, uint64_t>> found;
    RETURN_IF_ERROR(blobs_.List([&](std::string_view name, uint64_t size_bytes) {
      const Result<BlobRef> ref = ParseBlobName(name);
      if (ref.has_value()) found.emplace_back(*ref, size_bytes);
      return true;
    }));
    for (const auto& [ref, size_bytes] : found) {
      ++report_.blobs;
      if (!Tell("blobs", report_.blobs, found.size())) return Error(Code::kCancelled, "called off");
      RETURN_IF_ERROR(Blob(ref, size_bytes));
    }
    return {};
  }

  // Borrowers' references on their owners. An owner that is lost is quarantined, so that the next
  // upload of its bytes heals all.
  Result<void> Loans() {
    for (size_t i = 0; i < kRecordPartitions; ++i) {
      if (!Tell("shared blocks", i + 1, kRecordPartitions))
        return Error(Code::kCancelled, "called off");
      ASSIGN_OR_RETURN(const bool all,
                       store_.references().VisitRecords(
                           i, [&](const Digest256& id, const Record& record) -> Result<bool> {
                             if (record.borrowed_bytes > 0) RETURN_IF_ERROR(LoansOf(id, record));
                             return true;
                           }));
      (void)all;
    }
    return {};
  }

  // Of several blobs of one chunk (two processes wrote it at once, or it was healed, just before a
  // crash), takes one that reads and has what others borrow of it. The rest are orphans.
  Result<void> Rivals() {
    for (const auto& [id, blobs] : rivals_) RETURN_IF_ERROR(Choose(id, blobs));
    return {};
  }

  // Holders, from their manifests; then what they reach gets its references.
  Result<void> Holders() {
    uint64_t done = 0;
    for (const auto& [name, found] : manifests_) {
      if (!Tell("holders", ++done, manifests_.size())) return Error(Code::kCancelled, "called off");
      RETURN_IF_ERROR(Hold(found.first, found.second));
    }
    store_.block_index().Flush();
    return meta_.Sync();
  }

  RebuildReport& report() { return report_; }

 private:
  bool Tell(std::string_view phase, uint64_t done, uint64_t total) {
    if (done % kTellEvery != 0 && done != total) return true;
    return !progress_ || progress_({.phase = phase, .done = done, .total = total});
  }

  Result<void> Drop(const std::string& partition) {
    while (true) {
      MetaBatch batch;
      RETURN_IF_ERROR(
          meta_.Scan(partition, "", "", kDropBatch, [&](std::string_view key, std::string_view) {
            batch.Delete(std::string(key));
            return true;
          }));
      if (batch.empty()) return {};
      RETURN_IF_ERROR(meta_.Commit(partition, batch));
    }
  }

  Result<void> Blob(const BlobRef& ref, uint64_t size_bytes) {
    Result<BlobTable> table = store_.ReadTable(ref, size_bytes);
    std::shared_ptr<const Bytes> plain;
    if (table.has_value()) {
      ASSIGN_OR_RETURN(const std::optional<Record> other, store_.references().Find(ref.id));
      if (other && table->kind == BlobKind::kChunk && other->kind == BlobKind::kChunk) {
        // What it borrows can't be looked at yet: its owner's record may be still to come.
        auto& rivals = rivals_[ref.id];
        if (rivals.empty())
          rivals.emplace_back(BlobRef{ref.id, other->suffix}, other->stored_length);
        rivals.emplace_back(ref, size_bytes);
        return {};
      }
      if (other && Rank(*other) > Rank(*table)) return {};  // an orphan
      if (table->kind != BlobKind::kChunk) {
        Result<std::shared_ptr<const Bytes>> loaded = store_.LoadBlob(ref, size_bytes, &*table);
        if (loaded.has_value())
          plain = *loaded;
        else
          table = loaded.error();
      }
    }
    if (!table.has_value()) return Refuse(ref, table.error());
    return Accept(ref, size_bytes, *table, plain);
  }

  // Of two blobs of one id and two kinds, a page's is to be preferred.
  template <typename RecordOrTable>
  static int Rank(const RecordOrTable& of) {
    return of.kind == BlobKind::kPage ? 1 : 0;
  }

  struct Candidate {
    BlobRef ref;
    uint64_t size_bytes = 0;
    BlobTable table;
    int score = -1;
  };

  // How much of a chunk a blob gives: to who wants the chunk first, then to those that borrow.
  Result<Candidate> Judge(const BlobRef& ref, uint64_t size_bytes, std::span<const uint16_t> lent) {
    Candidate candidate{.ref = ref, .size_bytes = size_bytes, .table = {}};
    const auto plain = store_.LoadBlob(ref, size_bytes, &candidate.table);
    if (!plain.has_value() && plain.error().code() != Code::kCorruption) return plain.error();
    const bool reads = plain.has_value() && !candidate.table.partial;
    candidate.score = 2 * reads + HasAll(candidate.table, lent);
    return candidate;
  }

  Result<void> Choose(const Digest256& id, const std::vector<std::pair<BlobRef, uint64_t>>& blobs) {
    ASSIGN_OR_RETURN(const std::vector<uint16_t> lent, store_.references().LentPages(id));
    Candidate best;
    for (const auto& [ref, size_bytes] : blobs) {
      ASSIGN_OR_RETURN(Candidate candidate, Judge(ref, size_bytes, lent));
      if (candidate.score > best.score) best = std::move(candidate);
    }
    ASSIGN_OR_RETURN(const std::optional<Record> record, store_.references().Find(id));
    if (!record || record->kind != BlobKind::kChunk || record->suffix == best.ref.suffix) return {};
    if (record->borrowed_bytes > 0) {
      const BlobRef loser{id, record->suffix};
      ASSIGN_OR_RETURN(const BlobTable table, store_.ReadTable(loser, record->stored_length));
      RETURN_IF_ERROR(store_.references().DropFromAll(table.owners, BorrowerTag(loser)));
    }
    const auto take = [&](Record& found) {
      found.suffix = found.incarnation = best.ref.suffix;
      found.stored_length = static_cast<uint32_t>(best.size_bytes);
      found.partial = best.table.partial;
      found.borrowed_bytes = best.table.borrowed_bytes();
      found.bad = false;
      return true;
    };
    ASSIGN_OR_RETURN(const bool changed, store_.references().Change(id, take));
    (void)changed;
    store_.block_index().Note(best.table);
    if (best.table.owners.empty()) return {};
    ASSIGN_OR_RETURN(const std::optional<Record> now, store_.references().Find(id));
    return LoansOf(id, *now);
  }

  static bool HasAll(const BlobTable& table, std::span<const uint16_t> pages) {
    return std::ranges::all_of(pages, [&](uint16_t page) {
      const uint32_t offset = page * kBlockGridBytes;
      if (offset >= table.plain_length) return false;
      const Block& block = table.blocks[table.BlockAt(offset)];
      return block.is_here() && block.plain_offset == offset;
    });
  }

  // Corrupt: nothing refers to it from now on. (An error of the device ends the rebuild.)
  Result<void> Refuse(const BlobRef& ref, const Error& error) {
    if (error.code() != Code::kCorruption) return error;
    ++report_.bad_blobs;
    LOG(kError, "chunkstore", "rebuild: bad blob {}: {}", BlobName(ref), error.ToString());
    return {};
  }

  Result<void> Accept(const BlobRef& ref, uint64_t size_bytes, const BlobTable& table,
                      const std::shared_ptr<const Bytes>& plain) {
    Record record{.kind = table.kind,
                  .building = table.kind == BlobKind::kPage,
                  .suffix = ref.suffix,
                  .incarnation = ref.suffix,
                  .plain_length = table.plain_length,
                  .stored_length = static_cast<uint32_t>(size_bytes),
                  .partial = table.partial,
                  .borrowed_bytes = table.borrowed_bytes()};
    store_.block_index().Note(table);
    if (table.kind == BlobKind::kManifest) {
      const Result<Manifest> manifest = DecodeManifest(base::AsText(plain->view()));
      if (!manifest.has_value()) return Refuse(ref, manifest.error());
      const auto known = manifests_.find(manifest->holder);
      // Two for one name: the holder was released and held again, and a crash kept the older one's
      // blob.
      if (known == manifests_.end() || known->second.second.since_us < manifest->since_us)
        manifests_.insert_or_assign(manifest->holder, std::pair(ref.id, *manifest));
    }
    Result<void> inserted = store_.references().Insert(ref.id, record);
    if (!inserted.has_value() && inserted.error().code() == Code::kConflict) {
      // A second blob with the same bytes. This one was verified wholly: it takes the first one's
      // place, which is an orphan from now on (two writers raced, or one blob was healed, just
      // before a crash).
      ASSIGN_OR_RETURN(const bool changed, store_.references().Change(ref.id, [&](Record& found) {
        found = record;
        return true;
      }));
      (void)changed;
      return {};
    }
    RETURN_IF_ERROR(inserted);
    report_.chunks += table.kind == BlobKind::kChunk;
    report_.pages += table.kind == BlobKind::kPage;
    return {};
  }

  Result<void> Hold(const Digest256& manifest_id, const Manifest& manifest) {
    HolderRecord record;
    record.token = manifest.token;
    record.held = true;
    record.root = manifest.root;
    record.size_bytes = manifest.size_bytes;
    record.manifest = manifest_id;
    record.since_us = manifest.since_us;
    record.attributes = manifest.attributes;
    const std::string tag = HolderTag(manifest.token);
    RETURN_IF_ERROR(store_.references().AddToAll({&manifest_id, 1}, tag));
    RETURN_IF_ERROR(Refer(manifest.root, BlobKind::kPage, 1, tag));
    RETURN_IF_ERROR(Page(manifest.root));
    ASSIGN_OR_RETURN(record.nonzero_bytes, NonzeroBytes(manifest));
    MetaBatch batch;
    batch.Put(HolderKey(manifest.holder), EncodeHolder(record));
    RETURN_IF_ERROR(meta_.Commit(kHoldersPartition, batch));
    report_.holders.push_back(manifest.holder);
    return {};
  }

  Result<void> LoansOf(const Digest256& id, const Record& record) {
    const BlobRef borrower{id, record.suffix};
    ASSIGN_OR_RETURN(const BlobTable table, store_.ReadTable(borrower, record.stored_length));
    const std::vector<ChunkStoreImpl::Loan> loans =
        ChunkStoreImpl::LoansOf(table.blocks, table.owners);
    for (const ChunkStoreImpl::Loan& loan : loans) {
      ASSIGN_OR_RETURN(const bool can_lend, CanLend(loan));
      if (!can_lend) return SetAside(id, "borrows of a chunk what that has not");
    }
    for (const ChunkStoreImpl::Loan& loan : loans) {
      ASSIGN_OR_RETURN(bool lent,
                       store_.references().LendAnyway(loan.owner.id, borrower, loan.pages));
      if (lent) continue;
      RETURN_IF_ERROR(InsertLost(loan.owner.id, BlobKind::kChunk, 0));
      ASSIGN_OR_RETURN(lent, store_.references().LendAnyway(loan.owner.id, borrower, loan.pages));
    }
    return {};
  }

  // Who has the bytes borrows them of nobody. Blobs that say otherwise were made so, and could keep
  // each other for ever.
  Result<bool> CanLend(const ChunkStoreImpl::Loan& loan) {
    ASSIGN_OR_RETURN(const std::optional<Record> owner, store_.references().Find(loan.owner.id));
    if (!owner || owner->borrowed_bytes == 0 || rivals_.contains(loan.owner.id)) return true;
    ASSIGN_OR_RETURN(const BlobTable table,
                     store_.ReadTable({loan.owner.id, owner->suffix}, owner->stored_length));
    return HasAll(table, loan.pages);
  }

  Result<void> SetAside(const Digest256& id, std::string_view why) {
    LOG(kError, "chunkstore", "rebuild: set aside: {} {}", id.hex(), why);
    ASSIGN_OR_RETURN(const bool changed, store_.references().Change(id, [](Record& found) {
      found.bad = true;
      return true;
    }));
    (void)changed;
    return {};
  }

  Result<void> InsertLost(const Digest256& id, BlobKind kind, uint32_t plain_length) {
    LOG(kError, "chunkstore", "rebuild: {} is lost", id.hex());
    return store_.references().Insert(id, {.kind = kind,
                                           .bad = true,
                                           .building = kind == BlobKind::kPage,
                                           .incarnation = NewToken(),
                                           .plain_length = plain_length});
  }

  // A reference on `id`; what is lost gets a quarantined record, so that the next upload of its
  // bytes heals it.
  Result<void> Refer(const Digest256& id, BlobKind kind, uint32_t plain_length,
                     std::string_view tag) {
    ASSIGN_OR_RETURN(const std::optional<Record> record, store_.references().Find(id));
    if (!record) RETURN_IF_ERROR(InsertLost(id, kind, plain_length));
    return store_.references().AddToAll({&id, 1}, tag);
  }

  // References from a page on its children, and from those on theirs.
  Result<void> Page(const Digest256& id) {
    ASSIGN_OR_RETURN(const std::optional<Record> record, store_.references().Find(id));
    if (!record || record->bad) return {};
    // Its own blob is lost: the next upload makes it a page, with references.
    if (record->kind != BlobKind::kPage) return SetAside(id, "a page that is stored as a chunk");
    if (!record->building) return {};
    Result<std::shared_ptr<const MapPage>> page = store_.ReadPage(id);
    if (!page.has_value()) {
      return page.error().code() == Code::kCorruption ? Result<void>() : Result<void>(page.error());
    }
    const std::string tag = PageTag(id, record->incarnation);
    const BlobKind below = (*page)->level == 0 ? BlobKind::kChunk : BlobKind::kPage;
    const std::vector<Digest256> children = (*page)->Children();
    // All at once where nothing is missing.
    Result<void> tagged = store_.references().AddToAll(children, tag);
    if (!tagged.has_value() && tagged.error().code() != Code::kNotFound) return tagged;
    for (const Digest256& child : children) {
      if (!tagged.has_value()) RETURN_IF_ERROR(Refer(child, below, 0, tag));
      if (below == BlobKind::kPage) RETURN_IF_ERROR(Page(child));
    }
    ASSIGN_OR_RETURN(const bool changed, store_.references().Change(id, [](Record& found) {
      found.building = false;
      return true;
    }));
    (void)changed;
    return {};
  }

  // 0 where a page is lost: nobody can know.
  Result<uint64_t> NonzeroBytes(const Manifest& manifest) {
    uint64_t bytes = 0;
    Result<std::shared_ptr<Content>> content =
        store_.Open(Root{manifest.root, manifest.size_bytes});
    Result<void> visited =
        content.has_value()
            ? (*content)->VisitChunks(0, UINT64_MAX,
                                      [&](uint64_t index, const Digest256&) {
                                        bytes += ChunkLength(index, manifest.size_bytes);
                                        return true;
                                      })
            : Result<void>(content.error());
    if (visited.has_value()) return bytes;
    const Code code = visited.error().code();
    if (code != Code::kCorruption && code != Code::kNotFound) return visited.error();
    LOG(kError, "chunkstore", "rebuild: {} is damaged: {}", manifest.holder,
        visited.error().ToString());
    return bytes;
  }

  ChunkStoreImpl& store_;
  BlobStore& blobs_;
  MetaStore& meta_;
  const ProgressFn& progress_;
  RebuildReport report_;
  std::map<std::string, std::pair<Digest256, Manifest>> manifests_;  // by holder; the newest
  std::map<Digest256, std::vector<std::pair<BlobRef, uint64_t>>>
      rivals_;  // of chunks, with lengths
};

}  // namespace

Result<RebuildReport> ChunkStoreImpl::Rebuild(const ProgressFn& progress) {
  Rebuilder rebuilder(*this, blobs_, meta_, progress);
  RETURN_IF_ERROR(rebuilder.DropAll());
  RETURN_IF_ERROR(rebuilder.Records());
  RETURN_IF_ERROR(rebuilder.Loans());
  RETURN_IF_ERROR(rebuilder.Rivals());
  RETURN_IF_ERROR(rebuilder.Holders());
  return std::move(rebuilder.report());
}

}  // namespace chunkstore
