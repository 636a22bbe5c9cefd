#include "chunkstore/ingest.h"

#include <algorithm>

#include "base/coding.h"

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

std::string ScratchKey(uint64_t index) {
  std::string key;
  base::PutOrdered64(&key, index);
  return key;
}

// Changes as they lie in a scratch partition, ascending. One thread.
class ScratchReader {
 public:
  ScratchReader(Claim& claim, uint64_t end)
      : claim_(claim), partition_(ScratchPartition(claim.token())), end_(ScratchKey(end)) {}

  Result<std::optional<MapEditor::Change>> Next() {
    if (at_ == found_.size() && !last_) RETURN_IF_ERROR(Fetch());
    if (at_ == found_.size()) return std::optional<MapEditor::Change>();
    const auto& [key, value] = found_[at_++];
    MapEditor::Change change;
    ASSIGN_OR_RETURN(change.index, NumberOfKey(key, 0));
    if (!value.empty()) {
      ASSIGN_OR_RETURN(change.chunk, Digest256::FromBytes(value));
    }
    return std::optional(change);
  }

 private:
  Result<void> Fetch() {
    RETURN_IF_ERROR(claim_.KeepAlive());
    std::string from;
    if (!found_.empty()) from = found_.back().first + '\0';
    found_.clear();
    at_ = 0;
    RETURN_IF_ERROR(claim_.store().meta().Scan(partition_, from, end_, kFanOut,
                                               [&](std::string_view key, std::string_view value) {
                                                 found_.emplace_back(key, value);
                                                 return true;
                                               }));
    last_ = found_.size() < kFanOut;
    return {};
  }

  Claim& claim_;
  const std::string partition_;
  const std::string end_;
  std::vector<std::pair<std::string, std::string>> found_;
  size_t at_ = 0;
  bool last_ = false;
};

}  // namespace

Result<void> IngestImpl::Begin(uint64_t index, std::optional<size_t> length) {
  if (length && (*length == 0 || *length > kChunkBytes))
    return Error(Code::kInvalidArgument,
                 "a chunk has 1 to 4194304 bytes, not " + std::to_string(*length));
  if (index >= kMaxContentBytes / kChunkBytes)
    return Error(Code::kTooLarge, "chunk " + std::to_string(index) +
                                      " lies beyond the largest content of " +
                                      std::to_string(kMaxContentBytes) + " bytes");
  MutexLock lock(mutex_);
  if (finished_) return Error(Code::kConflict, "the ingest was finished");
  if (unsettled_.size() >= kMaxUnsettled)
    return Error(Code::kUnavailable, "too many chunks of one ingest failed or are in flight");
  const uint64_t end = index * kChunkBytes + length.value_or(0);
  if (length && *length < kChunkBytes) {
    if (short_end_ != 0 && short_end_ != end)
      return Error(Code::kInvalidArgument, "only the last chunk is shorter than the others");
    short_end_ = end;
  }
  if (length) end_ = std::max(end_, end);
  unsettled_.insert(index);
  return {};
}

Result<void> IngestImpl::Settled(const MapEditor::Change& change) {
  std::vector<MapEditor::Change> spill;
  {
    MutexLock lock(mutex_);
    // Where there is no base, what is not put is a hole anyway.
    if (change.chunk || base_) unspilled_.push_back(change);
    if (unspilled_.size() < kSpillChunks) {
      unsettled_.erase(change.index);
      return {};
    }
    spill.swap(unspilled_);
  }
  RETURN_IF_ERROR(Spill(std::move(spill)));
  MutexLock lock(mutex_);
  unsettled_.erase(change.index);
  return {};
}

Result<void> IngestImpl::Spill(std::vector<MapEditor::Change> changes) {
  if (changes.empty()) return {};
  MetaBatch batch;
  for (const MapEditor::Change& change : changes)
    batch.Put(ScratchKey(change.index), change.chunk ? std::string(change.chunk->view()) : "");
  Result<void> committed = claim_->store().meta().Commit(ScratchPartition(claim_->token()), batch);
  if (!committed.has_value()) {
    // Nothing is lost: the next one tries again.
    MutexLock lock(mutex_);
    unspilled_.insert(unspilled_.begin(), changes.begin(), changes.end());
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
    RETURN_IF_ERROR(Settled({.index = index, .chunk = {}}));
    return PutInfo{.known = true, .hole = true};
  }
  const Digest256 id = known_id != nullptr ? *known_id : base::Sha256(plain);
  ASSIGN_OR_RETURN(const auto stored, claim_->Store(BlobKind::kChunk, id, plain));
  // It may have taken long; a lease that is held now was held all the time.
  RETURN_IF_ERROR(claim_->KeepAlive());
  RETURN_IF_ERROR(Settled({.index = index, .chunk = id}));
  return PutInfo{.known = stored.known, .hole = false};
}

