#pragma once

#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/thread_annotations.h"
#include "chunkstore/chunk_store_impl.h"
#include "chunkstore/claim.h"
#include "chunkstore/map_editor.h"

namespace chunkstore {

// An upload in flight, or what changes of a base.
class IngestImpl : public Ingest {
 public:
  // What it begins with; the claim's tag keeps the base's map as long as the ingest lives.
  struct Base {
    Root root;
    uint64_t nonzero_bytes = 0;
  };
  IngestImpl(std::unique_ptr<Claim> claim, const std::optional<Base>& base)
      : claim_(std::move(claim)), base_(base) {}

  base::Result<PutInfo> Put(uint64_t index, base::ByteView plain) override;
  base::Result<PutInfo> PutHashed(uint64_t index, base::ByteView plain,
                                  const base::Digest256& id) override;
  base::Result<bool> PutKnown(uint64_t index, uint32_t length, const base::Digest256& id) override;
  base::Result<void> PutHole(uint64_t index) override;
  base::Result<void> Renew() override { return claim_->KeepAlive(); }
  base::Result<Root> Finish(uint64_t size_bytes) override;
  base::Result<void> Abort() override { return claim_->Abandon(); }

 private:
  // `known_id` may be null: then it is computed.
  base::Result<PutInfo> PutOne(uint64_t index, base::ByteView plain,
                               const base::Digest256* known_id);
  struct NewPage {
    base::Digest256 id;
    std::string encoded;
    MapPage page;
  };

  // `length` is missing for a hole: that ends where the content does.
  base::Result<void> Begin(uint64_t index, std::optional<size_t> length) EXCLUDES(mutex_);
  void NotBegun(uint64_t index) EXCLUDES(mutex_);
  base::Result<void> Settled(const MapEditor::Change& change) EXCLUDES(mutex_);
  base::Result<void> Spill(std::vector<MapEditor::Change> changes);
  base::Result<void> CheckSize(uint64_t size_bytes) EXCLUDES(mutex_);
  base::Result<void> CheckKept(uint64_t size_bytes);
  base::Result<Root> BuildAndHold(uint64_t size_bytes);
  base::Result<base::Digest256> BuildMap(uint64_t size_bytes, uint64_t* nonzero_bytes);
  base::Result<void> StorePages(std::vector<NewPage>* pages);

  std::unique_ptr<Claim> claim_;
  const std::optional<Base> base_;
  base::Mutex mutex_;
  std::set<uint64_t> unsettled_ GUARDED_BY(mutex_);              // begun, and not (or badly) ended
  std::vector<MapEditor::Change> unspilled_ GUARDED_BY(mutex_);  // at most kSpillChunks
  uint64_t end_ GUARDED_BY(mutex_) = 0;                          // of the last byte that was put
  uint64_t short_end_ GUARDED_BY(mutex_) =
      0;  // where a chunk of less than kChunkBytes ends; 0: none
  bool finished_ GUARDED_BY(mutex_) = false;
};

}  // namespace chunkstore
