#pragma once

#include <bitset>
#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "base/thread_annotations.h"
#include "chunkstore/block_cache.h"
#include "chunkstore/block_index.h"
#include "chunkstore/chunk_store.h"
#include "chunkstore/map.h"
#include "chunkstore/references.h"

namespace chunkstore {

class Claim;

// Decoded bytes that own themselves.
struct Bytes {
  explicit Bytes(size_t size)
      : data(std::make_unique_for_overwrite<uint8_t[]>(size)), size_bytes(size) {}
  base::MutableByteView view() { return {data.get(), size_bytes}; }
  base::ByteView view() const { return {data.get(), size_bytes}; }
  std::unique_ptr<uint8_t[]> data;
  size_t size_bytes;
};

// Bytes a second for background work. One pass, one thread.
class Throttle {
 public:
  explicit Throttle(uint64_t bytes_per_s) : rate_(bytes_per_s) {}
  // Sleeps as long as it takes to stay at the rate; bursts of a tenth of a second pass.
  void Spend(uint64_t bytes);

 private:
  uint64_t rate_;  // 0: no limit
  std::chrono::steady_clock::time_point paid_until_{};
};

// The one ChunkStore. Its parts: references.h (the index), ingest.h (what comes in), content.cc
// and blob_reader.cc (what goes out), sharing.cc (blocks between chunks), collector.cc, scrub.cc,
// rebuild.cc, stats.cc. Thread-safe.
class ChunkStoreImpl : public ChunkStore {
 public:
  ChunkStoreImpl(const ChunkStoreOptions& options, BlobStore& blobs, MetaStore& meta,
                 const base::Clock& clock, base::Metrics& metrics);

  base::Result<std::unique_ptr<Ingest>> NewIngest(std::string_view holder,
                                                  std::string_view attributes) override;
  base::Result<std::unique_ptr<Ingest>> NewIngestOver(std::string_view holder,
                                                      std::string_view attributes,
                                                      std::string_view base_holder) override;
  base::Result<Root> HoldAgain(std::string_view source, std::string_view holder,
                               std::string_view attributes) override;
  base::Result<void> VisitIngest(std::string_view holder, const StoredVisitor& visit) override;
  base::Result<void> Release(std::string_view holder) override;
  base::Result<Held> FindHolder(std::string_view holder) override;
  base::Result<std::vector<Held>> Holders(std::string_view prefix, std::string_view after,
                                          size_t limit) override;
  base::Result<std::shared_ptr<Content>> Open(const Root& root) override;
  base::Result<std::vector<bool>> WhichReachable(std::span<const base::Digest256> ids,
                                                 const HolderCheck& may_read) override;
  base::Result<void> ReadChunk(const base::Digest256& id, base::MutableByteView into) override;
  base::Result<void> ReadChunkPart(const base::Digest256& id, uint32_t offset,
                                   base::MutableByteView into) override;
  base::Result<void> Diff(const Root& a, const Root& b, uint64_t from,
                          const DiffVisitor& visit) override;
  base::Result<void> DiffAcross(const Root& a, ChunkStore& store_of_b, const Root& b,
                                const DiffVisitor& visit) override;
  base::Result<CollectReport> Collect(bool list_orphans, const ProgressFn& progress) override;
  base::Result<ScrubReport> Scrub(bool repair, const ProgressFn& progress) override;
  base::Result<RebuildReport> Rebuild(const ProgressFn& progress) override;
  base::Result<StoreStats> Stats() override;
  base::Result<HolderStats> StatsOf(std::string_view holder) override;

  // --- writing (ingest.cc, chunk_store.cc)

  // Stores `plain` unless it is known, and puts the token's ingest tag on it. One thread at a time
  // writes one id.
  struct Stored {
    bool known = false;
    Record record;
  };
  base::Result<Stored> Store(Token token, BlobKind kind, const base::Digest256& id,
                             base::ByteView plain);
  // Drops what they refer to, removes the blobs, then forgets the entries.
  base::Result<void> RemoveDoomed(std::span<const Doomed> doomed);

  // --- the journal (chunk_store.cc)

