#include "chunkstore/claim.h"

#include <algorithm>

#include "base/log.h"

namespace chunkstore {
namespace {

using base::Code;
using base::Digest256;
using base::Error;
using base::MutexLock;
using base::Result;

}  // namespace

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

Result<void> Claim::Intend(const BlobRef& blob) {
  Touch(blob.id);
  return store_.references().Intend(token_, blob, /*borrows=*/false);
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

}  // namespace chunkstore
