#include <algorithm>
#include <functional>
#include <unordered_set>

#include "base/log.h"
#include "chunkstore/chunk_store_impl.h"
#include "chunkstore/claim.h"

// Garbage: abandoned ingests, what nothing refers to, and blobs that no record knows. Nothing here
// takes a lock that an upload waits for longer than one commit; README.md argues why every
// interleaving is right.

namespace chunkstore {
namespace {

using base::Code;
using base::Digest256;
using base::Error;
using base::Result;

constexpr size_t kTakePerPartition = 256;           // garbage records a commit
constexpr size_t kRemovePerSync = 4096;             // blobs removed under one pair of syncs
constexpr size_t kForgetTogether = 64;              // removed blobs whose entries go in one go
constexpr uint64_t kRemovalCost = 16 * base::kKiB;  // what a removal counts against the throttle
constexpr uint64_t kLookCost = 256;                 // the same for looking at a record
constexpr size_t kOrphanBatch = 1024;
constexpr uint64_t kMaxIdleShare = 5;  // of a lender's bytes, one in so many may be of no use

Error Cancelled() { return Error(Code::kCancelled, "called off"); }

// A full disk, a damaged or lost blob (or one that another collector took away in this moment), a
// lease that ran out: the chunk stays as large as it is, scrub tells of damage, the rest goes on.
bool IsOfOneLender(Code code) {
  return code == Code::kOutOfSpace || code == Code::kCorruption || code == Code::kNotFound ||
         code == Code::kCancelled;
}

}  // namespace

Result<CollectReport> ChunkStoreImpl::Collect(bool list_orphans, const ProgressFn& progress) {
  CollectReport report;
  Throttle throttle(options_.background_bytes_per_s);
  const auto tell = [&](std::string_view phase, uint64_t done) {
    return !progress || progress({.phase = phase, .done = done, .total = 0});
  };
  if (!tell("abandoned uploads", 0)) return Cancelled();
  RETURN_IF_ERROR(RecoverAbandoned(&report));
  RETURN_IF_ERROR(RemoveGarbage(&report, throttle, progress, Partitions().set()));
  // What is compacted may have been the last to borrow of something.
  ASSIGN_OR_RETURN(const Partitions touched, CompactLenders(&report, throttle, progress));
  RETURN_IF_ERROR(RemoveGarbage(&report, throttle, progress, touched));
  if (list_orphans) {
    RETURN_IF_ERROR(RemoveOrphans(&report, throttle, progress));
    RETURN_IF_ERROR(SweepBlockIndex(throttle, progress));
  }
  // Removals are not undone by a crash of the machine either.
  RETURN_IF_ERROR(meta_.Sync());
  return report;
}

// Each step frees what the one before referred to: pages first, then what only they kept. The
// partitions in `todo` at first, then those where something may have become garbage.
Result<void> ChunkStoreImpl::RemoveGarbage(CollectReport* report, Throttle& throttle,
                                           const ProgressFn& progress, Partitions todo) {
  uint64_t removed = 0;
  while (todo.any()) {
    if (progress && !progress({.phase = "garbage", .done = removed, .total = 0}))
      return Cancelled();
    ASSIGN_OR_RETURN(const uint64_t now, CollectStep(&todo, report, throttle));
    removed += now;
  }
  return {};
}

Result<void> ChunkStoreImpl::RecoverAbandoned(CollectReport* report) {
  ASSIGN_OR_RETURN(const auto entries, ListJournal());
  for (const auto& [token, journal] : entries) {
    if (!IsAbandoned(token, journal)) continue;
    ASSIGN_OR_RETURN(const bool recovered, Recover(token, false));
    const bool was_ingest =
        journal.state == Journal::State::kActive || journal.state == Journal::State::kAbandoned;
    if (recovered && was_ingest) ++report->abandoned_ingests;
  }
  // Scratch whose journal entry is gone: a crash kept the one and not the other. Entries first,
  // partitions after: an entry is there before its scratch.
  ASSIGN_OR_RETURN(const std::vector<std::string> scratch, meta_.Partitions("i/"));
  for (const std::string& partition : scratch) {
    Result<Token> token = ParseScratchPartition(partition);
    if (!token.has_value()) continue;
    ASSIGN_OR_RETURN(const std::optional<Journal> journal, GetJournal(*token));
    if (!journal) RETURN_IF_ERROR(DropScratch(*token));
  }
  return {};
}

// Takes garbage, drops the references of pages among it, removes the blobs. Every arrow is a sync:
// records go -> tags on children go -> blobs go, so that a crash at any point leaves what can be
// gone on with.
Result<uint64_t> ChunkStoreImpl::CollectStep(Partitions* todo, CollectReport* report,
                                             Throttle& throttle) {
  std::vector<Doomed> doomed;
  for (size_t i = 0; i < kRecordPartitions && doomed.size() < kRemovePerSync; ++i) {
    if (!todo->test(i)) continue;
    ASSIGN_OR_RETURN(const References::Taken taken, references_.TakeGarbage(i, kTakePerPartition));
    report->removed_chunks += taken.chunks;
    report->removed_pages += taken.pages;
    ASSIGN_OR_RETURN(const std::vector<Doomed> some, references_.ListDoomed(i, kTakePerPartition));
    doomed.insert(doomed.end(), some.begin(), some.end());
    todo->set(i, taken.records > 0 || !some.empty());
  }
  if (doomed.empty()) return 0;
  RETURN_IF_ERROR(meta_.Sync());
  for (const Doomed& one : doomed) {
    if (one.has_references) throttle.Spend(one.stored_length);
  }
  RETURN_IF_ERROR(DropReferences(doomed, todo));
  for (size_t begin = 0; begin < doomed.size(); begin += kForgetTogether) {
    const auto some = std::span<const Doomed>(doomed).subspan(
        begin, std::min(kForgetTogether, doomed.size() - begin));
    throttle.Spend(kRemovalCost * some.size());
    RETURN_IF_ERROR(RemoveBlobs(some));
    for (const Doomed& one : some) {
      report->freed_bytes += one.stored_length;
      instruments_.collected_bytes.Add(one.stored_length);
    }
  }
  return doomed.size();
}

Result<void> ChunkStoreImpl::DropReferences(std::span<const Doomed> doomed, Partitions* touched) {
  const bool any = std::any_of(doomed.begin(), doomed.end(),
                               [](const Doomed& one) { return one.has_references; });
  if (!any) return {};
  RETURN_IF_ERROR(meta_.Sync());  // that they are doomed, before what they refer to is let go
  for (const Doomed& one : doomed) {
    if (one.has_references) RETURN_IF_ERROR(DropReferences(one, touched));
  }
  return meta_.Sync();
}

// Drops a dead page's tags on its children, a dead borrower's on its owners. They carry this blob's
// incarnation: one of the same id that was made since has others.
Result<void> ChunkStoreImpl::DropReferences(const Doomed& dead, Partitions* touched) {
  std::string tag;
  const Result<std::vector<Digest256>> ids = ReferencesOf(dead, &tag);
  if (!ids.has_value()) {
    // Gone: removed before a crash, after its tags. Torn while it was written, which only an intent
    // knew: it has no tags yet. Corrupt: its tags leak, and scrub gives them back.
    if (ids.error().code() == Code::kNotFound) return {};
    if (ids.error().code() != Code::kCorruption) return ids.error();
    if (dead.stored_length == 0) return {};
    instruments_.corruption.Add();
    LOG(kError, "chunkstore", "garbage {} is corrupt; run a scrub with repair: {}",
        BlobName(dead.blob), ids.error().ToString());
    return {};
  }
  for (const Digest256& id : *ids) {
    if (touched != nullptr) touched->set(PartitionOf(id));
  }
  return references_.DropFromAll(*ids, tag);
}

Result<std::vector<Digest256>> ChunkStoreImpl::ReferencesOf(const Doomed& dead, std::string* tag) {
  if (dead.kind == BlobKind::kPage) {
    *tag = PageTag(dead.blob.id, dead.incarnation);
    BlobTable table;
    ASSIGN_OR_RETURN(const std::shared_ptr<const Bytes> plain,
                     LoadBlob(dead.blob, dead.stored_length, &table));
    ASSIGN_OR_RETURN(const MapPage decoded, DecodePage(plain->view()));
    return decoded.Children();
  }
  *tag = BorrowerTag(dead.blob);
  // An intent does not know how long its blob became.
  ASSIGN_OR_RETURN(const uint64_t stored_length, blobs_.Size(BlobName(dead.blob)));
  ASSIGN_OR_RETURN(BlobTable table, ReadTable(dead.blob, stored_length));
  return std::move(table.owners);
}

// Each once a pass, whatever becomes of it.
Result<ChunkStoreImpl::Partitions> ChunkStoreImpl::CompactLenders(CollectReport* report,
                                                                  Throttle& throttle,
                                                                  const ProgressFn& progress) {
  Partitions touched;
  std::unique_ptr<Claim> claim;  // names the blobs that are being written
  uint64_t looked_at = 0;
  for (size_t i = 0; i < kRecordPartitions; ++i) {
    std::optional<Digest256> last;
    for (bool more = true; more;) {
      ASSIGN_OR_RETURN(const std::vector<Digest256> lenders,
                       references_.ListLenders(i, last, kTakePerPartition));
      for (const Digest256& id : lenders) {
        if (progress && !progress({.phase = "compaction", .done = ++looked_at, .total = 0}))
          return Cancelled();
        RETURN_IF_ERROR(CompactOne(id, &claim, report, throttle, &touched));
        last = id;
      }
      more = lenders.size() == kTakePerPartition;
    }
  }
  return touched;
}

Result<void> ChunkStoreImpl::CompactOne(const Digest256& id, std::unique_ptr<Claim>* claim,
                                        CollectReport* report, Throttle& throttle,
                                        Partitions* touched) {
  std::vector<Doomed> doomed;
  const Result<uint64_t> compacted = CompactLender(id, claim, &doomed, throttle);
  if (!compacted.has_value() && !IsOfOneLender(compacted.error().code())) return compacted.error();
  if (!compacted.has_value()) {
    LOG(kWarn, "chunkstore", "not compacted: chunk {}: {}", id.hex(), compacted.error().ToString());
    claim->reset();  // it may have been given up
  }
  if (doomed.empty()) return {};
  // The record names the new blob for good before the old one goes.
  RETURN_IF_ERROR(meta_.Sync());
  RETURN_IF_ERROR(DropReferences(doomed, touched));
  RETURN_IF_ERROR(RemoveBlobs(doomed));
  if (!compacted.has_value() || *compacted == 0) return {};
  ++report->compacted_chunks;
  report->freed_bytes += *compacted;
  instruments_.collected_bytes.Add(static_cast<double>(*compacted));
  return {};
}

// Which blocks to keep; none: it stays as it is. It is worth it if a fifth of what the blob has, at
// least, is of no use to anybody; so borrowers are looked through until what they have is more than
// the rest, which many of them say soon.
Result<std::vector<bool>> ChunkStoreImpl::BlocksToKeep(const Record& record,
                                                       const BlobTable& table) {
  std::vector<bool> keep(table.blocks.size());
  uint64_t idle = 0;
  for (const Block& block : table.blocks) idle += block.stored_length;
  const uint64_t least = idle / kMaxIdleShare;
  bool worth_it = true;
  const auto mark = [&](const BlobRef&, std::span<const uint16_t> pages) -> Result<bool> {
    for (const uint16_t page : pages) {
      const uint32_t offset = page * kBlockGridBytes;
      const size_t at = offset < table.plain_length ? table.BlockAt(offset) : 0;
      // What is lent and is no block of this blob (it was cut otherwise once): better not touched.
      worth_it = table.blocks[at].is_here() && table.blocks[at].plain_offset == offset;
      if (!worth_it) return false;
      if (!keep[at]) idle -= table.blocks[at].stored_length;
      keep[at] = true;
    }
    worth_it = idle > least || record.borrowed_bytes > 0;
    return worth_it;
  };
  RETURN_IF_ERROR(references_.VisitLent(table.id, mark));
  if (!worth_it || std::ranges::all_of(keep, std::identity())) keep.clear();
  return keep;
}

// What a lender's blob is to become; nothing: it stays as it is.
Result<std::optional<std::string>> ChunkStoreImpl::RestOfLender(const Digest256& id,
                                                                const Record& record) {
  const BlobRef ref{id, record.suffix};
  ASSIGN_OR_RETURN(BlobTable table, ReadTable(ref, record.stored_length));
  ASSIGN_OR_RETURN(const std::vector<bool> keep, BlocksToKeep(record, table));
  if (keep.empty()) return std::optional<std::string>();
  ASSIGN_OR_RETURN(const Bytes stored, ReadStored(ref, record.stored_length, &table));
  for (size_t i = 0; i < keep.size(); ++i) {
    const Block& block = table.blocks[i];
    if (!keep[i]) continue;
    RETURN_IF_ERROR(
        VerifyStored(block, stored.view().subspan(block.stored_offset, block.stored_length)));
  }
  return std::optional(EncodePartial(table, stored.view(), keep));
}

// Returns how many bytes it saved; 0: it stays as it is.
Result<uint64_t> ChunkStoreImpl::CompactLender(const Digest256& id, std::unique_ptr<Claim>* claim,
                                               std::vector<Doomed>* doomed, Throttle& throttle) {
  ASSIGN_OR_RETURN(const std::optional<Record> record, references_.Find(id));
  if (!record) return 0;
  std::optional<std::string> rest;
  if (!record->is_wanted() && record->lent > 0 && record->suffix != 0 &&
      record->kind == BlobKind::kChunk) {
    throttle.Spend(record->stored_length);
    ASSIGN_OR_RETURN(rest, RestOfLender(id, *record));
  }
  if (!rest) {
    RETURN_IF_ERROR(references_.PassLender(id, *record));
    return 0;
  }
  if (!*claim) {
    ASSIGN_OR_RETURN(*claim, Claim::Begin(*this, "compaction/" + std::to_string(NewToken()), ""));
  }
  RETURN_IF_ERROR((*claim)->KeepAlive());
  const BlobRef ref{id, NewToken()};
  RETURN_IF_ERROR((*claim)->Intend(ref));
  throttle.Spend(rest->size());
  const base::ByteView pieces[] = {base::AsBytes(*rest)};
  RETURN_IF_ERROR(blobs_.Put(BlobName(ref), pieces));
  const Record mine{.suffix = ref.suffix,
                    .incarnation = ref.suffix,
                    .plain_length = record->plain_length,
                    .stored_length = static_cast<uint32_t>(rest->size())};
  const Result<bool> shrunk = references_.Shrink((*claim)->token(), id, *record, mine, doomed);
  if (!shrunk.has_value() && shrunk.error().code() == Code::kCancelled) {
    // Who took us for gone could not know of a blob that came after.
    RETURN_IF_ERROR(blobs_.Remove(BlobName(ref)));
  }
  RETURN_IF_ERROR(shrunk);
  if (!*shrunk) return 0;
  cache_.EraseBlob(id);
  return record->stored_length - std::min<uint64_t>(record->stored_length, rest->size());
}

// A blob that nothing knows is an orphan: what names a blob does so before the blob is there
// (References::IsKnown).
Result<std::vector<std::pair<BlobRef, uint64_t>>> ChunkStoreImpl::FindOrphans(
    const ProgressFn& progress) {
  std::vector<std::pair<BlobRef, uint64_t>> orphans;
  uint64_t seen = 0;
  Result<void> failed;
  RETURN_IF_ERROR(blobs_.List([&](std::string_view name, uint64_t size_bytes) {
    ++seen;
    if (seen % kOrphanBatch == 0 && progress &&
        !progress({.phase = "orphans", .done = seen, .total = 0})) {
      failed = Cancelled();
      return false;
    }
    const Result<BlobRef> ref = ParseBlobName(name);
    if (!ref.has_value()) {
      LOG(kWarn, "chunkstore", "left alone: the store holds a blob that is none of ours: {}", name);
      return true;
    }
    const Result<bool> known = references_.IsKnown(*ref);
    if (!known.has_value()) {
      failed = known.error();
      return false;
    }
    if (*known) return true;
    // Or it was removed since it was listed: entries go after their blobs.
    const Result<uint64_t> still = blobs_.Size(name);
    if (still.has_value()) orphans.emplace_back(*ref, size_bytes);
    if (!still.has_value() && still.error().code() != Code::kNotFound) failed = still.error();
    return failed.has_value();
  }));
  RETURN_IF_ERROR(failed);
  return orphans;
}

Result<void> ChunkStoreImpl::RemoveOrphans(CollectReport* report, Throttle& throttle,
                                           const ProgressFn& progress) {
  ASSIGN_OR_RETURN(const auto orphans, FindOrphans(progress));
  for (const auto& [ref, size_bytes] : orphans) {
    throttle.Spend(kRemovalCost);
    RETURN_IF_ERROR(blobs_.Remove(BlobName(ref)));
    ++report->removed_orphans;
    report->freed_bytes += size_bytes;
  }
  return {};
}

// Entries of chunks that are gone, or as good as that. They do no harm, but they would pile up.
Result<void> ChunkStoreImpl::SweepBlockIndex(Throttle& throttle, const ProgressFn& progress) {
  block_index_.Flush();
  for (size_t i = 0; i < BlockIndex::kPartitions; ++i) {
    if (progress &&
        !progress({.phase = "index of blocks", .done = i, .total = BlockIndex::kPartitions}))
      return Cancelled();
    const auto is_there = [&](const Digest256& chunk) -> Result<bool> {
      throttle.Spend(kLookCost);
      ASSIGN_OR_RETURN(const std::optional<Record> record, references_.Find(chunk));
      // What is left of a chunk lends nothing more; made whole, it is noted again.
      return record.has_value() && record->kind == BlobKind::kChunk && !record->partial;
    };
    RETURN_IF_ERROR(block_index_.Sweep(i, is_there));
  }
  return {};
}

}  // namespace chunkstore
