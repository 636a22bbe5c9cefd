#include "blockd/back_ends.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace blockd {

using base::Code;
using base::Error;
using base::Result;

namespace {

// The snapshot that a volume is moved by. While it is there, so is the volume.
std::string MoveSnapshotOf(const std::string& volume_id) { return "move-" + volume_id; }

Result<void> Unless(Code fine, Result<void> result) {
  if (!result.has_value() && result.error().code() == fine) return {};
  return result;
}

// Whether a lookup found something.
template <typename Found>
Result<bool> IsThere(const Result<Found>& found) {
  if (found.has_value()) return true;
  if (found.error().code() == Code::kNotFound) return false;
  return found.error();
}

template <typename Info>
std::vector<Info> ById(std::vector<Info> infos) {
  std::sort(infos.begin(), infos.end(), [](const Info& a, const Info& b) { return a.id < b.id; });
  return infos;
}

}  // namespace

BackEnds::BackEnds(std::vector<BackEnd> back_ends) : back_ends_(std::move(back_ends)) {
  CHECK(!back_ends_.empty());
}

Result<VolumeStore*> BackEnds::Named(std::string_view name) const {
  if (name.empty()) return back_ends_.front().store;
  for (const BackEnd& back_end : back_ends_)
    if (back_end.name == name) return back_end.store;
  return Error(Code::kInvalidArgument, "there is no back end " + std::string(name));
}

// A volume that is moved is for a while in two places: it is where the move's snapshot is, and the
// other one is a copy that nobody has heard of.
Result<VolumeStore*> BackEnds::StoreOf(const std::string& volume_id) const {
  if (back_ends_.size() == 1) return back_ends_.front().store;
  VolumeStore* found = nullptr;
  for (const BackEnd& back_end : back_ends_) {
    ASSIGN_OR_RETURN(const bool here, IsThere(back_end.store->FindVolume(volume_id)));
    if (!here) continue;
    if (found == nullptr) {
      found = back_end.store;
      continue;
    }
    ASSIGN_OR_RETURN(const bool from_here,
                     IsThere(back_end.store->FindSnapshot(MoveSnapshotOf(volume_id))));
    if (from_here) found = back_end.store;
  }
  if (found == nullptr) return Error(Code::kNotFound, "there is no volume " + volume_id);
  return found;
}

Result<VolumeStore*> BackEnds::StoreOfSnapshot(const std::string& id) const {
  if (back_ends_.size() == 1) return back_ends_.front().store;
  for (const BackEnd& back_end : back_ends_) {
    ASSIGN_OR_RETURN(const bool here, IsThere(back_end.store->FindSnapshot(id)));
    if (here) return back_end.store;
  }
  return Error(Code::kNotFound, "there is no snapshot " + id);
}

Result<VolumeSource> BackEnds::SourceFor(VolumeStore& target, const VolumeSource& source) const {
  if (source.kind == VolumeSource::Kind::kVolume) {
    ASSIGN_OR_RETURN(const VolumeStore* store, StoreOf(source.name));
    if (store == &target) return source;
    return Error(Code::kInvalidArgument,
                 "a volume is copied within its back end only: make the copy of a snapshot of it");
  }
  if (source.kind != VolumeSource::Kind::kSnapshot) return source;
  ASSIGN_OR_RETURN(VolumeStore * store, StoreOfSnapshot(source.name));
  if (store == &target) return source;
  ASSIGN_OR_RETURN(std::string holder, store->SnapshotHolder(source.name));
  return VolumeSource{VolumeSource::Kind::kContent, std::move(holder)};
}

Result<void> BackEnds::Create(const NewVolume& volume) {
  ASSIGN_OR_RETURN(VolumeStore * store, Named(volume.back_end));
  NewVolume wanted = volume;
  ASSIGN_OR_RETURN(wanted.source, SourceFor(*store, volume.source));
  return store->Create(wanted);
}

Result<void> BackEnds::Move(const NewVolume& volume) {
  ASSIGN_OR_RETURN(VolumeStore * target, Named(volume.back_end));
  ASSIGN_OR_RETURN(VolumeStore * source, StoreOf(volume.id));
  const std::string snapshot = MoveSnapshotOf(volume.id);
  if (source != target) {
    ASSIGN_OR_RETURN(const bool begun, IsThere(source->FindSnapshot(snapshot)));
    if (!begun) {
      // What an earlier move, that was given up, may have left there is of an earlier time.
      RETURN_IF_ERROR(Unless(Code::kNotFound, target->Remove(volume.id)));
      RETURN_IF_ERROR(source->Snapshot(volume.id, snapshot));
    }
    NewVolume copy = volume;
    copy.source.kind = VolumeSource::Kind::kContent;
    ASSIGN_OR_RETURN(copy.source.name, source->SnapshotHolder(snapshot));
    RETURN_IF_ERROR(Unless(Code::kAlreadyExists, target->Create(copy)));
    RETURN_IF_ERROR(source->Remove(volume.id));
  }
  return Unless(Code::kNotFound, RemoveSnapshot(snapshot));
}

