#include <algorithm>
#include <unordered_set>

#include "base/log.h"
#include "chunkstore/chunk_store_impl.h"

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
constexpr size_t kOrphanBatch = 1024;

Error Cancelled() { return Error(Code::kCancelled, "called off"); }

}  // namespace

Result<CollectReport> ChunkStoreImpl::Collect(bool list_orphans, const ProgressFn& progress) {
  CollectReport report;
  Throttle throttle(options_.background_bytes_per_s);
  const auto tell = [&](std::string_view phase, uint64_t done) {
    return !progress || progress({.phase = phase, .done = done, .total = 0});
  };
  if (!tell("abandoned uploads", 0)) return Cancelled();
  RETURN_IF_ERROR(RecoverAbandoned(&report));
  // Each step frees what the one before referred to: pages first, then what only they kept. All
  // partitions at first, then those where something may have become garbage.
  uint64_t removed = 0;
  for (Partitions todo = Partitions().set(); todo.any();) {
    if (!tell("garbage", removed)) return Cancelled();
    ASSIGN_OR_RETURN(const uint64_t now, CollectStep(&todo, &report, throttle));
    removed += now;
  }
  if (list_orphans) RETURN_IF_ERROR(RemoveOrphans(&report, throttle, progress));
  // Removals are not undone by a crash of the machine either.
  RETURN_IF_ERROR(meta_.Sync());
  return report;
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
  bool dropped = false;
  for (const Doomed& one : doomed) {
    if (!one.has_references) continue;
    RETURN_IF_ERROR(DropChildren(one, todo, throttle));
    dropped = true;
  }
  if (dropped) RETURN_IF_ERROR(meta_.Sync());
  for (size_t begin = 0; begin < doomed.size(); begin += kForgetTogether) {
    const auto some = std::span<const Doomed>(doomed).subspan(
        begin, std::min(kForgetTogether, doomed.size() - begin));
    throttle.Spend(kRemovalCost * some.size());
    RETURN_IF_ERROR(RemoveDoomed(some));
    for (const Doomed& one : some) {
      report->freed_bytes += one.stored_length;
      instruments_.collected_bytes.Add(one.stored_length);
    }
  }
  return doomed.size();
}

// Drops a dead page's tags on its children. They carry this page's incarnation: a page of the same
// id that was made since has others.
Result<void> ChunkStoreImpl::DropChildren(const Doomed& page, Partitions* todo,
                                          Throttle& throttle) {
  BlobTable table;
  throttle.Spend(page.stored_length);
  Result<std::shared_ptr<const Bytes>> plain = LoadBlob(page.blob, page.stored_length, &table);
  if (!plain.has_value()) {
    // Gone: removed before a crash, after its tags. Corrupt: its tags leak, and scrub gives them
    // back.
    if (plain.error().code() == Code::kNotFound) return {};
    if (plain.error().code() != Code::kCorruption) return plain.error();
    instruments_.corruption.Add();
    LOG(kError, "chunkstore", "garbage page {} is corrupt; run a scrub with repair: {}",
        BlobName(page.blob), plain.error().ToString());
    return {};
  }
  ASSIGN_OR_RETURN(const MapPage decoded, DecodePage((*plain)->view()));
  const std::vector<Digest256> children = decoded.Children();
  for (const Digest256& child : children) todo->set(PartitionOf(child));
  return references_.DropFromAll(children, PageTag(page.blob.id, page.incarnation));
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

}  // namespace chunkstore
