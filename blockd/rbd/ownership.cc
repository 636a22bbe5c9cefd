#include <chrono>
#include <thread>
#include <utility>

#include "base/log.h"
#include "blockd/rbd/errors.h"
#include "blockd/rbd/image.h"
#include "blockd/rbd/rbd_volume.h"
#include "blockd/rbd/rbd_volume_store.h"

// Who has a volume. A claim record says which process; RBD's exclusive lock, taken for good, makes
// it true: a claim decides who may break a lock, never who may write.

namespace blockd::rbd {

using base::Code;
using base::Error;
using base::Result;

namespace {

// A change that another process makes to a volume takes as long as a snapshot or a clone.
constexpr int kClaimTries = 1000;
constexpr std::chrono::milliseconds kClaimEvery{20};

}  // namespace

Result<std::shared_ptr<Cluster>> RbdVolumeStore::Connection() {
  base::MutexLock lock(mutex_);
  if (cluster_ && !cluster_->fenced()) return cluster_;
  ASSIGN_OR_RETURN(cluster_, Cluster::Connect(options_.cluster));
  return cluster_;
}

// ---- claims

// False: another process is making a change. kConflict: it has it open. `existed`: somebody had it
// who is gone, and may have left a lock.
Result<bool> RbdVolumeStore::TryClaim(const std::string& id, bool open, bool* existed) {
  bool busy = false;
  RETURN_IF_ERROR(ledger_.Update([&](Change& change) -> Result<void> {
    busy = false;
    ASSIGN_OR_RETURN(const auto volume, change.Find<VolumeRecord>(id));
    if (!volume) return NoVolume(id);
    ASSIGN_OR_RETURN(const auto claim, change.Find<ClaimRecord>(id));
    *existed = claim.has_value();
    if (claim && claim->session != sessions_.mine()) {
      ASSIGN_OR_RETURN(const bool lives, sessions_.Lives(claim->session));
      if (lives && claim->open) return VolumeInUse(id);
      busy = lives;
      if (busy) return {};
    }
    change.Put(id, ClaimRecord{sessions_.mine(), open});
    return {};
  }));
  return !busy;
}

Result<bool> RbdVolumeStore::Claim(const std::string& id, bool open, bool* existed) {
  for (int tries = 0; tries < kClaimTries; ++tries) {
    ASSIGN_OR_RETURN(const bool claimed, TryClaim(id, open, existed));
    if (claimed) return true;
    if (stopping_) return Stopping();
    std::this_thread::sleep_for(kClaimEvery);
  }
  return Error(Code::kUnavailable, "volume " + id + " is being changed: try again");
}

void RbdVolumeStore::ReleaseClaim(const std::string& id) {
  const Result<void> released = ledger_.Update([&](Change& change) -> Result<void> {
    ASSIGN_OR_RETURN(const auto claim, change.Find<ClaimRecord>(id));
    if (claim && claim->session == sessions_.mine()) change.Delete<ClaimRecord>(id);
    return {};
  });
  // It stays ours then, and a next claim of ours takes it up.
  if (!released) LOG(kWarn, "rbd", "the claim of volume {}: {}", id, released.error().ToString());
}

// ---- open images

// REQUIRES: the claim.
Result<std::shared_ptr<Image>> RbdVolumeStore::OpenOwned(const std::string& id, bool break_others) {
  ASSIGN_OR_RETURN(const auto record, ledger_.Find<VolumeRecord>(id));
  if (!record) return NoVolume(id);
  ASSIGN_OR_RETURN(const std::shared_ptr<Cluster> cluster, Connection());
  ASSIGN_OR_RETURN(std::unique_ptr<Image> image,
                   cluster->Open(record->image, "", Cluster::Mode::kWrite));
  RETURN_IF_ERROR(image->Lock(break_others));
  // A resize of which the record was not written any more.
  if (image->size_bytes() > record->size_bytes) {
    RETURN_IF_ERROR(ledger_.Update([&](Change& change) -> Result<void> {
      ASSIGN_OR_RETURN(auto volume, change.Get<VolumeRecord>(id));
      volume.size_bytes = image->size_bytes();
      change.Put(id, volume);
      return {};
    }));
  }
  return std::shared_ptr<Image>(std::move(image));
}

std::optional<RbdVolumeStore::OpenImage> RbdVolumeStore::FindOpen(const std::string& id) {
  base::MutexLock lock(mutex_);
  const auto open = open_.find(id);
  if (open == open_.end()) return std::nullopt;
  return open->second;
}

std::shared_ptr<Volume> RbdVolumeStore::Hand(const std::string& id,
                                             const std::shared_ptr<Image>& image) {
  // The last user may be in a thread of librbd, which must not wait for itself.
  std::shared_ptr<Volume> volume(new RbdVolume(image), [this, id](Volume* closed) {
    base::MutexLock lock(mutex_);
    closed_.push_back({id, std::unique_ptr<Volume>(closed)});
    wake_closer_.NotifyAll();
  });
  base::MutexLock lock(mutex_);
  open_[id] = {volume, image};
  return volume;
}

void RbdVolumeStore::RunCloser() {
  mutex_.Lock();
  while (!stopping_ || !closed_.empty()) {
    if (closed_.empty()) {
      wake_closer_.Wait(mutex_);
      continue;
    }
    Closed closed = std::move(closed_.back());
    closed_.pop_back();
    mutex_.Unlock();
    closed.volume.reset();
    CloseIfUnused(closed.id);
    mutex_.Lock();
  }
  mutex_.Unlock();
}

bool RbdVolumeStore::IsInUseHere(const std::string& id) {
  const auto open = FindOpen(id);
  return open && !open->volume.expired();
}

void RbdVolumeStore::CloseIfUnused(const std::string& id) {
  const Turns::Turn turn = turns_.Take(id);
  const auto open = FindOpen(id);
  if (open && open->volume.expired()) Close(id);
}

// REQUIRES: the volume's turn.
void RbdVolumeStore::Close(const std::string& id) {
  std::shared_ptr<Image> image;
  {
    base::MutexLock lock(mutex_);
    const auto open = open_.find(id);
    image = std::move(open->second.image);
    open_.erase(open);
  }
  image->Unlock();  // before the claim, whoever else looks at the image now
  ReleaseClaim(id);
}

Result<std::shared_ptr<Volume>> RbdVolumeStore::Open(const std::string& id) {
  const Turns::Turn turn = turns_.Take(id);
  if (const auto open = FindOpen(id)) {
    if (!open->image->lost()) {
      if (std::shared_ptr<Volume> volume = open->volume.lock()) return volume;
      return Hand(id, open->image);
    }
    Close(id);
  }
  bool existed = false;
  RETURN_IF_ERROR(Claim(id, true, &existed));
  Result<std::shared_ptr<Image>> image = OpenOwned(id, existed);
  // That the connection was fenced shows at its first use; the next one is a new one.
  if (!image && image.error().code() == Code::kUnavailable) image = OpenOwned(id, existed);
  if (!image) {
    ReleaseClaim(id);
    return std::move(image).error();
  }
  return Hand(id, *image);
}

// To take it over is what shuts it to whom it is taken from.
Result<void> RbdVolumeStore::Fence(const std::string& id) {
  const auto taken = Open(id);
  if (taken || taken.error().code() == Code::kNotFound) return {};
  if (taken.error().code() != Code::kConflict) return taken.error();
  return Error(Code::kUnavailable, "volume " + id + " is open in a process that lives");
}

// ---- images for a change

// REQUIRES: the volume's turn, until Return.
Result<RbdVolumeStore::Lease> RbdVolumeStore::Borrow(const std::string& id) {
  Lease lease;
  const auto open = FindOpen(id);
  if (open && !open->image->lost()) {
    lease.image = open->image;
    return lease;
  }
  if (open) Close(id);
  bool existed = false;
  const Result<bool> claimed = Claim(id, false, &existed);
  if (!claimed && claimed.error().code() != Code::kConflict) return claimed.error();
  if (claimed) {
    Result<std::shared_ptr<Image>> image = OpenOwned(id, existed);
    if (!image && image.error().code() == Code::kUnavailable) image = OpenOwned(id, existed);
    if (!image) ReleaseClaim(id);
    ASSIGN_OR_RETURN(lease.image, std::move(image));
    lease.claimed = true;
    return lease;
  }
  ASSIGN_OR_RETURN(const auto record, ledger_.Find<VolumeRecord>(id));
  if (!record) return NoVolume(id);
  ASSIGN_OR_RETURN(const std::shared_ptr<Cluster> cluster, Connection());
  ASSIGN_OR_RETURN(lease.image, cluster->Open(record->image, "", Cluster::Mode::kWrite));
  return lease;
}

void RbdVolumeStore::Return(const std::string& id, Lease& lease) {
  if (lease.claimed) {
    lease.image->Unlock();
    ReleaseClaim(id);
  }
  lease.image.reset();
}

// REQUIRES: the volume's turn. The claim is to be released.
Result<void> RbdVolumeStore::ClaimAlone(const std::string& id) {
  if (const auto open = FindOpen(id)) {
    if (!open->volume.expired() && !open->image->lost()) return VolumeInUse(id);
    Close(id);
  }
  bool existed = false;
  RETURN_IF_ERROR(Claim(id, false, &existed));
  return {};
}

}  // namespace blockd::rbd