  base::Result<std::optional<HolderRecord>> GetHolder(std::string_view name);
  base::Result<std::optional<Journal>> GetJournal(Token token);
  base::Result<std::vector<std::pair<Token, Journal>>> ListJournal();
  // True if nobody in this process works under the token, and its lease ran out.
  bool IsAbandoned(Token token, const Journal& journal);
  // Finishes or undoes what a journal entry stands for. Idempotent. An active entry is given up
  // only if the caller owns it or IsAbandoned; false: it is alive. `touched`: the index partitions
  // that may carry its references.
  using Partitions = std::bitset<kRecordPartitions>;
  base::Result<bool> Recover(Token token, bool own, const Partitions& touched = Partitions().set());
  void SetLive(Token token, bool live);

  // --- finding one's way (stats.cc)

  using HolderVisitor = std::function<void(std::string_view name, const HolderRecord& record)>;
  base::Result<void> VisitHolders(const HolderVisitor& visit);
  // Who holds a content that this chunk or page is part of; at most kMaxSharedWith.
  base::Result<std::vector<std::string>> HoldersAbove(const base::Digest256& id);

  // Blobs that no record knows, with their lengths (collector.cc).
  base::Result<std::vector<std::pair<BlobRef, uint64_t>>> FindOrphans(const ProgressFn& progress);

  // --- reading (content.cc, blob_reader.cc)

  base::Result<std::shared_ptr<const MapPage>> ReadPage(const base::Digest256& id);
  // The whole blob, plain, with every hash checked.
  base::Result<std::shared_ptr<const Bytes>> ReadWhole(const base::Digest256& id);
  // Reads and verifies a run of a chunk's plain bytes. `keep`: cache what was decoded.
  base::Result<void> ReadChunk(const base::Digest256& id, uint32_t expected_length, uint32_t offset,
                               base::MutableByteView into, bool keep);
  // The same from the cache alone, as far as it goes: how much.
  size_t TryReadChunk(const base::Digest256& id, uint32_t expected_length, uint32_t offset,
                      base::MutableByteView into);
  base::Result<ContentPiece> PieceOfChunk(const base::Digest256& id, uint32_t expected_length,
                                          uint32_t offset, uint32_t length);
  // The blocks of a chunk that begin in [offset, offset + length), as zstd frames.
  base::Result<std::vector<ContentPiece>> FramesOfChunk(const base::Digest256& id,
                                                        uint32_t expected_length, uint32_t offset,
                                                        uint32_t length);
  // The blocks of a chunk, and the stored bytes of some of them (content_blocks.cc).
  base::Result<std::vector<StoredBlock>> BlocksOfChunk(const base::Digest256& id,
                                                       uint32_t expected_length);
  base::Result<BlockBytes> ReadBlocksOfChunk(const base::Digest256& id, uint32_t expected_length,
                                             std::span<const size_t> numbers);
  // Reads a blob wholly and verifies it against its table and its id; what it borrows as well. Of a
  // partial one, what is there. kCorruption.
  base::Result<std::shared_ptr<const Bytes>> LoadBlob(const BlobRef& ref, uint64_t stored_length,
                                                      BlobTable* table);
  // All stored bytes of a blob, unverified but for its table. kCorruption, also if that is of
  // another id.
  base::Result<Bytes> ReadStored(const BlobRef& ref, uint64_t stored_length, BlobTable* table);
  // What of LoadBlob lies in the blob itself; so the id says nothing, unless it borrows nothing.
  base::Result<std::shared_ptr<Bytes>> LoadOwn(const BlobRef& ref, uint64_t stored_length,
                                               BlobTable* table);
  // What a blob says of itself. kCorruption, also if that is another id.
  base::Result<BlobTable> ReadTable(const BlobRef& ref, uint64_t stored_length);
  // The chunk's id under this index in the map below `root`.
  base::Result<std::optional<base::Digest256>> LookUp(const MapPage& root, uint64_t index);
  // The same from the cache alone: false if it has not all pages on the way.
  bool TryLookUp(const MapPage& root, uint64_t index, std::optional<base::Digest256>* id);
  // Ascending; false if `visit` stopped it. `base_index` is the first chunk number under the page.
  base::Result<bool> VisitMap(const MapPage& page, uint64_t base_index, uint64_t from, uint64_t to,
                              const Content::ChunkVisitor& visit);

  // What a chunk borrows, and of whom.
  struct Loan {
    BlobRef owner;  // the suffix only where the owner was looked at
    std::vector<uint16_t> pages;
  };
  static std::vector<Loan> LoansOf(const std::vector<Block>& blocks,
                                   const std::vector<base::Digest256>& owners);

