#include "blockd/rbd/changed_since.h"

#include <algorithm>

#include "blockd/rbd/errors.h"
#include "blockd/rbd/image.h"

namespace blockd::rbd {

using base::Code;
using base::Digest256;
using base::Error;
using base::Result;
using chunkstore::kChunkBytes;

namespace {

// RBD snapshots and contents come and go under way; then it is looked at again.
constexpr int kTries = 5;
constexpr int kMaxSteps = 10'000;

void Add(uint64_t index, std::vector<bool>* set) {
  if (set->size() <= index) set->resize(index + 1);
  (*set)[index] = true;
}

}  // namespace

Result<ChangedSince::Root> ChangedSince::RootOf(const std::string& holder) {
  ASSIGN_OR_RETURN(const auto held, chunks_.FindHolder(holder));
  if (!held.root) return Error(Code::kNotFound, "holder " + holder + " holds nothing");
  return *held.root;
}

Result<ChangedSince::Ground> ChangedSince::GroundAt(const PointRecord& point) {
  ASSIGN_OR_RETURN(const Root root, RootOf(point.holder));
  return Ground{false, root};
}

// Through one image. Nothing: the way goes on at `place`.
Result<std::optional<ChangedSince::Ground>> ChangedSince::StepDown(Place* place,
                                                                   const std::string& wanted,
                                                                   const Range& range,
                                                                   ObjectSet* changed) {
  ASSIGN_OR_RETURN(const std::shared_ptr<Cluster> cluster, connect_());
  ASSIGN_OR_RETURN(const std::unique_ptr<Image> image,
                   cluster->Open(place->image, place->snap, Cluster::Mode::kRead));
  ASSIGN_OR_RETURN(const std::vector<Image::Snap> snaps, image->Snaps());
  std::string from;
  std::optional<PointRecord> sealed;
  for (const Image::Snap& snap : snaps) {
    if (snap.name == place->snap || from == wanted) break;
    ASSIGN_OR_RETURN(auto point, ledger_.Find<PointRecord>(snap.name));
    if (!point || !point->snap || (point->holder.empty() && snap.name != wanted)) continue;
    from = snap.name;
    sealed = std::move(point);
    if (from == wanted) break;
  }
  const uint64_t size_bytes = image->size_bytes();
  const uint64_t offset = std::min(range.offset, size_bytes);
  RETURN_IF_ERROR(image->Diff(from, offset, std::min(range.length, size_bytes - offset), false,
                              [&](uint64_t at, uint64_t length, bool) {
                                const uint64_t last = (at + length - 1) / kChunkBytes;
                                for (uint64_t i = at / kChunkBytes; i <= last; ++i) Add(i, changed);
                              }));
  if (!from.empty() && from == wanted) return std::optional(Ground{.met = true});
  if (sealed) {
    ASSIGN_OR_RETURN(const Ground ground, GroundAt(*sealed));
    return std::optional(ground);
  }
  ASSIGN_OR_RETURN(const auto record, ledger_.Find<ImageRecord>(place->image));
  if (!record) return Error(Code::kNotFound, "image " + place->image + " is gone");
  if (record->base.empty()) return std::optional(Ground{});
  if (record->base == wanted) return std::optional(Ground{.met = true});
  ASSIGN_OR_RETURN(const auto base, ledger_.Find<PointRecord>(record->base));
  if (!base) return Error(Code::kNotFound, "point " + record->base + " is gone");
  if (base->holder.empty()) {
    *place = {base->image, record->base};
    return std::optional<Ground>();
  }
  ASSIGN_OR_RETURN(const Ground ground, GroundAt(*base));
  return std::optional(ground);
}

Result<ChangedSince::Ground> ChangedSince::Descend(Place place, const std::string& wanted,
                                                   const Range& range, ObjectSet* changed) {
  for (int steps = 0; steps < kMaxSteps; ++steps) {
    ASSIGN_OR_RETURN(const auto ground, StepDown(&place, wanted, range, changed));
    if (ground) return *ground;
  }
  return Error(Code::kTooLarge, "too many clones of clones");
}

Result<std::shared_ptr<const ChangedSince::ObjectSet>> ChangedSince::Compare(
    const std::optional<Root>& a, const std::optional<Root>& b) {
  const Roots roots(a, b);
  {
    base::MutexLock lock(mutex_);
    if (different_ && compared_ == roots) return different_;
  }
  auto different = std::make_shared<ObjectSet>();
  if (a && b) {
    RETURN_IF_ERROR(chunks_.Diff(
        *a, *b, 0,
        [&](uint64_t index, const std::optional<Digest256>&, const std::optional<Digest256>&) {
          Add(index, different.get());
          return true;
        }));
  } else if (a || b) {
    ASSIGN_OR_RETURN(const auto content, chunks_.Open(a ? *a : *b));
    const uint64_t count = (content->root().size_bytes + kChunkBytes - 1) / kChunkBytes;
    RETURN_IF_ERROR(content->VisitChunks(0, count, [&](uint64_t index, const Digest256&) {
      Add(index, different.get());
      return true;
    }));
  }
  base::MutexLock lock(mutex_);
  compared_ = roots;
  different_ = different;
  return different_;
}

Result<ChangedSince::ObjectSet> ChangedSince::Changed(const Range& range) {
  ASSIGN_OR_RETURN(const auto volume, ledger_.Find<VolumeRecord>(volume_id_));
  if (!volume) return NoVolume(volume_id_);
  ObjectSet changed;
  std::string wanted;
  std::optional<PointRecord> point;
  std::optional<Root> then_root;
  if (then_.snapshot.empty()) {
    ASSIGN_OR_RETURN(then_root, RootOf(then_.holder));
  } else {
    ASSIGN_OR_RETURN(const auto snapshot, ledger_.Find<SnapshotRecord>(then_.snapshot));
    if (!snapshot) return NoSnapshot(then_.snapshot);
    wanted = snapshot->point;
    ASSIGN_OR_RETURN(point, ledger_.Find<PointRecord>(wanted));
    if (!point) return NoSnapshot(then_.snapshot);
  }
  ASSIGN_OR_RETURN(const Ground now, Descend({volume->image, ""}, wanted, range, &changed));
  if (now.met) return changed;
  if (point && point->holder.empty()) {
    ASSIGN_OR_RETURN(const Ground then, Descend({point->image, wanted}, "", range, &changed));
    then_root = then.root;
  } else if (point) {
    ASSIGN_OR_RETURN(then_root, RootOf(point->holder));
  }
  ASSIGN_OR_RETURN(const auto different, Compare(now.root, then_root));
  for (uint64_t i = 0; i < different->size(); ++i) {
    if ((*different)[i]) Add(i, &changed);
  }
  return changed;
}

Result<void> ChangedSince::Visit(uint64_t offset, uint64_t length, const Visitor& visit) {
  Result<ObjectSet> changed = Changed({offset, length});
  for (int tries = 1; tries < kTries && !changed && changed.error().code() == Code::kNotFound;
       ++tries)
    changed = Changed({offset, length});
  RETURN_IF_ERROR(changed);
  while (length > 0) {
    const uint64_t index = offset / kChunkBytes;
    const uint64_t run = std::min(length, (index + 1) * kChunkBytes - offset);
    if (!visit(run, index < changed->size() && (*changed)[index])) return {};
    offset += run;
    length -= run;
  }
  return {};
}

}  // namespace blockd::rbd
