#include <utility>

#include "base/log.h"
#include "blockd/rbd/image.h"
#include "blockd/rbd/rbd_volume_store.h"

// What happens in the background: the work that marks name. Each step may be done twice, by several
// processes, and may end anywhere: the mark goes last.

namespace blockd::rbd {

using base::Code;
using base::Result;

namespace {

constexpr size_t kMarksAtOnce = 256;
constexpr int64_t kIdleMs = 1000;
constexpr int64_t kUpkeepEveryUs = 60 * base::kSecondUs;
constexpr int64_t kBeatsALease = 3;

}  // namespace

bool RbdVolumeStore::Did(const char* what, const Result<bool>& result) {
  if (!result) {
    if (!stopping_) LOG(kWarn, "rbd", "{}: {}", what, result.error().ToString());
    return false;
  }
  return *result;
}

bool RbdVolumeStore::Tidy() {
  bool did = false;
  if (!options_.background) Beat();
  did |= Did("giving up snapshots", GiveUpDeadPoints());
  did |= Did("removing RBD snapshots", DropSnaps());
  did |= Did("removing images", RemoveImages());
  did |= Did("releasing contents", ReleaseHolders());
  if (clock_.NowUs() >= next_upkeep_us_) {
    next_upkeep_us_ = clock_.NowUs() + std::min(kUpkeepEveryUs, options_.parent_idle_ms * 1000);
    did |= Did("removing parents", RemoveIdleParents());
    const Result<void> forgotten = sessions_.ForgetOld();
    if (!forgotten) LOG(kWarn, "rbd", "old sessions: {}", forgotten.error().ToString());
  }
  did |= Did("sealing", SealNext());
  return did;
}

void RbdVolumeStore::Run() {
  while (!stopping_) {
    if (Tidy()) continue;
    base::MutexLock lock(mutex_);
    if (!stopping_) wake_.WaitForMs(mutex_, kIdleMs);
  }
}

void RbdVolumeStore::Beat() {
  const Result<void> beat = sessions_.Beat();
  if (!beat) LOG(kError, "rbd", "renewing the lease: {}", beat.error().ToString());
  std::vector<std::shared_ptr<Image>> images;
  {
    base::MutexLock lock(mutex_);
    for (const auto& [id, open] : open_) images.push_back(open.image);
  }
  for (const std::shared_ptr<Image>& image : images) image->CheckLock();
}

void RbdVolumeStore::RunBeats() {
  while (!stopping_) {
    Beat();
    base::MutexLock lock(mutex_);
    if (!stopping_) wake_beats_.WaitForMs(mutex_, options_.lease_ms / kBeatsALease);
  }
}

Result<bool> RbdVolumeStore::ReleaseHolders() {
  ASSIGN_OR_RETURN(const auto marks, ledger_.List("h/", kMarksAtOnce));
  for (const Ledger::Named& mark : marks) {
    RETURN_IF_ERROR(chunks_.Release(mark.id));
    ledger_.TakeOff("h/", mark);
  }
  return !marks.empty();
}

Result<bool> RbdVolumeStore::GiveUpDeadPoints() {
  ASSIGN_OR_RETURN(const auto marks, ledger_.List("t/", kMarksAtOnce));
  bool did = false;
  for (const Ledger::Named& mark : marks) {
    ASSIGN_OR_RETURN(const bool lives, sessions_.Lives(mark.value));
    if (lives) continue;
    LetGoOfPoint(mark.id);
    ledger_.TakeOff("t/", mark);
    did = true;
  }
  return did;
}

// ---- images

Result<bool> RbdVolumeStore::RemoveImages() {
  ASSIGN_OR_RETURN(const auto marks, ledger_.List("g/"));
  bool did = false;
  for (const Ledger::Named& mark : marks) {
    if (stopping_) break;
    ASSIGN_OR_RETURN(const auto image, ledger_.Find<ImageRecord>(mark.id));
    if (!image) {
      ledger_.TakeOff("g/", mark);
    } else if (image->state == ImageState::kMaking) {
      ASSIGN_OR_RETURN(const bool lives, sessions_.Lives(image->session));
      if (lives) continue;
      RETURN_IF_ERROR(ledger_.Update([&](Change& change) -> Result<void> {
        ASSIGN_OR_RETURN(const auto now, change.Find<ImageRecord>(mark.id));
        const bool same = now && now->state == ImageState::kMaking;
        return same ? change.GiveUpImage(mark.id) : Result<void>();
      }));
      did = true;
    } else {
      ASSIGN_OR_RETURN(const bool removed, RemoveImage(mark.id));
      did |= removed;
    }
  }
  return did;
}

// False: it has children, or is still open somewhere.
Result<bool> RbdVolumeStore::RemoveImage(const std::string& image) {
  const auto blocked = blocked_.find(image);
  if (blocked != blocked_.end() && clock_.NowUs() - blocked->second < kUpkeepEveryUs) return false;
  ASSIGN_OR_RETURN(const std::shared_ptr<Cluster> cluster, Connection());
  Result<void> removed = cluster->Remove(image);
  if (!removed && removed.error().code() == Code::kConflict) {
    blocked_[image] = clock_.NowUs();
    return false;
  }
  RETURN_IF_ERROR(std::move(removed));
  blocked_.clear();  // it may have been the child that they waited for
  RETURN_IF_ERROR(ledger_.Update([&](Change& change) -> Result<void> {
    change.Delete<ImageRecord>(image);
    change.Unmark("g/", image);
    return {};
  }));
  return true;
}

// ---- RBD snapshots

Result<bool> RbdVolumeStore::DropSnaps() {
  ASSIGN_OR_RETURN(const auto marks, ledger_.List("d/", kMarksAtOnce));
  Result<bool> outcome = false;
  for (const Ledger::Named& mark : marks) {
    Result<void> dropped = DropSnapsOf(mark.id);
    if (dropped) {
      ledger_.TakeOff("d/", mark);
      if (outcome) outcome = true;
    } else {
      outcome = std::move(dropped).error();
    }
  }
  return outcome;
}

Result<void> RbdVolumeStore::DropSnapsOf(const std::string& id) {
  ASSIGN_OR_RETURN(const auto record, ledger_.Find<ImageRecord>(id));
  if (!record || record->state != ImageState::kReady || !record->root.empty()) return {};
  if (record->volume.empty()) {
    ASSIGN_OR_RETURN(const std::shared_ptr<Cluster> cluster, Connection());
    ASSIGN_OR_RETURN(const std::unique_ptr<Image> image,
                     cluster->Open(id, "", Cluster::Mode::kWrite));
    return DropSnapsOn(id, *image);
  }
  const std::string volume = record->volume;
  const Turns::Turn turn = turns_.Take(volume);
  Result<Lease> lease = Borrow(volume);
  // Gone meanwhile: then it is marked again.
  if (!lease && lease.error().code() == Code::kNotFound) return {};
  if (!lease) return std::move(lease).error();
  Result<void> dropped;
  if (lease->image->name() == id) dropped = DropSnapsOn(id, *lease->image);
  Return(volume, *lease);
  return dropped;
}

// Keeps those that are not sealed, and the tip while there is, or may be, a next one to compare
// with it. The records first: nobody clones what is about to go.
Result<void> RbdVolumeStore::DropSnapsOn(const std::string& id, Image& image) {
  ASSIGN_OR_RETURN(const std::vector<Image::Snap> snaps, image.Snaps());
  bool unsealed = false;
  std::vector<std::string> sealed;
  std::vector<std::string> gone;  // no point's any more
  for (const Image::Snap& snap : snaps) {
    ASSIGN_OR_RETURN(const auto point, ledger_.Find<PointRecord>(snap.name));
    const bool kept = point && point->snap;
    unsealed |= kept && point->holder.empty();
    if (!kept) gone.push_back(snap.name);
    if (kept && !point->holder.empty()) sealed.push_back(snap.name);
  }
  for (const std::string& name : sealed) {
    bool drop = false;
    RETURN_IF_ERROR(ledger_.Update([&](Change& change) -> Result<void> {
      ASSIGN_OR_RETURN(auto now, change.Find<ImageRecord>(id));
      ASSIGN_OR_RETURN(const auto point, change.Find<PointRecord>(name));
      drop = !point || !point->snap || !now;
      if (drop) return {};
      const bool is_tip = now->tip == name;
      if (is_tip && (!now->volume.empty() || unsealed)) return {};
      drop = true;
      if (!is_tip) return change.DropSnap(name);
      now->tip.clear();
      change.Put(id, *now);
      RETURN_IF_ERROR(change.DropSnap(name));
      return change.DropUse(name);
    }));
    if (drop) gone.push_back(name);
  }
  for (const std::string& name : gone) RETURN_IF_ERROR(image.RemoveSnap(name));
  return {};
}

}  // namespace blockd::rbd
