#include <utility>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/uuid.h"
#include "blockd/rbd/errors.h"
#include "blockd/rbd/image.h"
#include "blockd/rbd/rbd_volume_store.h"

// New points, images and volumes. Each begins with a record that names what is going to be there
// and the session that makes it, so that whatever a crash leaves is found by its name; and ends
// with a commit that makes it what it is for.

namespace blockd::rbd {

using base::Code;
using base::Error;
using base::Result;

namespace {

// A base may go between its being found and its use.
constexpr int kBaseTries = 5;
constexpr size_t kRandomNameBytes = 12;

Error TooSmall(uint64_t size_bytes, uint64_t source_bytes) {
  return Error(Code::kInvalidArgument,
               fmt::format("a volume of {} bytes is too small for its source of {} bytes",
                           size_bytes, source_bytes));
}

// By the volume's id, for whoever looks at the pool.
std::string NewImageName(const std::string& volume) {
  return volume + "." + base::NewUuidHex().substr(0, kRandomNameBytes);
}

}  // namespace

// ---- points

// REQUIRES: the volume's turn.
Result<std::string> RbdVolumeStore::TakePoint(const std::string& volume, const Keep& keep) {
  ASSIGN_OR_RETURN(Lease lease, Borrow(volume));
  const std::string point = base::NewUuidHex();
  Result<void> taken = ledger_.Update([&](Change& change) -> Result<void> {
    ASSIGN_OR_RETURN(const auto record, change.Find<VolumeRecord>(volume));
    if (!record) return NoVolume(volume);
    ASSIGN_OR_RETURN(ImageRecord image, change.Get<ImageRecord>(record->image));
    ++image.points;
    change.Put(record->image, image);
    PointRecord taking{
        .image = record->image, .snap = true, .session = sessions_.mine(), .uses = 1};
    change.Put(point, taking);
    change.Mark("t/", point, sessions_.mine());
    return {};
  });
  if (taken) {
    taken = SnapPoint(point, *lease.image, keep);
    if (!taken) LetGoOfPoint(point);
  }
  Return(volume, lease);
  if (!taken) return std::move(taken).error();
  return point;
}

Result<void> RbdVolumeStore::SnapPoint(const std::string& point, Image& image, const Keep& keep) {
  const int64_t start_ns = base::SystemClock().MonotonicNs();
  RETURN_IF_ERROR(image.CreateSnap(point));
  snapshot_seconds_.Observe(static_cast<double>(base::SystemClock().MonotonicNs() - start_ns) *
                            1e-9);
  ASSIGN_OR_RETURN(const std::vector<Image::Snap> snaps, image.Snaps());
  uint64_t size_bytes = 0;
  for (const Image::Snap& snap : snaps) {
    if (snap.name == point) size_bytes = snap.size_bytes;
  }
  return ledger_.Update([&](Change& change) -> Result<void> {
    ASSIGN_OR_RETURN(auto record, change.Find<PointRecord>(point));
    // We were thought to be gone.
    if (!record) return Error(Code::kUnavailable, "the snapshot took too long: try again");
    record->size_bytes = size_bytes;
    if (keep) RETURN_IF_ERROR(keep(change, point, *record));
    change.Put(point, *record);
    change.Put(point, SealingRecord{});
    return {};
  });
}

// What this session holds of it.
void RbdVolumeStore::LetGoOfPoint(const std::string& point) {
  if (point.empty()) return;
  const Result<void> let = ledger_.Update([&](Change& change) -> Result<void> {
    ASSIGN_OR_RETURN(auto record, change.Find<PointRecord>(point));
    if (!record || record->session.empty()) return {};
    record->session.clear();
    change.Put(point, *record);
    change.Unmark("t/", point);
    return change.DropUse(point);
  });
  if (!let) LOG(kWarn, "rbd", "point {}: {}", point, let.error().ToString());
  wake_.NotifyAll();
}

// This point while it has an RBD snapshot, else one with the same content that has.
Result<std::string> RbdVolumeStore::PointToClone(const std::string& point, uint64_t limit_bytes) {
  ASSIGN_OR_RETURN(const auto record, ledger_.Find<PointRecord>(point));
  if (!record) return Error(Code::kNotFound, "the snapshot is gone");
  if (record->size_bytes > limit_bytes) return TooSmall(limit_bytes, record->size_bytes);
  if (record->snap) return point;
  return ParentOf(record->holder, limit_bytes);
}

// ---- images

// An image that is not anybody's yet: Adopt or UndoImage.
Result<std::string> RbdVolumeStore::NewImage(const std::string& volume, uint64_t size_bytes,
                                             const std::string& base) {
  const std::string image = NewImageName(volume);
  RETURN_IF_ERROR(ledger_.Update([&](Change& change) -> Result<void> {
    ImageRecord record{.session = sessions_.mine(), .volume = volume, .base = base};
    change.Put(image, record);
    change.Mark("g/", image, sessions_.mine());
    if (base.empty()) return {};
    ASSIGN_OR_RETURN(const auto point, change.Find<PointRecord>(base));
    if (!point || !point->snap) return Error(Code::kNotFound, "what is to be cloned is gone");
    return change.AddUse(base);
  }));
  Result<void> filled = FillNewImage(image, size_bytes, base);
  if (filled) return image;
  UndoImage(image);
  return std::move(filled).error();
}

Result<void> RbdVolumeStore::FillNewImage(const std::string& image, uint64_t size_bytes,
                                          const std::string& base) {
  ASSIGN_OR_RETURN(const std::shared_ptr<Cluster> cluster, Connection());
  if (base.empty()) return cluster->Create(image, size_bytes);
  ASSIGN_OR_RETURN(const auto point, ledger_.Find<PointRecord>(base));
  if (!point) return Error(Code::kNotFound, "what is to be cloned is gone");
  RETURN_IF_ERROR(cluster->Clone(point->image, base, image));
  if (point->size_bytes == size_bytes) return {};
  ASSIGN_OR_RETURN(const std::unique_ptr<Image> open,
                   cluster->Open(image, "", Cluster::Mode::kWrite));
  return open->Resize(size_bytes);
}

void RbdVolumeStore::UndoImage(const std::string& image) {
  const Result<void> undone = ledger_.Update([&](Change& change) -> Result<void> {
    ASSIGN_OR_RETURN(const auto record, change.Find<ImageRecord>(image));
    if (!record || record->state == ImageState::kGoing) return {};
    if (record->state == ImageState::kMaking) return change.GiveUpImage(image);
    // The commit that failed to say so made it a volume's.
    ASSIGN_OR_RETURN(const auto volume, change.Find<VolumeRecord>(record->volume));
    if (volume && volume->image == image) change.Delete<VolumeRecord>(record->volume);
    return change.LeaveImage(image);
  });
  if (!undone) LOG(kWarn, "rbd", "image {}: {}", image, undone.error().ToString());
  wake_.NotifyAll();
}

// In a change that makes an image somebody's: it is ready.
Result<void> RbdVolumeStore::Adopt(Change& change, const std::string& image) {
  ASSIGN_OR_RETURN(auto record, change.Find<ImageRecord>(image));
  // We were thought to be gone.
  if (!record || record->state != ImageState::kMaking)
    return Error(Code::kUnavailable, "making the volume took too long: try again");
  record->state = ImageState::kReady;
  record->session.clear();
  change.Put(image, *record);
  change.Unmark("g/", image);
  return {};
}

// ---- volumes

// The point that a new volume begins as; `taken`: made for it, to be let go.
Result<std::string> RbdVolumeStore::BaseOf(const NewVolume& volume, std::string* taken) {
  const std::string& source = volume.source.name;
  switch (volume.source.kind) {
    case VolumeSource::Kind::kNothing:
      return std::string();
    case VolumeSource::Kind::kContent:
      return ParentOf(source, volume.size_bytes);
    case VolumeSource::Kind::kSnapshot: {
      ASSIGN_OR_RETURN(const auto snapshot, ledger_.Find<SnapshotRecord>(source));
      if (!snapshot) return NoSnapshot(source);
      return PointToClone(snapshot->point, volume.size_bytes);
    }
    case VolumeSource::Kind::kVolume: {
      const Turns::Turn turn = turns_.Take(source);
      ASSIGN_OR_RETURN(const auto record, ledger_.Find<VolumeRecord>(source));
      if (!record) return NoVolume(source);
      if (record->size_bytes > volume.size_bytes)
        return TooSmall(volume.size_bytes, record->size_bytes);
      ASSIGN_OR_RETURN(*taken, TakePoint(source, nullptr));
      return *taken;
    }
  }
  return std::string();
}

Result<void> RbdVolumeStore::MakeVolume(const NewVolume& volume) {
  Result<std::string> image;
  for (int tries = 0; tries < kBaseTries; ++tries) {
    std::string taken;
    ASSIGN_OR_RETURN(const std::string base, BaseOf(volume, &taken));
    image = NewImage(volume.id, volume.size_bytes, base);
    LetGoOfPoint(taken);
    if (image || image.error().code() != Code::kNotFound) break;
  }
  if (!image) return std::move(image).error();
  Result<void> made = ledger_.Update([&](Change& change) -> Result<void> {
    ASSIGN_OR_RETURN(const auto known, change.Find<VolumeRecord>(volume.id));
    if (known) return Error(Code::kAlreadyExists, "there is a volume " + volume.id);
    change.Put(volume.id, VolumeRecord{*image, volume.size_bytes});
    return Adopt(change, *image);
  });
  if (!made) UndoImage(*image);
  return made;
}

// REQUIRES: the claim. The volume gets a new image that begins as `base` says.
Result<void> RbdVolumeStore::SwitchTo(const std::string& volume, const FindBase& find_base) {
  ASSIGN_OR_RETURN(const auto record, ledger_.Find<VolumeRecord>(volume));
  if (!record) return NoVolume(volume);
  Result<std::string> image;
  for (int tries = 0; tries < kBaseTries; ++tries) {
    ASSIGN_OR_RETURN(const std::string base, find_base());
    image = NewImage(volume, record->size_bytes, base);
    if (image || image.error().code() != Code::kNotFound) break;
  }
  if (!image) return std::move(image).error();
  Result<void> switched = ledger_.Update([&](Change& change) -> Result<void> {
    ASSIGN_OR_RETURN(auto now, change.Find<VolumeRecord>(volume));
    if (!now) return NoVolume(volume);
    RETURN_IF_ERROR(Adopt(change, *image));
    RETURN_IF_ERROR(change.LeaveImage(std::exchange(now->image, *image)));
    change.Put(volume, *now);
    return {};
  });
  if (!switched) GiveUpUnadopted(*image);
  wake_.NotifyAll();
  return switched;
}

// After a switch that failed; one that happened in spite of that stays.
void RbdVolumeStore::GiveUpUnadopted(const std::string& image) {
  const Result<void> given_up = ledger_.Update([&](Change& change) -> Result<void> {
    ASSIGN_OR_RETURN(const auto record, change.Find<ImageRecord>(image));
    const bool making = record && record->state == ImageState::kMaking;
    return making ? change.GiveUpImage(image) : Result<void>();
  });
  if (!given_up) LOG(kWarn, "rbd", "image {}: {}", image, given_up.error().ToString());
}

}  // namespace blockd::rbd
