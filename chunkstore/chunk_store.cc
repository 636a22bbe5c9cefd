#include <algorithm>
#include <thread>

#include "base/coding.h"
#include "base/log.h"
#include "chunkstore/chunk_store_impl.h"
#include "chunkstore/ingest.h"

// Holders, the journal, and writing of blobs.

namespace chunkstore {
namespace {

using base::Code;
using base::Digest256;
using base::Error;
using base::MutexLock;
using base::Result;

constexpr size_t kScanBatch = 1024;
constexpr size_t kMaxIdleEncoders = 16;
// What is written, at most, before the free space is looked at again: this much, a part of what was
// left, and what takes this long.
constexpr uint64_t kSpaceCheckBytes = 32 * base::kMiB;
constexpr uint64_t kSpaceParts = 16;
constexpr int64_t kSpaceCheckUs = 1'000'000;

Result<void> CheckHolderName(std::string_view name) {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '/' || c == '-';
  };
  if (name.empty() || name.size() > kMaxHolderBytes ||
      !std::all_of(name.begin(), name.end(), allowed))
    return Error(Code::kInvalidArgument,
                 "a holder's name is 1 to 200 of A-Z a-z 0-9 . _ / -, not \"" +
                     std::string(name.substr(0, kMaxHolderBytes)) + "\"");
  return {};
}

ChunkStore::Held ToHeld(std::string_view name, const HolderRecord& record) {
  ChunkStore::Held held;
  held.holder = name;
  if (record.held) held.root = Root{record.root, record.size_bytes};
  held.since_us = record.since_us;
  held.attributes = record.attributes;
  return held;
}

ChunkStoreImpl::Instruments MakeInstruments(base::Metrics& metrics) {
  const std::string puts = "quarry_chunkstore_puts_total";
  const std::string help = "Chunks, map pages and manifests that were put, by what came of it.";
  return {
      .put_new = metrics.GetCounter(puts, help, {{"result", "new"}}),
      .put_known = metrics.GetCounter(puts, help, {{"result", "known"}}),
      .put_hole = metrics.GetCounter(puts, help, {{"result", "hole"}}),
      .plain_bytes = metrics.GetCounter("quarry_chunkstore_written_plain_bytes_total",
                                        "Plain bytes of blobs that were written."),
      .stored_bytes = metrics.GetCounter("quarry_chunkstore_written_stored_bytes_total",
                                         "Bytes of blobs that were written, as stored."),
      .borrowed_bytes =
          metrics.GetCounter("quarry_chunkstore_written_borrowed_bytes_total",
                             "Plain bytes of new chunks that were blocks of other chunks already."),
      .corruption = metrics.GetCounter("quarry_chunkstore_corruption_total",
                                       "Blobs that were found corrupt or missing."),
      .collected_bytes = metrics.GetCounter("quarry_chunkstore_collected_bytes_total",
                                            "Stored bytes that the collector gave back."),
      .ingests = metrics.GetGauge("quarry_chunkstore_ingests", "Ingests in flight."),
  };
}

}  // namespace

Result<std::unique_ptr<ChunkStore>> ChunkStore::Open(const ChunkStoreOptions& options,
                                                     BlobStore& blobs, MetaStore& meta,
                                                     const base::Clock& clock,
                                                     base::Metrics& metrics) {
  std::unique_ptr<ChunkStore> store =
      std::make_unique<ChunkStoreImpl>(options, blobs, meta, clock, metrics);
  return store;
}

ChunkStoreImpl::ChunkStoreImpl(const ChunkStoreOptions& options, BlobStore& blobs, MetaStore& meta,
                               const base::Clock& clock, base::Metrics& metrics)
    : options_(options),
      blobs_(blobs),
      meta_(meta),
      clock_(clock),
      references_(meta),
      cache_(options.cache_bytes, metrics),
      block_index_(meta),
      instruments_(MakeInstruments(metrics)) {}

