#pragma once

#include <bitset>
#include <memory>
#include <string>
#include <string_view>

#include "base/thread_annotations.h"
#include "chunkstore/chunk_store_impl.h"

namespace chunkstore {

// A token under which references are taken before a holder keeps them: an upload in flight, or a
// HoldAgain. The journal entry is the reason of its tags. Thread-safe up to Hold.
class Claim {
 public:
  // Claims the holder's name; durable. kAlreadyExists.
  static base::Result<std::unique_ptr<Claim>> Begin(ChunkStoreImpl& store, std::string_view holder,
                                                    std::string_view attributes);
  // Abandons unless it holds.
  ~Claim();

  // Renews the lease if a third of it passed. kCancelled: it was lost.
  base::Result<void> KeepAlive();
  // Stores under the token's tag.
  base::Result<ChunkStoreImpl::Stored> Store(BlobKind kind, const base::Digest256& id,
                                             base::ByteView plain);
  // Before a blob is written that takes the place of one that is there (References::Shrink).
  base::Result<void> Intend(const BlobRef& blob);
  // Tags what is there; false if it is not (or is quarantined).
  base::Result<bool> Take(const base::Digest256& id);

  // Makes the holder hold a root that carries the token's tag; durable. Once.
  base::Result<void> Hold(const Root& root, uint64_t nonzero_bytes);
  // Gives everything back. Idempotent.
  base::Result<void> Abandon();

  ChunkStoreImpl& store() { return store_; }
  Token token() const { return token_; }

 private:
  Claim(ChunkStoreImpl& store, std::string_view holder, std::string_view attributes);
  void Touch(const base::Digest256& id) EXCLUDES(mutex_);
  base::Result<void> WriteJournal(const Journal& next) REQUIRES(mutex_);
  base::Result<base::Digest256> StoreManifest(const Root& root, int64_t since_us);

  ChunkStoreImpl& store_;
  const std::string holder_;
  const std::string attributes_;
  const Token token_;
  std::string claimed_;  // the holder's record while it is only claimed

  base::Mutex mutex_;
  Journal journal_ GUARDED_BY(mutex_);
  int64_t renewed_us_ GUARDED_BY(mutex_) = 0;
  std::bitset<kRecordPartitions> touched_ GUARDED_BY(mutex_);
  bool settled_ GUARDED_BY(mutex_) = false;  // held or given back
};

}  // namespace chunkstore
