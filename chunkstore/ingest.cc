#include "chunkstore/ingest.h"

#include <algorithm>

#include "base/check.h"
#include "base/coding.h"
#include "base/log.h"

namespace chunkstore {
namespace {

using base::Code;
using base::Digest256;
using base::Error;
using base::MutexLock;
using base::Result;

constexpr size_t kSpillChunks =
    512;  // chunk numbers kept in memory before they go to the scratch partition
constexpr size_t kPagesPerSync = 64;    // pages whose references are made durable together
constexpr size_t kMaxUnsettled = 1024;  // puts in flight, or failed

}  // namespace

// --- Claim

Claim::Claim(ChunkStoreImpl& store, std::string_view holder, std::string_view attributes)
    : store_(store), holder_(holder), attributes_(attributes), token_(NewToken()) {
  store_.instruments().ingests.Add(1);
  store_.SetLive(token_, true);
}

Result<std::unique_ptr<Claim>> Claim::Begin(ChunkStoreImpl& store, std::string_view holder,
                                            std::string_view attributes) {
  if (attributes.size() > kMaxAttributesBytes)
    return Error(Code::kTooLarge, "a holder's attributes take at most 64 KiB");
  std::unique_ptr<Claim> claim(new Claim(store, holder, attributes));
  const int64_t now_us = store.clock().NowUs();
  HolderRecord record;
  record.token = claim->token_;
  record.since_us = now_us;
  record.attributes = attributes;
  Journal journal;
  journal.expires_us = now_us + store.options().lease_ms * 1000;
  journal.holder = holder;
  MetaBatch batch;
  batch.ExpectAbsent(HolderKey(holder)).ExpectAbsent(JournalKey(claim->token_));
  batch.Put(HolderKey(holder), EncodeHolder(record));
  batch.Put(JournalKey(claim->token_), EncodeJournal(journal));
  {
    MutexLock lock(claim->mutex_);
    claim->claimed_ = EncodeHolder(record);
    claim->journal_ = journal;
    claim->renewed_us_ = now_us;
  }
  Result<void> committed = store.meta().Commit(kHoldersPartition, batch);
  if (!committed.has_value() && committed.error().code() == Code::kConflict)
    return Error(Code::kAlreadyExists,
                 "\"" + std::string(holder) + "\" holds or ingests something already");
  RETURN_IF_ERROR(committed);
  // The reason is durable before the first tag.
  RETURN_IF_ERROR(store.meta().Sync());
  return claim;
}

Claim::~Claim() {
  Result<void> abandoned = Abandon();
  if (!abandoned.has_value())
    LOG(kWarn, "chunkstore", "left to the collector: an upload for {}: {}", holder_,
        abandoned.error().ToString());
  store_.SetLive(token_, false);
  store_.instruments().ingests.Add(-1);
}

Result<void> Claim::WriteJournal(const Journal& next) {
  MetaBatch batch;
  batch.ExpectValue(JournalKey(token_), EncodeJournal(journal_));
  batch.Put(JournalKey(token_), EncodeJournal(next));
  Result<void> committed = store_.meta().Commit(kHoldersPartition, batch);
  if (!committed.has_value() && committed.error().code() == Code::kConflict)
    return Error(Code::kCancelled, "the upload was given up: its lease ran out");
  RETURN_IF_ERROR(committed);
  journal_ = next;
  return {};
}

Result<void> Claim::KeepAlive() {
  MutexLock lock(mutex_);
  const int64_t lease_us = store_.options().lease_ms * 1000;
  const int64_t now_us = store_.clock().NowUs();
  if (now_us - renewed_us_ < lease_us / 3) return {};
  Journal next = journal_;
  // Always another value than before, so that whoever gives us up by the old one fails.
  next.expires_us = std::max(now_us + lease_us, journal_.expires_us + 1);
  RETURN_IF_ERROR(WriteJournal(next));
  renewed_us_ = now_us;
  return {};
}

void Claim::Touch(const Digest256& id) {
  MutexLock lock(mutex_);
  touched_.set(PartitionOf(id));
}

Result<ChunkStoreImpl::Stored> Claim::Store(BlobKind kind, const Digest256& id,
                                            base::ByteView plain) {
  Touch(id);
  return store_.Store(token_, kind, id, plain);
}

Result<bool> Claim::Take(const Digest256& id) {
  Touch(id);
  ASSIGN_OR_RETURN(const References::AddResult result,
                   store_.references().Add(id, IngestTag(token_)));
  return result.added == References::Added::kYes;
}

Result<Digest256> Claim::StoreManifest(const Root& root, int64_t since_us) {
  const std::string plain = EncodeManifest({.holder = holder_,
                                            .token = token_,
                                            .root = root.id,
                                            .size_bytes = root.size_bytes,
                                            .since_us = since_us,
                                            .attributes = attributes_});
  const Digest256 id = base::Sha256(base::AsBytes(plain));
  ASSIGN_OR_RETURN(const auto stored, Store(BlobKind::kManifest, id, base::AsBytes(plain)));
  (void)stored;
  return id;
}

Result<void> Claim::Hold(const Root& root, uint64_t nonzero_bytes) {
  HolderRecord record;
  record.token = token_;
  record.held = true;
  record.root = root.id;
  record.size_bytes = root.size_bytes;
  record.nonzero_bytes = nonzero_bytes;
  record.since_us = store_.clock().NowUs();
  record.attributes = attributes_;
  ASSIGN_OR_RETURN(record.manifest, StoreManifest(root, record.since_us));

  MutexLock lock(mutex_);
  Journal next = journal_;
  next.targets = true;
  next.root = record.root;
  next.manifest = record.manifest;
  RETURN_IF_ERROR(WriteJournal(next));
  RETURN_IF_ERROR(store_.meta().Sync());
  const Digest256 targets[] = {record.root, record.manifest};
  RETURN_IF_ERROR(store_.references().AddToAll(targets, HolderTag(token_)));
  // Every blob, record and tag below is durable before the holder is seen.
  RETURN_IF_ERROR(store_.meta().Sync());

  next.state = Journal::State::kDone;
  MetaBatch batch;
  batch.ExpectValue(JournalKey(token_), EncodeJournal(journal_));
  batch.ExpectValue(HolderKey(holder_), claimed_);
  batch.Put(HolderKey(holder_), EncodeHolder(record));
  batch.Put(JournalKey(token_), EncodeJournal(next));
  Result<void> committed = store_.meta().Commit(kHoldersPartition, batch);
  if (!committed.has_value() && committed.error().code() == Code::kConflict)
    return Error(Code::kCancelled, "the upload was given up: its lease ran out");
  if (!committed.has_value()) {
    // The answer was lost, perhaps, and not the commit.
    ASSIGN_OR_RETURN(const std::optional<Journal> now, store_.GetJournal(token_));
    if (!now || now->state != Journal::State::kDone) return committed;
  }
  Result<void> synced = store_.meta().Sync();
  if (!synced.has_value()) {
    // Seen, but perhaps not durable: take it back rather than acknowledge what may vanish.
    Result<void> released = store_.Release(holder_);
    if (!released.has_value())
      LOG(kError, "chunkstore", "{} may hold what was not acknowledged: {}", holder_,
          released.error().ToString());
    return synced;
  }
  settled_ = true;
  Result<bool> recovered = store_.Recover(token_, true, touched_);
  if (!recovered.has_value())
    LOG(kWarn, "chunkstore", "left to the collector after the ingest of {}: {}", holder_,
        recovered.error().ToString());
  return {};
}

Result<void> Claim::Abandon() {
  MutexLock lock(mutex_);
  if (settled_) return {};
  ASSIGN_OR_RETURN(const bool recovered, store_.Recover(token_, true, touched_));
  settled_ = recovered;
  return {};
}

// --- IngestImpl

Result<void> IngestImpl::Begin(uint64_t index, size_t length) {
  if (length == 0 || length > kChunkBytes)
    return Error(Code::kInvalidArgument,
                 "a chunk has 1 to 4194304 bytes, not " + std::to_string(length));
  if (index >= kMaxContentBytes / kChunkBytes)
    return Error(Code::kTooLarge, "chunk " + std::to_string(index) +
                                      " lies beyond the largest content of " +
                                      std::to_string(kMaxContentBytes) + " bytes");
  const uint64_t end = index * kChunkBytes + length;
  MutexLock lock(mutex_);
  if (finished_) return Error(Code::kConflict, "the ingest was finished");
  if (unsettled_.size() >= kMaxUnsettled)
    return Error(Code::kUnavailable, "too many chunks of one ingest failed or are in flight");
  if (length < kChunkBytes) {
    if (short_end_ != 0 && short_end_ != end)
      return Error(Code::kInvalidArgument, "only the last chunk is shorter than the others");
    short_end_ = end;
  }
  end_ = std::max(end_, end);
  unsettled_.insert(index);
  return {};
}

Result<void> IngestImpl::Settled(uint64_t index, const Digest256* id) {
  std::vector<Chunk> spill;
  {
    MutexLock lock(mutex_);
    if (id) unspilled_.push_back({index, *id});
    if (unspilled_.size() < kSpillChunks) {
      unsettled_.erase(index);
      return {};
    }
    spill.swap(unspilled_);
  }
  RETURN_IF_ERROR(Spill(std::move(spill)));
  MutexLock lock(mutex_);
  unsettled_.erase(index);
  return {};
}

Result<void> IngestImpl::Spill(std::vector<Chunk> chunks) {
  if (chunks.empty()) return {};
  MetaBatch batch;
  for (const Chunk& chunk : chunks) {
    std::string key;
    base::PutOrdered64(&key, chunk.index);
    batch.Put(std::move(key), std::string(chunk.id.view()));
  }
  Result<void> committed = claim_->store().meta().Commit(ScratchPartition(claim_->token()), batch);
  if (!committed.has_value()) {
    // Nothing is lost: the next one tries again.
    MutexLock lock(mutex_);
    unspilled_.insert(unspilled_.end(), chunks.begin(), chunks.end());
  }
  return committed;
}

Result<Ingest::PutInfo> IngestImpl::Put(uint64_t index, base::ByteView plain) {
  return PutOne(index, plain, nullptr);
}

Result<Ingest::PutInfo> IngestImpl::PutHashed(uint64_t index, base::ByteView plain,
                                              const Digest256& id) {
  return PutOne(index, plain, &id);
}

Result<Ingest::PutInfo> IngestImpl::PutOne(uint64_t index, base::ByteView plain,
                                           const Digest256* known_id) {
  RETURN_IF_ERROR(Begin(index, plain.size()));
  RETURN_IF_ERROR(claim_->KeepAlive());
  if (base::IsZero(plain)) {
    claim_->store().instruments().put_hole.Add();
    RETURN_IF_ERROR(Settled(index, nullptr));
    return PutInfo{.known = true, .hole = true};
  }
  const Digest256 id = known_id != nullptr ? *known_id : base::Sha256(plain);
  ASSIGN_OR_RETURN(const auto stored, claim_->Store(BlobKind::kChunk, id, plain));
  // It may have taken long; a lease that is held now was held all the time.
  RETURN_IF_ERROR(claim_->KeepAlive());
  RETURN_IF_ERROR(Settled(index, &id));
  return PutInfo{.known = stored.known, .hole = false};
}

Result<void> IngestImpl::CheckSize(uint64_t size_bytes) {
  if (size_bytes > kMaxContentBytes)
    return Error(Code::kTooLarge,
                 "a content has at most " + std::to_string(kMaxContentBytes) + " bytes");
  MutexLock lock(mutex_);
  if (finished_) return Error(Code::kConflict, "the ingest was finished already");
  if (!unsettled_.empty())
    return Error(Code::kConflict,
                 "chunk " + std::to_string(*unsettled_.begin()) + " was not stored");
  if (end_ > size_bytes || (short_end_ != 0 && short_end_ != size_bytes))
    return Error(Code::kInvalidArgument, "chunks end at " +
                                             std::to_string(std::max(end_, short_end_)) +
                                             ", the content at " + std::to_string(size_bytes));
  finished_ = true;
  return {};
}

Result<Root> IngestImpl::Finish(uint64_t size_bytes) {
  RETURN_IF_ERROR(CheckSize(size_bytes));
  RETURN_IF_ERROR(claim_->KeepAlive());
  std::vector<Chunk> spill;
  {
    MutexLock lock(mutex_);
    spill.swap(unspilled_);
  }
  RETURN_IF_ERROR(Spill(std::move(spill)));
  uint64_t nonzero_bytes = 0;
  ASSIGN_OR_RETURN(const Digest256 root_id, BuildMap(size_bytes, &nonzero_bytes));
  const Root root{root_id, size_bytes};
  RETURN_IF_ERROR(claim_->Hold(root, nonzero_bytes));
  return root;
}

Result<Digest256> IngestImpl::BuildMap(uint64_t size_bytes, uint64_t* nonzero_bytes) {
  std::vector<NewPage> pages;
  MapBuilder builder(size_bytes, [&](const Digest256& id, std::string encoded, MapPage page) {
    pages.push_back({id, std::move(encoded), std::move(page)});
    return pages.size() < kPagesPerSync ? Result<void>() : StorePages(&pages);
  });
  const std::string partition = ScratchPartition(claim_->token());
  std::string from;
  while (true) {
    std::vector<std::pair<std::string, std::string>> found;
    RETURN_IF_ERROR(claim_->store().meta().Scan(partition, from, "", kFanOut,
                                                [&](std::string_view key, std::string_view value) {
                                                  found.emplace_back(key, value);
                                                  return true;
                                                }));
    for (const auto& [key, value] : found) {
      ASSIGN_OR_RETURN(const uint64_t index, NumberOfKey(key, 0));
      ASSIGN_OR_RETURN(const Digest256 id, Digest256::FromBytes(value));
      *nonzero_bytes += ChunkLength(index, size_bytes);
      RETURN_IF_ERROR(builder.Add(index, id));
    }
    if (found.size() < kFanOut) break;
    from = found.back().first + '\0';
    RETURN_IF_ERROR(claim_->KeepAlive());
  }
  ASSIGN_OR_RETURN(const Digest256 root, builder.Finish());
  RETURN_IF_ERROR(StorePages(&pages));
  return root;
}

// Blob, record, references on the children, then "complete": each durable before the next. Who
// finds a page that is not complete yet helps to complete it; the tags are the same, so that doing
// it twice changes nothing.
Result<void> IngestImpl::StorePages(std::vector<NewPage>* pages) {
  References& references = claim_->store().references();
  MetaStore& meta = claim_->store().meta();
  std::vector<std::pair<const NewPage*, uint64_t>> building;
  for (const NewPage& page : *pages) {
    ASSIGN_OR_RETURN(const auto stored,
                     claim_->Store(BlobKind::kPage, page.id, base::AsBytes(page.encoded)));
    if (stored.record.building) building.emplace_back(&page, stored.record.incarnation);
  }
  if (!building.empty()) {
    RETURN_IF_ERROR(meta.Sync());
    for (const auto& [page, incarnation] : building) {
      const std::vector<Digest256> children = page->page.Children();
      RETURN_IF_ERROR(references.AddToAll(children, PageTag(page->id, incarnation)));
    }
    RETURN_IF_ERROR(meta.Sync());
    for (const auto& [page, incarnation] : building) {
      const uint64_t expected = incarnation;
      ASSIGN_OR_RETURN(const bool changed, references.Change(page->id, [&](Record& record) {
        const bool ours = record.building && record.incarnation == expected;
        record.building = false;
        return ours;
      }));
      (void)changed;  // not by us: somebody helped
    }
  }
  pages->clear();
  return claim_->KeepAlive();
}

}  // namespace chunkstore