void Throttle::Spend(uint64_t bytes) {
  if (rate_ == 0) return;
  using std::chrono::steady_clock;
  const auto now = steady_clock::now();
  const auto burst = std::chrono::milliseconds(100);
  paid_until_ = std::max(paid_until_, now - burst) +
                std::chrono::nanoseconds(static_cast<int64_t>(1e9 * static_cast<double>(bytes) /
                                                              static_cast<double>(rate_)));
  if (paid_until_ > now) std::this_thread::sleep_for(paid_until_ - now);
}

// --- holders

Result<std::unique_ptr<Ingest>> ChunkStoreImpl::NewIngest(std::string_view holder,
                                                          std::string_view attributes) {
  RETURN_IF_ERROR(TidyName(holder));
  ASSIGN_OR_RETURN(std::unique_ptr<Claim> claim, Claim::Begin(*this, holder, attributes));
  std::unique_ptr<Ingest> ingest = std::make_unique<IngestImpl>(std::move(claim), std::nullopt);
  return ingest;
}

Result<std::unique_ptr<Ingest>> ChunkStoreImpl::NewIngestOver(std::string_view holder,
                                                              std::string_view attributes,
                                                              std::string_view base_holder) {
  ASSIGN_OR_RETURN(Taken taken, TakeHeld(base_holder, holder, attributes));
  const IngestImpl::Base base{.root = {taken.from.root, taken.from.size_bytes},
                              .nonzero_bytes = taken.from.nonzero_bytes};
  std::unique_ptr<Ingest> ingest = std::make_unique<IngestImpl>(std::move(taken.claim), base);
  return ingest;
}

Result<Root> ChunkStoreImpl::HoldAgain(std::string_view source, std::string_view holder,
                                       std::string_view attributes) {
  ASSIGN_OR_RETURN(const Taken taken, TakeHeld(source, holder, attributes));
  const Root root{taken.from.root, taken.from.size_bytes};
  RETURN_IF_ERROR(taken.claim->Hold(root, taken.from.nonzero_bytes));
  return root;
}

Result<ChunkStoreImpl::Taken> ChunkStoreImpl::TakeHeld(std::string_view source,
                                                       std::string_view holder,
                                                       std::string_view attributes) {
  RETURN_IF_ERROR(TidyName(holder));
  const auto gone = [&] {
    return Error(Code::kNotFound, "nothing is held under \"" + std::string(source) + "\"");
  };
  ASSIGN_OR_RETURN(std::optional<HolderRecord> from, GetHolder(source));
  if (!from || !from->held) return gone();
  ASSIGN_OR_RETURN(std::unique_ptr<Claim> claim, Claim::Begin(*this, holder, attributes));
  ASSIGN_OR_RETURN(const bool taken, claim->Take(from->root));
  // If the source still holds now, it held when the root got our tag: so nothing below it was
  // dropped.
  ASSIGN_OR_RETURN(const std::optional<HolderRecord> still, GetHolder(source));
  if (!still || still->token != from->token) return gone();
  if (!taken)
    return Error(Code::kCorruption,
                 "the map's root page " + from->root.hex() + " is corrupt or lost");
  return Taken{std::move(claim), *std::move(from)};
}

// Checks the name, and frees it if an ingest that claims it was abandoned.
Result<void> ChunkStoreImpl::TidyName(std::string_view name) {
  RETURN_IF_ERROR(CheckHolderName(name));
  ASSIGN_OR_RETURN(const std::optional<HolderRecord> record, GetHolder(name));
  if (!record || record->held) return {};
  ASSIGN_OR_RETURN(const bool recovered, Recover(record->token, false));
  (void)recovered;
  return {};
}