  const ChunkStoreOptions& options() const { return options_; }
  const base::Clock& clock() const { return clock_; }
  MetaStore& meta() { return meta_; }
  References& references() { return references_; }
  BlockIndex& block_index() { return block_index_; }

  struct Instruments {
    base::Counter& put_new;
    base::Counter& put_known;
    base::Counter& put_hole;
    base::Counter& plain_bytes;
    base::Counter& stored_bytes;
    base::Counter& borrowed_bytes;
    base::Counter& corruption;
    base::Counter& collected_bytes;
    base::Gauge& ingests;
  };
  const Instruments& instruments() const { return instruments_; }

 private:
  friend class Claim;

  // Claims a name, and takes what another one holds.
  struct Taken {
    std::unique_ptr<Claim> claim;
    HolderRecord from;
  };
  base::Result<Taken> TakeHeld(std::string_view source, std::string_view holder,
                               std::string_view attributes);

  base::Result<std::optional<Stored>> StoreKnown(Token token, BlobKind kind,
                                                 const base::Digest256& id);
  base::Result<Stored> StoreNew(Token token, BlobKind kind, const base::Digest256& id,
                                base::ByteView plain);
  struct SharingPlan {
    std::vector<Block> blocks;
    std::vector<base::Digest256> owners;
    std::vector<uint64_t> suffixes;  // of the owners' blobs
  };
  // Nothing: what it was to borrow can't be borrowed (any more), or what it was to take the place
  // of became something else, and nothing was stored.
  base::Result<std::optional<Stored>> Write(Token token, BlobKind kind, const base::Digest256& id,
                                            base::ByteView plain, const SharingPlan& plan);
  EncodedBlob Encode(BlobKind kind, const base::Digest256& id, base::ByteView plain,
                     const SharingPlan& plan);
  base::Result<void> CheckSpace(uint64_t bytes);
  base::Result<void> TidyName(std::string_view name);
  base::Result<bool> GiveUp(Token token, const Journal& journal);
  base::Result<void> DropScratch(Token token);

  // --- sharing (sharing.cc)

  SharingPlan PlanSharing(const base::Digest256& id, base::ByteView plain);
  base::Result<void> BorrowFrom(const base::Digest256& owner,
                                const std::vector<std::optional<BlockIndex::Place>>& places,
                                base::ByteView plain, SharingPlan* plan);
  base::Result<bool> TakeLoans(const BlobRef& borrower, const SharingPlan& plan);
  // Plain bytes of blocks first..last, which lie in one owner, one after the other. kCorruption.
  base::Result<void> ReadBorrowed(const BlobTable& table, size_t first, size_t last,
                                  base::MutableByteView into);
  // All blocks over these plain bytes lie in the table's own blob.
  static bool LiesIn(const BlobTable& table, uint32_t offset, uint32_t length);
  // The owner's block that is the very one that was borrowed; null if it was cut otherwise since.
  static const Block* OwnersBlock(const BlobTable& owner, const Block& borrowed);
  // The last block, up to `last`, of those that lie with `first` in one piece of one owner.
  static size_t EndOfLoan(const BlobTable& table, size_t first, size_t last);

  base::Result<std::shared_ptr<const OpenBlob>> FindBlob(const base::Digest256& id,
                                                         const Record& record);
  // Runs `read` on the opened blob; again if the blob was replaced meanwhile; quarantines what is
  // corrupt.
  using BlobReader = std::function<base::Result<void>(const OpenBlob& blob)>;
  // On whose behalf: a quarantined chunk is not read for itself, but blocks of it for borrowers.
  enum class Whose { kChunk, kBorrowers };
  base::Result<void> WithBlob(const base::Digest256& id, const BlobReader& read,
                              Whose whose = Whose::kChunk);
  // The same for a borrower; `read` sets `fits`: whether the blob has what was borrowed.
  base::Result<void> WithOwner(const base::Digest256& owner, const BlobReader& read,
                               const bool& fits);
  void Quarantine(const BlobRef& blob, const base::Error& error);
  base::Result<void> ReadBlocks(const OpenBlob& blob, uint32_t offset, base::MutableByteView into,
                                bool keep);
  // Reads from `offset` on, whose block the cache has not, up to the next that it has; how much.
  base::Result<size_t> ReadMissing(const OpenBlob& blob, uint32_t offset,
                                   base::MutableByteView into, bool keep);
  base::Result<void> ReadRun(const OpenBlob& blob, size_t first, size_t last, uint32_t offset,
                             base::MutableByteView into, bool keep);
  base::Result<size_t> ReadLoan(const OpenBlob& blob, size_t first, size_t last, uint32_t offset,
                                base::MutableByteView into, bool keep);
  void Keep(const base::Digest256& id, const Block& block, const uint8_t* plain);

