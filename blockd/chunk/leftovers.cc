#include <set>

#include "base/log.h"
#include "blockd/chunk/chunk_volume_store.h"
#include "blockd/chunk/holders.h"

// What the store of volumes puts right at its start.

namespace blockd::chunk {

using base::Result;

namespace {

constexpr size_t kHoldersAtOnce = 256;

}  // namespace

// Files whose record is gone, or was never written: a crash came between.
Result<void> ChunkVolumeStore::RemoveLeftovers() {
  base::MutexLock lock(mutex_);
  ASSIGN_OR_RETURN(const std::vector<std::string> names, files_.List(options_.dir));
  std::set<std::string> there;
  for (const std::string& name : names) {
    const std::string id = Layer::IdOfFile(name);
    if (!id.empty()) there.insert(id);
  }
  for (const std::string& id : there) {
    const LayerRecord* record = records_.FindLayer(id);
    const bool used = record && record->state != LayerState::kSealed;
    if (!used) RETURN_IF_ERROR(Layer::Remove(files_, options_.dir, id, live_));
  }
  for (const auto& [id, layer] : records_.layers()) {
    const bool has_files = layer.record.state != LayerState::kSealed;
    if (has_files && !there.contains(id))
      LOG(kError, "blockd", "the files of layer {} are missing in {}", id, options_.dir);
  }
  return {};
}

// Layers whose map was not written down when the process before this one was killed: they are open
// from the start, so that it is, whoever comes for their volumes.
void ChunkVolumeStore::TakeUpLiveLayers() {
  if (live_ == nullptr) return;
  base::MutexLock lock(mutex_);
  for (const std::string& id : live_->Ids()) {
    const LayerRecord* record = records_.FindLayer(id);
    if (!record || record->state == LayerState::kSealed) {
      live_->Remove(id);
      continue;
    }
    Result<std::shared_ptr<Layer>> opened = OpenLayer(id);
    if (!opened) LOG(kError, "blockd", "layer {}: {}", id, opened.error().ToString());
  }
}

// Holders of sealings and creations that ended before their record was written. (What is still
// ingesting is the collector's.)
Result<void> ChunkVolumeStore::RemoveLeftoverHolders() {
  std::set<std::string> named;
  {
    base::MutexLock lock(mutex_);
    for (const auto& [id, layer] : records_.layers()) named.insert(layer.record.holder);
  }
  std::string after;
  for (;;) {
    ASSIGN_OR_RETURN(const auto held, chunks_.Holders(kLayerHolders, after, kHoldersAtOnce));
    for (const chunkstore::ChunkStore::Held& one : held) {
      if (one.root && !named.contains(one.holder)) RETURN_IF_ERROR(chunks_.Release(one.holder));
    }
    if (held.size() < kHoldersAtOnce) return {};
    after = held.back().holder;
  }
}

}  // namespace blockd::chunk