Result<void> ChunkStoreImpl::Release(std::string_view holder) {
  RETURN_IF_ERROR(TidyName(holder));
  while (true) {
    Result<std::string> value = meta_.Get(kHoldersPartition, HolderKey(holder));
    if (!value.has_value() && value.error().code() == Code::kNotFound) return {};
    RETURN_IF_ERROR(value);
    ASSIGN_OR_RETURN(const HolderRecord record, DecodeHolder(*value));
    if (!record.held) return {};
    // Its ingest may not have given back its own references yet: the entry of the release takes
    // that one's place.
    ASSIGN_OR_RETURN(const bool settled, Recover(record.token, false));
    (void)settled;
    const Journal journal{.state = Journal::State::kReleased,
                          .expires_us = 0,
                          .holder = std::string(holder),
                          .targets = true,
                          .root = record.root,
                          .manifest = record.manifest};
    MetaBatch batch;
    batch.ExpectValue(HolderKey(holder), *value).ExpectAbsent(JournalKey(record.token));
    batch.Delete(HolderKey(holder)).Put(JournalKey(record.token), EncodeJournal(journal));
    Result<void> committed = meta_.Commit(kHoldersPartition, batch);
    if (!committed.has_value() && committed.error().code() == Code::kConflict) continue;
    RETURN_IF_ERROR(committed);
    RETURN_IF_ERROR(meta_.Sync());
    // Released for good. What is left can be done by the collector as well.
    Result<bool> recovered = Recover(record.token, true);
    if (!recovered.has_value())
      LOG(kWarn, "chunkstore", "left to the collector after the release of {}: {}", holder,
          recovered.error().ToString());
    return {};
  }
}

Result<ChunkStore::Held> ChunkStoreImpl::FindHolder(std::string_view holder) {
  RETURN_IF_ERROR(CheckHolderName(holder));
  ASSIGN_OR_RETURN(const std::optional<HolderRecord> record, GetHolder(holder));
  if (!record)
    return Error(Code::kNotFound, "nothing is held under \"" + std::string(holder) + "\"");
  return ToHeld(holder, *record);
}

Result<std::vector<ChunkStore::Held>> ChunkStoreImpl::Holders(std::string_view prefix,
                                                              std::string_view after,
                                                              size_t limit) {
  std::string from = HolderKey(prefix);
  if (!after.empty()) from = std::max(from, HolderKey(after) + '\0');
  std::vector<Held> found;
  Result<void> decoded;
  RETURN_IF_ERROR(meta_.Scan(kHoldersPartition, from, PrefixEnd(HolderKey(prefix)), limit,
                             [&](std::string_view key, std::string_view value) {
                               Result<HolderRecord> record = DecodeHolder(value);
                               if (record.has_value())
                                 found.push_back(ToHeld(key.substr(1), *record));
                               else
                                 decoded = record.error();
                               return record.has_value();
                             }));
  RETURN_IF_ERROR(decoded);
  return found;
}

// --- the journal

Result<std::optional<HolderRecord>> ChunkStoreImpl::GetHolder(std::string_view name) {
  Result<std::string> value = meta_.Get(kHoldersPartition, HolderKey(name));
  if (!value.has_value() && value.error().code() == Code::kNotFound)
    return std::optional<HolderRecord>();
  RETURN_IF_ERROR(value);
  ASSIGN_OR_RETURN(HolderRecord record, DecodeHolder(*value));
  return std::optional(std::move(record));
}

Result<std::optional<Journal>> ChunkStoreImpl::GetJournal(Token token) {
  Result<std::string> value = meta_.Get(kHoldersPartition, JournalKey(token));
  if (!value.has_value() && value.error().code() == Code::kNotFound)
    return std::optional<Journal>();
  RETURN_IF_ERROR(value);
  ASSIGN_OR_RETURN(Journal journal, DecodeJournal(*value));
  return std::optional(std::move(journal));
}

Result<std::vector<std::pair<Token, Journal>>> ChunkStoreImpl::ListJournal() {
  std::vector<std::pair<Token, Journal>> entries;
  Result<void> decoded;
  RETURN_IF_ERROR(meta_.Scan(kHoldersPartition, "j", PrefixEnd("j"), SIZE_MAX,
                             [&](std::string_view key, std::string_view value) {
                               Result<Token> token = NumberOfKey(key, 1);
                               Result<Journal> journal = DecodeJournal(value);
                               if (!token.has_value()) decoded = token.error();
                               if (!journal.has_value()) decoded = journal.error();
                               if (!decoded.has_value()) return false;
                               entries.emplace_back(*token, *std::move(journal));
                               return true;
                             }));
  RETURN_IF_ERROR(decoded);
  return entries;
}

