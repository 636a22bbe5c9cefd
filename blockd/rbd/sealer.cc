#include <algorithm>
#include <chrono>
#include <utility>

#include "base/log.h"
#include "base/uuid.h"
#include "blockd/rbd/image.h"
#include "blockd/rbd/rbd_volume_store.h"

// Sealing: what differs between an RBD snapshot and the newest sealed one before it on its image
// (or what the image began as) is read and put over the content of that. Objects are as large as
// chunks.

namespace blockd::rbd {

using base::Code;
using base::Error;
using base::Result;
using chunkstore::kChunkBytes;

// The first that can be sealed now, those that somebody waits for before the others.
Result<bool> RbdVolumeStore::SealNext() {
  ASSIGN_OR_RETURN(std::vector<Ledger::Named> queue, ledger_.List(SealingRecord::kPrefix));
  std::vector<std::string> ids;
  std::vector<std::string> others;
  {
    base::MutexLock lock(mutex_);
    for (Ledger::Named& one : queue) {
      const bool first = wanted_.contains(one.id);
      (first ? ids : others).push_back(std::move(one.id));
    }
  }
  ids.insert(ids.end(), others.begin(), others.end());
  Result<bool> outcome = false;
  for (const std::string& id : ids) {
    if (stopping_) return false;
    Result<bool> sealed = SealOne(id);
    if (sealed && *sealed) return true;
    if (!sealed) outcome = std::move(sealed);
  }
  return outcome;
}

// False: not now, something else comes first or another process is at it.
Result<bool> RbdVolumeStore::SealOne(const std::string& point) {
  ASSIGN_OR_RETURN(const auto record, ledger_.Find<PointRecord>(point));
  if (!record) return false;
  ASSIGN_OR_RETURN(const std::shared_ptr<Cluster> cluster, Connection());
  ASSIGN_OR_RETURN(const std::unique_ptr<Image> image,
                   cluster->Open(record->image, point, Cluster::Mode::kRead));
  ASSIGN_OR_RETURN(auto sealing, PrepareSealing(point, *image));
  if (!sealing) return false;
  sealing->record = *record;
  ASSIGN_OR_RETURN(const bool claimed, ClaimSealing(*sealing));
  if (!claimed) return false;
  const Result<void> put = PutContent(*sealing, *image);
  RETURN_IF_ERROR(EndSealing(*sealing, put.has_value()));
  RETURN_IF_ERROR(put);
  return true;
}

// With what it is compared. Nothing: an earlier one comes first.
Result<std::optional<RbdVolumeStore::Sealing>> RbdVolumeStore::PrepareSealing(
    const std::string& point, Image& image) {
  Sealing sealing{.point = point,
                  .holder = std::string(kHolders) + point + "/" + base::NewUuidHex()};
  ASSIGN_OR_RETURN(const std::vector<Image::Snap> snaps, image.Snaps());
  for (const Image::Snap& snap : snaps) {
    if (snap.name == point) break;
    ASSIGN_OR_RETURN(const auto earlier, ledger_.Find<PointRecord>(snap.name));
    if (!earlier || !earlier->snap || !earlier->session.empty()) continue;
    if (earlier->holder.empty()) return std::optional<Sealing>();
    sealing.from = snap.name;
    sealing.base_holder = earlier->holder;
  }
  if (!sealing.from.empty()) return std::optional(std::move(sealing));
  ASSIGN_OR_RETURN(const auto record, ledger_.Find<ImageRecord>(image.name()));
  if (!record || record->base.empty()) return std::optional(std::move(sealing));
  ASSIGN_OR_RETURN(const auto base, ledger_.Find<PointRecord>(record->base));
  if (!base || base->holder.empty()) return std::optional<Sealing>();
  sealing.base_holder = base->holder;
  return std::optional(std::move(sealing));
}

Result<bool> RbdVolumeStore::ClaimSealing(Sealing& sealing) {
  bool claimed = false;
  RETURN_IF_ERROR(ledger_.Update([&](Change& change) -> Result<void> {
    claimed = false;
    ASSIGN_OR_RETURN(const auto now, change.Find<SealingRecord>(sealing.point));
    if (!now) return {};
    const bool other = !now->session.empty() && now->session != sessions_.mine();
    if (other) {
      ASSIGN_OR_RETURN(const bool lives, sessions_.Lives(now->session));
      if (lives) return {};
    }
    if (!now->holder.empty()) change.Mark("h/", now->holder);
    change.Put(sealing.point, SealingRecord{sessions_.mine(), sealing.holder});
    claimed = true;
    return {};
  }));
  return claimed;
}

Result<void> RbdVolumeStore::PutContent(const Sealing& sealing, Image& image) {
  uint64_t base_bytes = 0;
  std::unique_ptr<chunkstore::Ingest> ingest;
  if (sealing.base_holder.empty()) {
    ASSIGN_OR_RETURN(ingest, chunks_.NewIngest(sealing.holder, sealing.point));
  } else {
    ASSIGN_OR_RETURN(const auto held, chunks_.FindHolder(sealing.base_holder));
    if (!held.root) return Error(Code::kCorruption, sealing.base_holder + " holds nothing");
    base_bytes = held.root->size_bytes;
    ASSIGN_OR_RETURN(ingest,
                     chunks_.NewIngestOver(sealing.holder, sealing.point, sealing.base_holder));
  }
  RETURN_IF_ERROR(PutObjects(sealing, image, *ingest, base_bytes));
  RETURN_IF_ERROR(ingest->Finish(sealing.record.size_bytes));
  return {};
}

Result<void> RbdVolumeStore::PutObjects(const Sealing& sealing, Image& image,
                                        chunkstore::Ingest& ingest, uint64_t base_bytes) {
  const uint64_t size_bytes = sealing.record.size_bytes;
  std::set<uint64_t> indexes;
  RETURN_IF_ERROR(
      image.Diff(sealing.from, 0, size_bytes, false, [&](uint64_t offset, uint64_t length, bool) {
        // Also those that are gone: what lies below shows there or not, which reading tells.
        const uint64_t last = (offset + length - 1) / kChunkBytes;
        for (uint64_t index = offset / kChunkBytes; index <= last; ++index) indexes.insert(index);
      }));
  // A last chunk that was short and is longer now must be put again.
  if (base_bytes < size_bytes && base_bytes % kChunkBytes != 0)
    indexes.insert(base_bytes / kChunkBytes);
  base::Buffer buffer(kChunkBytes);
  for (const uint64_t index : indexes) {
    if (stopping_) return Error(Code::kCancelled, "the service stops");
    const uint64_t offset = index * kChunkBytes;
    const auto bytes = buffer.view().first(std::min<uint64_t>(kChunkBytes, size_bytes - offset));
    RETURN_IF_ERROR(image.Read(offset, bytes));
    RETURN_IF_ERROR(ingest.Put(index, bytes));
    sealed_bytes_.Add(static_cast<double>(bytes.size()));
    Pace(bytes.size());
  }
  return {};
}

// The point has its content, and is what the next one of its image is compared with.
Result<void> RbdVolumeStore::EndSealing(const Sealing& sealing, bool sealed) {
  Result<void> ended = ledger_.Update([&](Change& change) -> Result<void> {
    ASSIGN_OR_RETURN(auto point, change.Find<PointRecord>(sealing.point));
    ASSIGN_OR_RETURN(const auto now, change.Find<SealingRecord>(sealing.point));
    const bool ours = now && now->session == sessions_.mine() && now->holder == sealing.holder;
    if (!sealed || !point || !ours) {
      change.Mark("h/", sealing.holder);
      if (ours) change.Put(sealing.point, SealingRecord{});
      return {};
    }
    point->holder = sealing.holder;
    ++point->uses;
    change.Put(sealing.point, *point);
    change.Delete<SealingRecord>(sealing.point);
    ASSIGN_OR_RETURN(auto image, change.Get<ImageRecord>(point->image));
    const std::string old_tip = std::exchange(image.tip, sealing.point);
    change.Put(point->image, image);
    change.MarkAnew("d/", point->image);
    return old_tip.empty() ? Result<void>() : change.DropUse(old_tip);
  });
  base::MutexLock lock(mutex_);
  wanted_.erase(sealing.point);
  return ended;
}

// So that sealing leaves the cluster to others.
void RbdVolumeStore::Pace(uint64_t bytes) {
  using Clock = std::chrono::steady_clock;
  if (options_.seal_bytes_per_s == 0) return;
  const auto until =
      Clock::now() + std::chrono::milliseconds(bytes * 1000 / options_.seal_bytes_per_s);
  base::MutexLock lock(mutex_);
  while (!stopping_ && wanted_.empty()) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now());
    if (left.count() < 0) return;
    wake_.WaitForMs(mutex_, left.count() + 1);
  }
}

}  // namespace blockd::rbd