// Nothing was put: whoever began may begin again.
void IngestImpl::NotBegun(uint64_t index) {
  MutexLock lock(mutex_);
  unsettled_.erase(index);
}

Result<bool> IngestImpl::PutKnown(uint64_t index, uint32_t length, const Digest256& id) {
  RETURN_IF_ERROR(Begin(index, length));
  RETURN_IF_ERROR(claim_->KeepAlive());
  ASSIGN_OR_RETURN(const bool taken, claim_->Take(id));
  if (!taken) {
    NotBegun(index);
    return false;
  }
  claim_->store().instruments().put_known.Add();
  RETURN_IF_ERROR(Settled({.index = index, .chunk = id}));
  return true;
}

Result<void> IngestImpl::PutHole(uint64_t index) {
  RETURN_IF_ERROR(Begin(index, std::nullopt));
  RETURN_IF_ERROR(claim_->KeepAlive());
  claim_->store().instruments().put_hole.Add();
  return Settled({.index = index, .chunk = {}});
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
  return {};
}

// A chunk of the base that is to be longer or shorter than it was, or more than a hole, was put
// again. Only the last chunk of the shorter of the two can be that.
Result<void> IngestImpl::CheckKept(uint64_t size_bytes) {
  const uint64_t shorter = base_ ? std::min(base_->root.size_bytes, size_bytes) : 0;
  if (shorter == 0) return {};
  const uint64_t index = ChunkCount(shorter) - 1;
  const uint32_t length = ChunkLength(index, size_bytes);
  if (length == ChunkLength(index, base_->root.size_bytes)) return {};
  ChunkStoreImpl& store = claim_->store();
  const Result<std::string> put =
      store.meta().Get(ScratchPartition(claim_->token()), ScratchKey(index));
  if (put.has_value()) return {};
  if (put.error().code() != Code::kNotFound) return put.error();
  ASSIGN_OR_RETURN(const std::shared_ptr<const MapPage> root, store.ReadPage(base_->root.id));
  ASSIGN_OR_RETURN(const std::optional<Digest256> kept, store.LookUp(*root, index));
  if (!kept) return {};
  return Error(Code::kInvalidArgument,
               "chunk " + std::to_string(index) + " of the base is the last and has not the " +
                   std::to_string(length) + " bytes that the new size asks for: put it again");
}

Result<Root> IngestImpl::Finish(uint64_t size_bytes) {
  RETURN_IF_ERROR(CheckSize(size_bytes));
  RETURN_IF_ERROR(claim_->KeepAlive());
  std::vector<MapEditor::Change> spill;
  {
    MutexLock lock(mutex_);
    spill.swap(unspilled_);
  }
  RETURN_IF_ERROR(Spill(std::move(spill)));
  RETURN_IF_ERROR(CheckKept(size_bytes));
  {
    MutexLock lock(mutex_);
    finished_ = true;
  }
  Result<Root> root = BuildAndHold(size_bytes);
  // Nothing we refer to goes while we hold our tags: if something did, we were given up.
  if (!root.has_value() && root.error().code() == Code::kNotFound)
    RETURN_IF_ERROR(claim_->KeepAlive());
  return root;
}

Result<Root> IngestImpl::BuildAndHold(uint64_t size_bytes) {
  uint64_t nonzero_bytes = 0;
  ASSIGN_OR_RETURN(const Digest256 root_id, BuildMap(size_bytes, &nonzero_bytes));
  const Root root{root_id, size_bytes};
  RETURN_IF_ERROR(claim_->Hold(root, nonzero_bytes));
  return root;
}

Result<Digest256> IngestImpl::BuildMap(uint64_t size_bytes, uint64_t* nonzero_bytes) {
  std::vector<NewPage> pages;
  ScratchReader changes(*claim_, ChunkCount(size_bytes));
  std::optional<Root> base;
  if (base_) base = base_->root;
  MapEditor editor(
      base, size_bytes,
      [&](const Digest256& id) -> Result<std::shared_ptr<const MapPage>> {
        RETURN_IF_ERROR(claim_->KeepAlive());
        return claim_->store().ReadPage(id);
      },
      [&] { return changes.Next(); },
      [&](const Digest256& id, std::string encoded, MapPage page) {
        pages.push_back({id, std::move(encoded), std::move(page)});
        return pages.size() < kPagesPerSync ? Result<void>() : StorePages(&pages);
      });
  ASSIGN_OR_RETURN(const MapEditor::Outcome outcome, editor.Run());
  RETURN_IF_ERROR(StorePages(&pages));
  // A damaged store may not know the base's bytes (rebuild).
  const uint64_t before = outcome.added_bytes + (base_ ? base_->nonzero_bytes : 0);
  *nonzero_bytes = before - std::min(before, outcome.removed_bytes);
  return outcome.root;
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
