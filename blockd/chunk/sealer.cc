#include <algorithm>
#include <chrono>
#include <utility>

#include "base/log.h"
#include "blockd/chunk/chunk_volume_store.h"
#include "blockd/chunk/holders.h"

// Sealing: a frozen layer that stands on a sealed one, or on nothing, becomes a content of the
// chunk store, one chunk at a time; only chunks that the layer touches are read and written.
// Nothing is remembered of a sealing that was interrupted: the next one begins again.

namespace blockd::chunk {

using base::Code;
using base::Error;
using base::Result;
using chunkstore::kChunkBytes;

namespace {

constexpr uint64_t kBlocksPerChunk = kChunkBytes / kBlockBytes;

// How a layer touches the blocks of a chunk.
struct Touch {
  bool any = false;
  bool all_zero = true;
};

Result<Touch> TouchOf(LayerMap& map, uint64_t index, uint64_t blocks) {
  Touch touch;
  for (uint64_t done = 0; done < blocks;) {
    ASSIGN_OR_RETURN(const LayerMap::Run run,
                     map.RunAt(index * kBlocksPerChunk + done, blocks - done));
    touch.any |= run.state != BlockState::kAbsent;
    touch.all_zero &= run.state == BlockState::kZero;
    done += run.blocks;
  }
  return touch;
}

}  // namespace

// The layer that has to be sealed first so that this one can be.
std::string ChunkVolumeStore::LowestFrozen(std::string id) const {
  for (const LayerRecord* record = records_.FindLayer(id); !record->parent.empty();) {
    const LayerRecord* parent = records_.FindLayer(record->parent);
    if (parent->state == LayerState::kSealed) break;
    id = record->parent;
    record = parent;
  }
  return id;
}

// Empty: nothing is to be sealed now.
std::string ChunkVolumeStore::ChooseToSeal() {
  // What somebody waits for, or else what was frozen first.
  if (!wanted_.empty()) return LowestFrozen(*wanted_.begin());
  std::string oldest;
  uint64_t order = UINT64_MAX;
  for (const auto& [id, layer] : records_.layers()) {
    if (layer.record.state != LayerState::kFrozen) continue;
    const auto known = frozen_order_.try_emplace(id, 0).first;  // 0: before we were started
    if (known->second >= order) continue;
    order = known->second;
    oldest = id;
  }
  return oldest.empty() ? oldest : LowestFrozen(oldest);
}

Result<ChunkVolumeStore::Sealing> ChunkVolumeStore::BeginSealing(const std::string& layer) {
  const LayerRecord& record = *records_.FindLayer(layer);
  Sealing sealing;
  sealing.layer = layer;
  sealing.size_bytes = record.size_bytes;
  sealing.holder = NewLayerHolder(layer);
  ASSIGN_OR_RETURN(sealing.stack, StackFrom(layer));
  if (!record.parent.empty()) sealing.parent_holder = records_.FindLayer(record.parent)->holder;
  return sealing;
}

Result<bool> ChunkVolumeStore::SealNext() {
  Sealing sealing;
  {
    base::MutexLock lock(mutex_);
    const std::string layer = ChooseToSeal();
    unsealed_layers_.Set(static_cast<double>(frozen_order_.size()));
    if (layer.empty() || stopping_) return false;
    ASSIGN_OR_RETURN(sealing, BeginSealing(layer));
  }
  Result<chunkstore::Root> root = PutLayer(sealing);
  Result<void> ended;
  if (root) ended = EndSealing(sealing, *root);
  if (root && ended) return true;
  base::MutexLock lock(mutex_);
  // Others first, before it is tried again.
  if (records_.FindLayer(sealing.layer)) frozen_order_[sealing.layer] = ++freezes_;
  wanted_.erase(sealing.layer);
  return root ? std::move(ended).error() : std::move(root).error();
}

Result<chunkstore::Root> ChunkVolumeStore::PutLayer(const Sealing& sealing) {
  // What the disk failed to keep must not be read back for what was written.
  RETURN_IF_ERROR(sealing.stack->head().Flush());
  const bool over = !sealing.parent_holder.empty();
  // The stack keeps the parent's content, and with it the parent's holder, even if the layer goes.
  ASSIGN_OR_RETURN(const std::unique_ptr<chunkstore::Ingest> ingest,
                   over
                       ? chunks_.NewIngestOver(sealing.holder, sealing.layer, sealing.parent_holder)
                       : chunks_.NewIngest(sealing.holder, sealing.layer));
  const uint64_t below_bytes = over ? sealing.stack->base()->root().size_bytes : 0;
  // A last chunk that was short and is not the last any more must be put again.
  const bool grows = below_bytes < sealing.size_bytes && below_bytes % kChunkBytes != 0;
  base::Buffer buffer(kChunkBytes);
  for (uint64_t index = 0; index * kChunkBytes < sealing.size_bytes; ++index) {
    if (stopping_) return Error(Code::kCancelled, "the service stops");
    const uint64_t length =
        std::min<uint64_t>(kChunkBytes, sealing.size_bytes - index * kChunkBytes);
    ASSIGN_OR_RETURN(const Touch touch,
                     TouchOf(sealing.stack->head().map(), index, length / kBlockBytes));
    const bool lengthened = grows && index == below_bytes / kChunkBytes;
    if (!touch.any && !lengthened) continue;
    if (touch.all_zero) {
      RETURN_IF_ERROR(ingest->PutHole(index));
      continue;
    }
    RETURN_IF_ERROR(PutChunk(sealing, index, buffer.view().first(length), *ingest));
  }
  return ingest->Finish(sealing.size_bytes);
}

Result<void> ChunkVolumeStore::PutChunk(const Sealing& sealing, uint64_t index,
                                        base::MutableByteView buffer, chunkstore::Ingest& ingest) {
  RETURN_IF_ERROR(sealing.stack->Read(index * kChunkBytes, buffer));
  RETURN_IF_ERROR(ingest.Put(index, buffer));
  sealed_bytes_.Add(static_cast<double>(buffer.size()));
  Pace(buffer.size());
  return {};
}

// So that sealing leaves the disk to others.
void ChunkVolumeStore::Pace(uint64_t bytes) {
  using Clock = std::chrono::steady_clock;
  if (options_.seal_bytes_per_s == 0) return;
  const auto until =
      Clock::now() + std::chrono::milliseconds(bytes * 1000 / options_.seal_bytes_per_s);
  base::MutexLock lock(mutex_);
  while (!stopping_ && wanted_.empty() && Clock::now() < until) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now());
    wake_.WaitForMs(mutex_, left.count() + 1);
  }
}