  // Blocks first..last as zstd frames: of stored bytes read into memory, or of raw ones in a file.
  base::Result<ContentPiece> StoredFrames(const OpenBlob& blob, size_t first, size_t last);
  base::Result<size_t> NextFrames(const OpenBlob& blob, size_t first, size_t last,
                                  std::vector<ContentPiece>* pieces);
  base::Result<ContentPiece> BorrowedFrames(const BlobTable& table, size_t first, size_t last);
  base::Result<std::vector<ContentPiece>> FileFrames(const OpenBlob& blob, size_t first,
                                                     size_t last);

  // The stored bytes of some blocks that are here, runs of neighbours read in one go.
  base::Result<ContentPiece> StoredRuns(const OpenBlob& blob, std::span<const size_t> numbers);
  // The same of blocks elsewhere, which have one owner.
  base::Result<void> BorrowedRuns(const BlobTable& table, std::span<const size_t> numbers,
                                  std::vector<ContentPiece>* pieces);
  // Blocks as they are stored, here or with their owners.
  base::Result<std::vector<StoredBlock>> Describe(const BlobTable& table,
                                                  std::span<const size_t> numbers);

  // One step of the collector over the partitions in `todo`, which it sets to where the next has to
  // look; how many doomed blobs it removed.
  base::Result<uint64_t> CollectStep(Partitions* todo, CollectReport* report, Throttle& throttle);
  // What dead pages and borrowers refer to loses their tags, durably. Adds to `touched` where.
  base::Result<void> DropReferences(std::span<const Doomed> doomed, Partitions* touched);
  base::Result<void> DropReferences(const Doomed& dead, Partitions* touched);
  base::Result<std::vector<base::Digest256>> ReferencesOf(const Doomed& dead, std::string* tag);
  base::Result<void> RemoveBlobs(std::span<const Doomed> doomed);
  base::Result<void> RemoveGarbage(CollectReport* report, Throttle& throttle,
                                   const ProgressFn& progress, Partitions todo);
  // What is kept for a few blocks alone is written anew with these alone.
  base::Result<Partitions> CompactLenders(CollectReport* report, Throttle& throttle,
                                          const ProgressFn& progress);
  base::Result<void> CompactOne(const base::Digest256& id, std::unique_ptr<Claim>* claim,
                                CollectReport* report, Throttle& throttle, Partitions* touched);
  base::Result<std::vector<bool>> BlocksToKeep(const Record& record, const BlobTable& table);
  base::Result<std::optional<std::string>> RestOfLender(const base::Digest256& id,
                                                        const Record& record);
  base::Result<uint64_t> CompactLender(const base::Digest256& id, std::unique_ptr<Claim>* claim,
                                       std::vector<Doomed>* doomed, Throttle& throttle);
  base::Result<void> RecoverAbandoned(CollectReport* report);
  base::Result<void> SweepBlockIndex(Throttle& throttle, const ProgressFn& progress);
  base::Result<void> RemoveOrphans(CollectReport* report, Throttle& throttle,
                                   const ProgressFn& progress);

  const ChunkStoreOptions options_;
  BlobStore& blobs_;
  MetaStore& meta_;
  const base::Clock& clock_;
  References references_;
  BlockCache cache_;
  BlockIndex block_index_;
  Instruments instruments_;

  base::Mutex live_mutex_;
  std::set<Token> live_ GUARDED_BY(live_mutex_);  // who works in this process: never abandoned

  base::Mutex flight_mutex_;
  base::CondVar flight_done_;
  std::unordered_set<base::Digest256> in_flight_ GUARDED_BY(flight_mutex_);  // being written

  base::Mutex encoders_mutex_;
  std::vector<std::unique_ptr<BlobEncoder>> encoders_ GUARDED_BY(encoders_mutex_);  // idle

  base::Mutex space_mutex_;
  uint64_t headroom_bytes_ GUARDED_BY(space_mutex_) = 0;  // may be written before looking again
  int64_t looked_us_ GUARDED_BY(space_mutex_) = 0;        // when that was
};

}  // namespace chunkstore