void ChunkStoreImpl::SetLive(Token token, bool live) {
  MutexLock lock(live_mutex_);
  if (live)
    live_.insert(token);
  else
    live_.erase(token);
}

bool ChunkStoreImpl::IsAbandoned(Token token, const Journal& journal) {
  // All but an active one are over: whoever comes by may help to tidy up.
  if (journal.state != Journal::State::kActive) return true;
  MutexLock lock(live_mutex_);
  return !live_.contains(token) && clock_.NowUs() >= journal.expires_us;
}

// From active to abandoned, and the claim on the name with it. False if it moved meanwhile.
Result<bool> ChunkStoreImpl::GiveUp(Token token, const Journal& journal) {
  Journal next = journal;
  next.state = Journal::State::kAbandoned;
  MetaBatch batch;
  batch.ExpectValue(JournalKey(token), EncodeJournal(journal));
  batch.Put(JournalKey(token), EncodeJournal(next));
  const std::string key = HolderKey(journal.holder);
  Result<std::string> value = meta_.Get(kHoldersPartition, key);
  if (value.has_value()) {
    ASSIGN_OR_RETURN(const HolderRecord record, DecodeHolder(*value));
    if (!record.held && record.token == token) batch.ExpectValue(key, *value).Delete(key);
  } else if (value.error().code() != Code::kNotFound) {
    return value.error();
  }
  Result<void> committed = meta_.Commit(kHoldersPartition, batch);
  if (!committed.has_value() && committed.error().code() == Code::kConflict) return false;
  RETURN_IF_ERROR(committed);
  return true;
}

Result<bool> ChunkStoreImpl::Recover(Token token, bool own, const Partitions& touched) {
  std::optional<Journal> journal;
  while (true) {
    ASSIGN_OR_RETURN(journal, GetJournal(token));
    if (!journal && (!own || touched.none())) return true;
    if (!journal) {
      // Somebody gave us up and tidied; what we took since, not knowing, is ours to give back.
      journal = Journal{.state = Journal::State::kAbandoned};
      break;
    }
    if (journal->state != Journal::State::kActive) break;
    if (!own && !IsAbandoned(token, *journal)) return false;
    ASSIGN_OR_RETURN(const bool given_up, GiveUp(token, *journal));
    (void)given_up;  // either way: look again
  }
  std::vector<Doomed> doomed;
  if (journal->targets && journal->state != Journal::State::kDone) {
    const Digest256 targets[] = {journal->root, journal->manifest};
    RETURN_IF_ERROR(references_.DropFromAll(targets, HolderTag(token), &doomed));
  }
  if (journal->state != Journal::State::kReleased) {
    for (size_t i = 0; i < kRecordPartitions; ++i) {
      if (!touched[i]) continue;
      RETURN_IF_ERROR(references_.DropIngest(token, i, &doomed));
    }
    RETURN_IF_ERROR(DropScratch(token));
  }
  // The references are gone for good before their reason, and records before their blobs.
  RETURN_IF_ERROR(meta_.Sync());
  RETURN_IF_ERROR(RemoveDoomed(doomed));
  MetaBatch batch;
  batch.ExpectValue(JournalKey(token), EncodeJournal(*journal)).Delete(JournalKey(token));
  Result<void> committed = meta_.Commit(kHoldersPartition, batch);
  if (!committed.has_value() && committed.error().code() != Code::kConflict)
    return committed.error();
  return true;
}