Result<void> ChunkVolumeStore::EndSealing(const Sealing& sealing, const chunkstore::Root& root) {
  Result<std::shared_ptr<chunkstore::Content>> content = chunks_.Open(root);
  base::MutexLock lock(mutex_);
  const bool wanted_no_more = records_.FindLayer(sealing.layer) == nullptr;
  Result<void> committed;
  if (content && !wanted_no_more) {
    Change change;
    change.layers[sealing.layer] =
        LayerRecord{LayerState::kSealed, root.size_bytes, "", sealing.holder};
    committed = Commit(std::move(change));
  }
  if (!content || wanted_no_more || !committed) {
    if (!records_.unsure()) dead_holders_.push_back({sealing.holder, nullptr});
    if (!content) return std::move(content).error();
    return committed;
  }
  contents_[sealing.layer] = *content;
  frozen_order_.erase(sealing.layer);
  wanted_.erase(sealing.layer);
  const std::shared_ptr<Layer>& sealed = sealing.stack->layers().front();
  for (const auto& [id, volume] : open_volumes_) {
    std::vector<std::shared_ptr<Layer>> layers = volume->stack()->layers();
    const auto at = std::find(layers.begin(), layers.end(), sealed);
    if (at == layers.end()) continue;
    layers.erase(at, layers.end());
    volume->Replace(std::make_shared<const Stack>(std::move(layers), *content));
  }
  open_layers_.erase(sealing.layer);
  dead_layers_.push_back(sealing.layer);
  return {};
}

}  // namespace blockd::chunk