Result<void> BackEnds::GiveUpMove(const std::string& volume_id) {
  ASSIGN_OR_RETURN(const VolumeStore* store, StoreOf(volume_id));
  for (const BackEnd& back_end : back_ends_) {
    if (back_end.store != store)
      RETURN_IF_ERROR(Unless(Code::kNotFound, back_end.store->Remove(volume_id)));
  }
  return Unless(Code::kNotFound, RemoveSnapshot(MoveSnapshotOf(volume_id)));
}

// Everywhere: it may have been on its way from one to another.
Result<void> BackEnds::Fence(const std::string& id) {
  const Result<VolumeStore*> store = StoreOf(id);
  if (store.has_value()) return (*store)->Fence(id);
  return Unless(Code::kNotFound, store.error());
}

Result<void> BackEnds::Remove(const std::string& id) {
  if (back_ends_.size() == 1) return back_ends_.front().store->Remove(id);
  bool found = false;
  for (const BackEnd& back_end : back_ends_) {
    const Result<void> removed = back_end.store->Remove(id);
    found = found || removed.has_value();
    RETURN_IF_ERROR(Unless(Code::kNotFound, removed));
  }
  RETURN_IF_ERROR(Unless(Code::kNotFound, RemoveSnapshot(MoveSnapshotOf(id))));
  if (!found) return Error(Code::kNotFound, "there is no volume " + id);
  return {};
}

Result<std::shared_ptr<Volume>> BackEnds::Open(const std::string& id) {
  ASSIGN_OR_RETURN(VolumeStore * store, StoreOf(id));
  return store->Open(id);
}

Result<void> BackEnds::Resize(const std::string& id, uint64_t size_bytes) {
  ASSIGN_OR_RETURN(VolumeStore * store, StoreOf(id));
  return store->Resize(id, size_bytes);
}

Result<void> BackEnds::Snapshot(const std::string& volume_id, const std::string& snapshot_id) {
  ASSIGN_OR_RETURN(VolumeStore * store, StoreOf(volume_id));
  return store->Snapshot(volume_id, snapshot_id);
}

Result<void> BackEnds::RemoveSnapshot(const std::string& id) {
  ASSIGN_OR_RETURN(VolumeStore * store, StoreOfSnapshot(id));
  return store->RemoveSnapshot(id);
}

Result<void> BackEnds::Revert(const std::string& volume_id, const std::string& snapshot_id) {
  ASSIGN_OR_RETURN(VolumeStore * store, StoreOf(volume_id));
  return store->Revert(volume_id, snapshot_id);
}

Result<void> BackEnds::Refill(const std::string& volume_id, const std::string& holder) {
  ASSIGN_OR_RETURN(VolumeStore * store, StoreOf(volume_id));
  return store->Refill(volume_id, holder);
}

Result<std::string> BackEnds::SnapshotHolder(const std::string& id) {
  ASSIGN_OR_RETURN(VolumeStore * store, StoreOfSnapshot(id));
  return store->SnapshotHolder(id);
}

Result<std::shared_ptr<ChangedBlocks>> BackEnds::ChangedSince(const std::string& volume_id,
                                                              const std::string& snapshot_id) {
  ASSIGN_OR_RETURN(VolumeStore * store, StoreOf(volume_id));
  return store->ChangedSince(volume_id, snapshot_id);
}

Result<std::shared_ptr<ChangedBlocks>> BackEnds::ChangedSinceContent(const std::string& volume_id,
                                                                     const std::string& holder) {
  ASSIGN_OR_RETURN(VolumeStore * store, StoreOf(volume_id));
  return store->ChangedSinceContent(volume_id, holder);
}

Result<VolumeInfo> BackEnds::FindVolume(const std::string& id) {
  ASSIGN_OR_RETURN(VolumeStore * store, StoreOf(id));
  return store->FindVolume(id);
}

Result<SnapshotInfo> BackEnds::FindSnapshot(const std::string& id) {
  ASSIGN_OR_RETURN(VolumeStore * store, StoreOfSnapshot(id));
  return store->FindSnapshot(id);
}

Result<std::vector<VolumeInfo>> BackEnds::Volumes() {
  std::vector<VolumeInfo> all;
  for (const BackEnd& back_end : back_ends_) {
    ASSIGN_OR_RETURN(const auto some, back_end.store->Volumes());
    all.insert(all.end(), some.begin(), some.end());
  }
  return ById(std::move(all));
}

Result<std::vector<SnapshotInfo>> BackEnds::Snapshots() {
  std::vector<SnapshotInfo> all;
  for (const BackEnd& back_end : back_ends_) {
    ASSIGN_OR_RETURN(const auto some, back_end.store->Snapshots());
    all.insert(all.end(), some.begin(), some.end());
  }
  return ById(std::move(all));
}

}  // namespace blockd
