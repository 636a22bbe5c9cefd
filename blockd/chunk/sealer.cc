#include <algorithm>
#include <chrono>
#include <utility>

#include "base/log.h"
#include "blockd/chunk/chunk_volume_store.h"
#include "blockd/chunk/holders.h"

// Sealing: a frozen layer that stands on a sealed one, or on nothing, becomes a content of the
// chunk store, one chunk at a time; only chunks that the layer touches are read and written. Layers
// take turns, so that a large one of one tenant does not keep the small ones of others waiting.
// Nothing is remembered of sealings when the service ends: they begin again.

namespace blockd::chunk {

using base::Code;
using base::Error;
using base::Result;
using chunkstore::kChunkBytes;

namespace {

constexpr uint64_t kBlocksPerChunk = kChunkBytes / kBlockBytes;
// Every so many turns it is not only the turn of what somebody waits for.
constexpr uint64_t kTurnsForAll = 4;
// How long the sealer waits with its next chunk while somebody waits for a flush.
constexpr std::chrono::milliseconds kYieldToFlushes{200};

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

// Of what can be sealed now, what has waited longest for a turn: mostly among the layers that
// somebody waits for, if there are any. Empty: nothing is to be sealed.
std::string ChunkVolumeStore::ChooseToSeal() {
  const bool wanted_only = !wanted_.empty() && turns_ % kTurnsForAll != 0;
  std::string chosen;
  auto chosen_key = std::pair(UINT64_MAX, UINT64_MAX);
  for (const auto& [id, layer] : records_.layers()) {
    if (layer.record.state != LayerState::kFrozen) continue;
    const uint64_t order = frozen_order_.try_emplace(id, 0).first->second;  // 0: before our start
    if (wanted_only && !wanted_.contains(id)) continue;
    std::string lowest = LowestFrozen(id);
    const auto begun = sealings_.find(lowest);
    if (begun == sealings_.end() && sealings_.size() >= kMaxSealings && !wanted_only) continue;
    const auto key = std::pair(begun == sealings_.end() ? 0 : begun->second.last_turn, order);
    if (key >= chosen_key) continue;
    chosen_key = key;
    chosen = std::move(lowest);
  }
  return chosen;
}

// Null: nothing is to be sealed now. `gone`: what nobody needs any more, to be destroyed without
// the lock.
Result<ChunkVolumeStore::Sealing*> ChunkVolumeStore::TakeTurn(std::vector<Sealing>* gone) {
  for (auto it = sealings_.begin(); it != sealings_.end();) {
    const bool needed = records_.FindLayer(it->first) != nullptr;
    if (!needed) gone->push_back(std::move(it->second));
    it = needed ? std::next(it) : sealings_.erase(it);
  }
  ++turns_;
  const std::string layer = ChooseToSeal();
  unsealed_layers_.Set(static_cast<double>(frozen_order_.size()));
  if (layer.empty() || stopping_) return nullptr;
  const auto begun = sealings_.find(layer);
  if (begun != sealings_.end()) return &begun->second;
  ASSIGN_OR_RETURN(Sealing sealing, PrepareSealing(layer));
  return &sealings_.emplace(layer, std::move(sealing)).first->second;
}

Result<ChunkVolumeStore::Sealing> ChunkVolumeStore::PrepareSealing(const std::string& layer) {
  const LayerRecord& record = *records_.FindLayer(layer);
  Sealing sealing;
  sealing.layer = layer;
  sealing.size_bytes = record.size_bytes;
  sealing.holder = NewLayerHolder(layer);
  ASSIGN_OR_RETURN(sealing.stack, StackFrom(layer));
  if (!record.parent.empty()) sealing.parent_holder = records_.FindLayer(record.parent)->holder;
  return sealing;
}

// One turn; false when there is nothing to do.
Result<bool> ChunkVolumeStore::SealNext() {
  Sealing* sealing = nullptr;
  std::vector<Sealing> gone;
  {
    base::MutexLock lock(mutex_);
    ASSIGN_OR_RETURN(sealing, TakeTurn(&gone));
  }
  gone.clear();
  if (sealing == nullptr) return false;
  const std::string layer = sealing->layer;
  sealing->last_turn = turns_;
  const Result<bool> ended = RunTurn(*sealing);
  if (ended && !*ended) return true;
  sealings_.erase(layer);
  if (ended) return true;
  base::MutexLock lock(mutex_);
  // Others first, before it is tried again.
  if (records_.FindLayer(layer)) frozen_order_[layer] = ++freezes_;
  wanted_.erase(layer);
  return ended;
}

// True: it is sealed, or nobody needs it any more.
Result<bool> ChunkVolumeStore::RunTurn(Sealing& sealing) {
  if (sealing.ingest == nullptr) RETURN_IF_ERROR(BeginSealing(sealing));
  ASSIGN_OR_RETURN(const bool all, PutSlice(sealing));
  if (!all) return false;
  ASSIGN_OR_RETURN(const chunkstore::Root root, sealing.ingest->Finish(sealing.size_bytes));
  RETURN_IF_ERROR(EndSealing(sealing, root));
  return true;
}

Result<void> ChunkVolumeStore::BeginSealing(Sealing& sealing) {
  sealing.stack->head().writers().Await();
  // What the disk failed to keep must not be read back for what was written.
  RETURN_IF_ERROR(sealing.stack->head().Flush());
  // The stack keeps the parent's content, and with it the parent's holder, even if the layer goes.
  ASSIGN_OR_RETURN(sealing.ingest, sealing.parent_holder.empty()
                                       ? chunks_.NewIngest(sealing.holder, sealing.layer)
                                       : chunks_.NewIngestOver(sealing.holder, sealing.layer,
                                                               sealing.parent_holder));
  return {};
}

// True: that was all.
Result<bool> ChunkVolumeStore::PutSlice(Sealing& sealing) {
  base::Buffer buffer(kChunkBytes);
  uint64_t put_bytes = 0;
  while (sealing.next_index * kChunkBytes < sealing.size_bytes) {
    if (stopping_) return Error(Code::kCancelled, "the service stops");
    if (put_bytes >= kSealSliceBytes) return false;
    ASSIGN_OR_RETURN(const uint64_t put, SealChunk(sealing, buffer));
    put_bytes += put;
    ++sealing.next_index;
  }
  return true;
}

// The next chunk; returns how many bytes of it had to be put.
Result<uint64_t> ChunkVolumeStore::SealChunk(Sealing& sealing, base::Buffer& buffer) {
  const uint64_t index = sealing.next_index;
  const uint64_t length = std::min<uint64_t>(kChunkBytes, sealing.size_bytes - index * kChunkBytes);
  ASSIGN_OR_RETURN(const Touch touch,
                   TouchOf(sealing.stack->head().map(), index, length / kBlockBytes));
  const uint64_t below_bytes =
      sealing.parent_holder.empty() ? 0 : sealing.stack->base()->root().size_bytes;
  // A last chunk that was short and is not the last any more must be put again.
  const bool lengthened = below_bytes < sealing.size_bytes && below_bytes % kChunkBytes != 0 &&
                          index == below_bytes / kChunkBytes;
  if (!touch.any && !lengthened) return 0;
  if (touch.all_zero) {
    RETURN_IF_ERROR(sealing.ingest->PutHole(index));
    return 0;
  }
  const base::MutableByteView bytes = buffer.view().first(length);
  RETURN_IF_ERROR(sealing.stack->Read(index * kChunkBytes, bytes));
  RETURN_IF_ERROR(sealing.ingest->Put(index, bytes));
  sealed_bytes_.Add(static_cast<double>(length));
  Pace(length);
  return length;
}

// So that sealing leaves the disk to others, above all to what makes a snapshot durable; but it
// goes on slowly even so.
void ChunkVolumeStore::Pace(uint64_t bytes) {
  using Clock = std::chrono::steady_clock;
  if (options_.seal_bytes_per_s == 0) return;
  const auto start = Clock::now();
  const auto until = start + std::chrono::milliseconds(bytes * 1000 / options_.seal_bytes_per_s);
  base::MutexLock lock(mutex_);
  while (!stopping_ && wanted_.empty()) {
    const auto end = flushes_ > 0 ? std::max(until, start + kYieldToFlushes) : until;
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now());
    if (left.count() < 0) return;
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