Result<void> ChunkStoreImpl::DropScratch(Token token) {
  const std::string partition = ScratchPartition(token);
  // Each scan goes on where the one before ended: what was deleted is not free to pass by.
  std::string from;
  while (true) {
    MetaBatch batch;
    RETURN_IF_ERROR(
        meta_.Scan(partition, from, "", kScanBatch, [&](std::string_view key, std::string_view) {
          batch.Delete(std::string(key));
          return true;
        }));
    if (batch.empty()) return {};
    from = batch.changes().back().key + '\0';
    RETURN_IF_ERROR(meta_.Commit(partition, batch));
  }
}

// --- writing

Result<std::optional<ChunkStoreImpl::Stored>> ChunkStoreImpl::StoreKnown(Token token, BlobKind kind,
                                                                         const Digest256& id) {
  ASSIGN_OR_RETURN(const References::AddResult result, references_.Add(id, IngestTag(token)));
  if (result.added != References::Added::kYes || !StandsFor(result.record.kind, kind))
    return std::optional<Stored>();
  return std::optional(Stored{.known = true, .record = result.record});
}

Result<ChunkStoreImpl::Stored> ChunkStoreImpl::Store(Token token, BlobKind kind,
                                                     const Digest256& id, base::ByteView plain) {
  while (true) {
    ASSIGN_OR_RETURN(const std::optional<Stored> known, StoreKnown(token, kind, id));
    if (known) {
      instruments_.put_known.Add();
      return *known;
    }
    MutexLock lock(flight_mutex_);
    if (in_flight_.insert(id).second) break;
    while (in_flight_.contains(id)) flight_done_.Wait(flight_mutex_);
  }
  Result<Stored> stored = StoreNew(token, kind, id, plain);
  MutexLock lock(flight_mutex_);
  in_flight_.erase(id);
  flight_done_.NotifyAll();
  return stored;
}

Result<ChunkStoreImpl::Stored> ChunkStoreImpl::StoreNew(Token token, BlobKind kind,
                                                        const Digest256& id, base::ByteView plain) {
  // Whoever was in flight before us may have stored it.
  ASSIGN_OR_RETURN(const std::optional<Stored> known, StoreKnown(token, kind, id));
  if (known) {
    instruments_.put_known.Add();
    return *known;
  }
  RETURN_IF_ERROR(CheckSpace(plain.size()));
  for (bool alone = false;; alone = true) {
    // What is there, but not whole, may lend to those that we would borrow from; and a page that is
    // to be healed stays a page.
    ASSIGN_OR_RETURN(const std::optional<Record> damaged, references_.Find(id));
    if (damaged && damaged->kind == BlobKind::kPage) kind = BlobKind::kPage;
    SharingPlan plan;
    if (kind == BlobKind::kChunk)
      plan = alone || damaged ? SharingPlan{.blocks = HashBlocks(plain)} : PlanSharing(id, plain);
    ASSIGN_OR_RETURN(const std::optional<Stored> stored, Write(token, kind, id, plain, plan));
    if (stored) return *stored;
  }
}

EncodedBlob ChunkStoreImpl::Encode(BlobKind kind, const Digest256& id, base::ByteView plain,
                                   const SharingPlan& plan) {
  std::unique_ptr<BlobEncoder> encoder;
  {
    MutexLock lock(encoders_mutex_);
    if (!encoders_.empty()) {
      encoder = std::move(encoders_.back());
      encoders_.pop_back();
    }
  }
  if (!encoder)
    encoder = std::make_unique<BlobEncoder>(
        EncodeOptions{.compression_level = options_.compression_level});
  EncodedBlob encoded = kind == BlobKind::kChunk
                            ? encoder->Encode(id, plain, plan.blocks, plan.owners)
                            : encoder->Encode(kind, id, plain);
  MutexLock lock(encoders_mutex_);
  if (encoders_.size() < kMaxIdleEncoders) encoders_.push_back(std::move(encoder));
  return encoded;
}

Result<std::optional<ChunkStoreImpl::Stored>> ChunkStoreImpl::Write(Token token, BlobKind kind,
                                                                    const Digest256& id,
                                                                    base::ByteView plain,
                                                                    const SharingPlan& plan) {
  const BlobRef ref{id, NewToken()};
  RETURN_IF_ERROR(references_.Intend(token, ref, !plan.owners.empty()));
  const EncodedBlob encoded = Encode(kind, id, plain, plan);
  RETURN_IF_ERROR(blobs_.Put(BlobName(ref), encoded.pieces()).Annotate("storing " + id.hex()));
  ASSIGN_OR_RETURN(const bool lent, TakeLoans(ref, plan));
  if (!lent) return std::optional<Stored>();  // the next intent dooms it

  const Record mine{.kind = kind,
                    .building = kind == BlobKind::kPage,
                    .suffix = ref.suffix,
                    .incarnation = ref.suffix,
                    .plain_length = static_cast<uint32_t>(plain.size()),
                    .stored_length = static_cast<uint32_t>(encoded.stored_bytes()),
                    .borrowed_bytes = encoded.table().borrowed_bytes()};
  std::vector<Doomed> lost;
  Result<References::Settled> settled = references_.Settle(token, id, mine, &lost);
  if (!settled.has_value()) {
    // Cancelled: who took the ingest for abandoned could not know of a blob that came after.
    if (settled.error().code() == Code::kCancelled) {
      Result<void> returned = references_.DropFromAll(plan.owners, BorrowerTag(ref));
      Result<void> removed = blobs_.Remove(BlobName(ref));
      (void)returned;
      (void)removed;
    }
    return settled.error();
  }
  // What others borrow of a blob that is replaced is in the new one for good before the old one
  // goes.
  Result<void> removed;
  if (settled->created && !lost.empty()) removed = meta_.Sync();
  if (removed.has_value()) removed = RemoveDoomed(lost);
  if (!removed.has_value())
    LOG(kWarn, "chunkstore", "left to the collector: {}", removed.error().ToString());
  if (settled->refused) return std::optional<Stored>();
  if (settled->created) {
    instruments_.put_new.Add();
    instruments_.plain_bytes.Add(static_cast<double>(plain.size()));
    instruments_.stored_bytes.Add(static_cast<double>(encoded.stored_bytes()));
    instruments_.borrowed_bytes.Add(mine.borrowed_bytes);
    cache_.EraseBlob(id);
    if (kind == BlobKind::kChunk && options_.share_blocks) block_index_.Note(encoded.table());
  }
  return std::optional(Stored{.known = !settled->created, .record = settled->record});
}

// Ends an ingest while there is still room to delete. Looks at the disk again after some bytes, a
// part of what was left then, and after some time: other processes write too.
Result<void> ChunkStoreImpl::CheckSpace(uint64_t bytes) {
  MutexLock lock(space_mutex_);
  const int64_t now_us = clock_.NowUs();
  if (headroom_bytes_ >= bytes && now_us - looked_us_ < kSpaceCheckUs) {
    headroom_bytes_ -= bytes;
    return {};
  }
  ASSIGN_OR_RETURN(const base::SpaceInfo space, blobs_.Space());
  if (space.available_bytes < options_.reserve_bytes + 2 * bytes)
    return Error(
        Code::kOutOfSpace,
        "the store is full: " + std::to_string(space.available_bytes) +
            " bytes are left, and a part is reserved for deletions; delete something or add space");
  headroom_bytes_ =
      std::min(kSpaceCheckBytes, (space.available_bytes - options_.reserve_bytes) / kSpaceParts);
  looked_us_ = now_us;
  headroom_bytes_ -= std::min(headroom_bytes_, bytes);
  return {};
}

Result<void> ChunkStoreImpl::RemoveDoomed(std::span<const Doomed> doomed) {
  RETURN_IF_ERROR(DropReferences(doomed, nullptr));
  return RemoveBlobs(doomed);
}

Result<void> ChunkStoreImpl::RemoveBlobs(std::span<const Doomed> doomed) {
  for (const Doomed& one : doomed) {
    RETURN_IF_ERROR(blobs_.Remove(BlobName(one.blob)));
  }
  return references_.ForgetDoomed(doomed);
}

}  // namespace chunkstore
