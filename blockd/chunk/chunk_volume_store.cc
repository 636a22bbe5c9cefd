#include "blockd/chunk/chunk_volume_store.h"

#include <algorithm>
#include <cctype>
#include <utility>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/uuid.h"
#include "blockd/chunk/holders.h"
#include "blockd/chunk/not_found.h"

namespace blockd::chunk {

using base::Code;
using base::Error;
using base::Result;

namespace {

constexpr size_t kMaxIdBytes = 64;

Result<void> CheckId(const std::string& id) {
  const bool fine = std::all_of(id.begin(), id.end(), [](unsigned char c) {
    return std::isalnum(c) || c == '.' || c == '_' || c == '-';
  });
  if (fine && !id.empty() && id.size() <= kMaxIdBytes) return {};
  return Error(Code::kInvalidArgument, "an id is 1 to 64 of [A-Za-z0-9._-]");
}

Result<void> CheckSize(uint64_t size_bytes) {
  if (size_bytes > 0 && size_bytes <= kMaxVolumeBytes && size_bytes % kBlockBytes == 0) return {};
  return Error(Code::kInvalidArgument,
               fmt::format("{} is no size of a volume: whole blocks of {} bytes, at most {} bytes",
                           size_bytes, kBlockBytes, kMaxVolumeBytes));
}

Error VolumeInUse(const std::string& id) {
  return Error(Code::kConflict, "volume " + id + " is in use: detach it first");
}

Error TooSmall(const NewVolume& volume, uint64_t source_bytes) {
  return Error(Code::kInvalidArgument,
               fmt::format("volume {} of {} bytes is too small for its source of {} bytes",
                           volume.id, volume.size_bytes, source_bytes));
}

Result<void> CheckDepth(size_t frozen_layers) {
  if (frozen_layers <= kMaxFrozenLayers) return {};
  return Error(Code::kUnavailable,
               "snapshots come faster than they can be put into the chunk store: try again later");
}

double SecondsSince(int64_t start_ns) {
  return static_cast<double>(base::SystemClock().MonotonicNs() - start_ns) * 1e-9;
}

}  // namespace

std::string NewLayerHolder(const std::string& layer) {
  return std::string(kLayerHolders) + layer + "/" + base::NewUuidHex();
}

// ---- open and close

ChunkVolumeStore::ChunkVolumeStore(ChunkVolumeStoreOptions options, base::Files& files,
                                   chunkstore::ChunkStore& chunks, VolumeRecords records,
                                   base::Metrics& metrics)
    : options_(std::move(options)),
      files_(files),
      chunks_(chunks),
      headroom_(files, options_.dir, options_.reserve_bytes),
      live_(
          LiveDir::Open(options_.dir, options_.live_dir,
                        metrics.GetGauge("quarry_volumes_private_map_pages",
                                         "Pages of layers' maps that a kill of the service loses, "
                                         "as there was no room for them in block.live_dir"))),
      unsealed_layers_(metrics.GetGauge("quarry_volumes_unsealed_layers",
                                        "Frozen layers of volumes that wait for the sealer")),
      sealed_bytes_(metrics.GetCounter("quarry_volumes_sealed_bytes_total",
                                       "Bytes of chunks that the sealer put into the store")),
      taken_seconds_(metrics.GetHistogram(
          "quarry_volumes_snapshot_taken_seconds",
          "From the call for a snapshot until its moment was over and its record durable",
          base::DurationBuckets())),
      durable_seconds_(metrics.GetHistogram(
          "quarry_volumes_snapshot_durable_seconds",
          "From the call for a snapshot until all that was written before was durable",
          base::DurationBuckets())),
      records_(std::move(records)) {}

Result<std::unique_ptr<ChunkVolumeStore>> ChunkVolumeStore::Open(ChunkVolumeStoreOptions options,
                                                                 base::Files& files,
                                                                 chunkstore::ChunkStore& chunks,
                                                                 chunkstore::MetaStore& meta,
                                                                 base::Metrics& metrics) {
  RETURN_IF_ERROR(files.CreateDirs(options.dir));
  const size_t slash = options.dir.rfind('/');
  if (slash != std::string::npos && slash > 0)
    RETURN_IF_ERROR(files.SyncDir(options.dir.substr(0, slash)));
  ASSIGN_OR_RETURN(VolumeRecords records, VolumeRecords::Load(meta));
  std::unique_ptr<ChunkVolumeStore> store(
      new ChunkVolumeStore(std::move(options), files, chunks, std::move(records), metrics));
  RETURN_IF_ERROR(store->RemoveLeftovers());
  RETURN_IF_ERROR(store->RemoveLeftoverHolders());
  store->TakeUpLiveLayers();
  if (store->options_.background) {
    store->thread_ = std::thread([&s = *store] { s.Run(); });
    store->spares_thread_ = std::thread([&s = *store] { s.RunSpares(); });
    store->holes_thread_ = std::thread([&s = *store] { s.RunHoles(); });
  }
  return store;
}

ChunkVolumeStore::~ChunkVolumeStore() {
  {
    base::MutexLock lock(mutex_);
    stopping_ = true;
    wake_.NotifyAll();
    wake_spares_.NotifyAll();
    wake_holes_.NotifyAll();
  }
  for (std::thread* thread : {&thread_, &spares_thread_, &holes_thread_}) {
    if (thread->joinable()) thread->join();
  }
  RemoveDeadFiles();
  base::MutexLock lock(mutex_);
  for (const auto& [id, layer] : open_layers_) {
    Result<void> flushed = layer->Flush();
    if (!flushed) LOG(kError, "blockd", "closing layer {}: {}", id, flushed.error().ToString());
  }
}

// ---- layers and stacks

Result<std::shared_ptr<Layer>> ChunkVolumeStore::OpenLayer(const std::string& id) {
  const auto open = open_layers_.find(id);
  if (open != open_layers_.end()) return open->second;
  Result<std::shared_ptr<Layer>> opened = Layer::Open(files_, options_.dir, id, live_);
  if (!opened && opened.error().code() == Code::kNotFound) {
    return Error(Code::kCorruption,
                 "the files of layer " + id + " are missing: " + opened.error().message());
  }
  if (opened) open_layers_[id] = *opened;
  return opened;
}

Result<std::shared_ptr<chunkstore::Content>> ChunkVolumeStore::OpenContent(
    const std::string& layer, const std::string& holder) {
  const auto open = contents_.find(layer);
  if (open != contents_.end()) return open->second;
  ASSIGN_OR_RETURN(const chunkstore::ChunkStore::Held held, chunks_.FindHolder(holder));
  if (!held.root)
    return Error(Code::kCorruption, "holder " + holder + " of a sealed layer holds nothing");
  ASSIGN_OR_RETURN(auto content, chunks_.Open(*held.root));
  contents_[layer] = content;
  return content;
}

Result<std::shared_ptr<const Stack>> ChunkVolumeStore::StackFrom(const std::string& layer) {
  std::vector<std::shared_ptr<Layer>> layers;
  for (std::string id = layer; !id.empty();) {
    const LayerRecord& record = *records_.FindLayer(id);
    if (record.state == LayerState::kSealed) {
      ASSIGN_OR_RETURN(auto content, OpenContent(id, record.holder));
      return std::make_shared<const Stack>(std::move(layers), std::move(content));
    }
    ASSIGN_OR_RETURN(std::shared_ptr<Layer> opened, OpenLayer(id));
    layers.push_back(std::move(opened));
    id = record.parent;
  }
  return std::make_shared<const Stack>(std::move(layers), nullptr);
}

// And puts away what goes with it: the records first, then holders and files.
Result<void> ChunkVolumeStore::Commit(Change change) {
  ASSIGN_OR_RETURN(const auto gone, records_.Commit(std::move(change)));
  for (const VolumeRecords::GoneLayer& layer : gone) {
    frozen_order_.erase(layer.id);
    wanted_.erase(layer.id);
    if (layer.record.state == LayerState::kSealed) {
      dead_holders_.push_back({layer.record.holder, contents_[layer.id]});
      contents_.erase(layer.id);
    } else {
      open_layers_.erase(layer.id);
      dead_layers_.push_back(layer.id);
    }
  }
  wake_.NotifyAll();
  return {};
}

bool ChunkVolumeStore::InUse(const std::string& volume) const {
  const auto open = open_volumes_.find(volume);
  const long own = punched_ == volume ? 2 : 1;
  return open != open_volumes_.end() && open->second.use_count() > own;
}

// ---- new heads

Result<std::shared_ptr<Layer>> ChunkVolumeStore::TakeSpare() {
  {
    base::MutexLock lock(mutex_);
    if (!spares_.empty()) {
      std::shared_ptr<Layer> spare = std::move(spares_.back());
      spares_.pop_back();
      wake_spares_.NotifyAll();
      return spare;
    }
  }
  const std::string id = base::NewUuidHex();
  Result<std::shared_ptr<Layer>> made = Layer::Create(files_, options_.dir, id, live_);
  if (!made) (void)Layer::Remove(files_, options_.dir, id, live_).has_value();
  return made;
}

// One at a time, so that of two that come together the one that fits gets it.
Result<void> ChunkVolumeStore::Reserve(Layer& layer, uint64_t size_bytes) {
  base::MutexLock lock(reserve_mutex_);
  RETURN_IF_ERROR(layer.Allocate(size_bytes));
  ASSIGN_OR_RETURN(const base::SpaceInfo space, files_.Space(options_.dir));
  if (space.available_bytes >= options_.reserve_bytes) return {};
  return Error(Code::kOutOfSpace,
               fmt::format("no room for {} bytes of a thick volume", size_bytes));
}

Result<std::shared_ptr<Layer>> ChunkVolumeStore::NewHead(uint64_t allocate_bytes) {
  ASSIGN_OR_RETURN(std::shared_ptr<Layer> head, TakeSpare());
  if (allocate_bytes == 0) return head;
  Result<void> reserved = Reserve(*head, allocate_bytes);
  if (reserved) return head;
  (void)Layer::Remove(files_, options_.dir, head->id(), live_).has_value();
  return std::move(reserved).error();
}

// Says for which size, so that whoever uses it can tell whether it still fits.
Result<std::shared_ptr<Layer>> ChunkVolumeStore::NewHeadFor(const std::string& volume,
                                                            uint64_t* size_bytes) {
  bool thick = false;
  {
    base::MutexLock lock(mutex_);
    const VolumeRecord* record = records_.FindVolume(volume);
    if (!record) return NoVolume(volume);
    *size_bytes = record->size_bytes;
    thick = record->thick;
  }
  return NewHead(thick ? *size_bytes : 0);
}

// After a change that failed. One that may have happened in spite of that keeps its files.
void ChunkVolumeStore::Discard(const std::shared_ptr<Layer>& head) {
  base::MutexLock lock(mutex_);
  if (head && !records_.unsure()) dead_layers_.push_back(head->id());
}

// ---- volumes

Result<void> ChunkVolumeStore::TakeContent(const NewVolume& volume, Parts* parts) {
  parts->content = base::NewUuidHex();
  parts->holder = NewLayerHolder(parts->content);
  Result<chunkstore::Root> root = chunks_.HoldAgain(volume.source.name, parts->holder, "");
  if (!root) {
    parts->holder.clear();
    return std::move(root).error();
  }
  parts->content_bytes = root->size_bytes;
  if (root->size_bytes > volume.size_bytes) return TooSmall(volume, root->size_bytes);
  return {};
}

Result<void> ChunkVolumeStore::MakeParts(const NewVolume& volume, Parts* parts) {
  if (volume.source.kind == VolumeSource::Kind::kContent)
    RETURN_IF_ERROR(TakeContent(volume, parts));
  ASSIGN_OR_RETURN(parts->head, NewHead(volume.thick ? volume.size_bytes : 0));
  if (volume.source.kind == VolumeSource::Kind::kVolume) {
    ASSIGN_OR_RETURN(parts->source_head, NewHeadFor(volume.source.name, &parts->source_size_bytes));
  }
  return {};
}

void ChunkVolumeStore::DiscardParts(const Parts& parts) {
  Discard(parts.head);
  Discard(parts.source_head);
  base::MutexLock lock(mutex_);
  if (!parts.holder.empty() && !records_.unsure()) dead_holders_.push_back({parts.holder, nullptr});
}

Result<void> ChunkVolumeStore::Create(const NewVolume& volume) {
  RETURN_IF_ERROR(CheckId(volume.id));
  RETURN_IF_ERROR(CheckSize(volume.size_bytes));
  Parts parts;
  std::string to_flush;
  Result<void> made = MakeParts(volume, &parts);
  if (made) made = AddVolume(volume, parts, &to_flush);
  if (!made) {
    DiscardParts(parts);
    return made;
  }
  Result<void> flushed = FlushFrom(to_flush);
  if (!flushed) (void)Remove(volume.id).has_value();
  return flushed;
}

// The layer that a new volume's head stands on; `change` gets what must change for that.
Result<std::string> ChunkVolumeStore::ParentOf(const NewVolume& volume, const Parts& parts,
                                               Change* change) {
  switch (volume.source.kind) {
    case VolumeSource::Kind::kNothing:
      return std::string();
    case VolumeSource::Kind::kContent:
      change->layers[parts.content] =
          LayerRecord{LayerState::kSealed, parts.content_bytes, "", parts.holder};
      return parts.content;
    case VolumeSource::Kind::kSnapshot: {
      const SnapshotRecord* snapshot = records_.FindSnapshot(volume.source.name);
      if (!snapshot) return NoSnapshot(volume.source.name);
      if (snapshot->size_bytes > volume.size_bytes) return TooSmall(volume, snapshot->size_bytes);
      RETURN_IF_ERROR(CheckDepth(records_.FrozenDepth(snapshot->layer)));
      return snapshot->layer;
    }
    case VolumeSource::Kind::kVolume: {
      if (parts.source_size_bytes > volume.size_bytes)
        return TooSmall(volume, parts.source_size_bytes);
      return Freeze(volume.source.name, *parts.source_head, parts.source_size_bytes, change);
    }
  }
  return std::string();
}

Result<void> ChunkVolumeStore::AddVolume(const NewVolume& volume, const Parts& parts,
                                         std::string* to_flush) {
  base::MutexLock lock(mutex_);
  if (records_.FindVolume(volume.id))
    return Error(Code::kAlreadyExists, "there is a volume " + volume.id);
  Change change;
  ASSIGN_OR_RETURN(const std::string parent, ParentOf(volume, parts, &change));
  const std::string& head = parts.head->id();
  change.layers[head] = LayerRecord{LayerState::kActive, volume.size_bytes, parent, ""};
  change.volumes[volume.id] = VolumeRecord{head, volume.size_bytes, volume.thick};
  RETURN_IF_ERROR(Commit(std::move(change)));
  if (parts.source_head) SwitchHead(volume.source.name, parts.source_head);
  *to_flush = parent;
  return {};
}

// Adds to `change` that the volume's head is frozen and `new_head` stands on it; returns the frozen
// layer.
Result<std::string> ChunkVolumeStore::Freeze(const std::string& volume, const Layer& new_head,
                                             uint64_t expected_bytes, Change* change) {
  const VolumeRecord* record = records_.FindVolume(volume);
  if (!record) return NoVolume(volume);
  if (record->size_bytes != expected_bytes) {
    return Error(Code::kConflict, "volume " + volume + " was resized meanwhile: try again");
  }
  const std::string frozen = record->head;
  LayerRecord layer = *records_.FindLayer(frozen);
  RETURN_IF_ERROR(CheckDepth(records_.FrozenDepth(frozen) + 1));
  layer.state = LayerState::kFrozen;
  layer.size_bytes = record->size_bytes;
  change->layers[frozen] = layer;
  change->layers[new_head.id()] = LayerRecord{LayerState::kActive, record->size_bytes, frozen, ""};
  VolumeRecord changed = *record;
  changed.head = new_head.id();
  change->volumes[volume] = changed;
  return frozen;
}

// The records say so already; now the writes do so too. In this order a crash in between leaves a
// volume with an empty head over all that was written: the same content.
void ChunkVolumeStore::SwitchHead(const std::string& volume, const std::shared_ptr<Layer>& head) {
  frozen_order_[records_.FindLayer(head->id())->parent] = ++freezes_;
  unsealed_layers_.Set(static_cast<double>(frozen_order_.size()));
  open_layers_[head->id()] = head;
  const auto open = open_volumes_.find(volume);
  if (open == open_volumes_.end()) return;
  const std::shared_ptr<const Stack> old = open->second->stack();
  std::vector<std::shared_ptr<Layer>> layers = old->layers();
  layers.insert(layers.begin(), head);
  open->second->Replace(std::make_shared<const Stack>(std::move(layers), old->base()));
}

Result<std::shared_ptr<Volume>> ChunkVolumeStore::Open(const std::string& id) {
  base::MutexLock lock(mutex_);
  const VolumeRecord* record = records_.FindVolume(id);
  if (!record) return NoVolume(id);
  std::shared_ptr<ChunkVolume>& open = open_volumes_[id];
  if (!open) {
    Result<std::shared_ptr<const Stack>> stack = StackFrom(record->head);
    if (!stack) {
      open_volumes_.erase(id);
      return std::move(stack).error().Annotate("open volume " + id);
    }
    open = std::make_shared<ChunkVolume>(*std::move(stack), record->size_bytes, record->thick,
                                         record->thick ? nullptr : &headroom_);
  }
  return std::shared_ptr<Volume>(open);
}

Result<void> ChunkVolumeStore::Remove(const std::string& id) {
  base::MutexLock lock(mutex_);
  if (!records_.FindVolume(id)) return NoVolume(id);
  if (InUse(id)) return VolumeInUse(id);
  Change change;
  change.volumes[id] = std::nullopt;
  RETURN_IF_ERROR(Commit(std::move(change)));
  open_volumes_.erase(id);
  return {};
}

Result<void> ChunkVolumeStore::Resize(const std::string& id, uint64_t size_bytes) {
  RETURN_IF_ERROR(CheckSize(size_bytes));
  base::MutexLock lock(mutex_);
  const VolumeRecord* record = records_.FindVolume(id);
  if (!record) return NoVolume(id);
  if (size_bytes < record->size_bytes)
    return Error(Code::kInvalidArgument, "volume " + id + " can't shrink");
  if (record->thick) {
    ASSIGN_OR_RETURN(const std::shared_ptr<Layer> head, OpenLayer(record->head));
    RETURN_IF_ERROR(Reserve(*head, size_bytes));
  }
  VolumeRecord changed = *record;
  changed.size_bytes = size_bytes;
  Change change;
  change.volumes[id] = changed;
  RETURN_IF_ERROR(Commit(std::move(change)));
  const auto open = open_volumes_.find(id);
  if (open != open_volumes_.end()) open->second->Grow(size_bytes);
  return {};
}

// ---- snapshots

Result<void> ChunkVolumeStore::Snapshot(const std::string& volume_id,
                                        const std::string& snapshot_id) {
  RETURN_IF_ERROR(CheckId(snapshot_id));
  const int64_t start_ns = base::SystemClock().MonotonicNs();
  uint64_t size_bytes = 0;
  ASSIGN_OR_RETURN(const std::shared_ptr<Layer> head, NewHeadFor(volume_id, &size_bytes));
  std::string frozen;
  Result<void> kept = KeepSnapshot(volume_id, snapshot_id, head, size_bytes, &frozen);
  if (!kept) {
    Discard(head);
    return kept;
  }
  taken_seconds_.Observe(SecondsSince(start_ns));
  Result<void> flushed = FlushFrom(frozen);
  if (!flushed) (void)RemoveSnapshot(snapshot_id).has_value();
  durable_seconds_.Observe(SecondsSince(start_ns));
  return flushed;
}

Result<void> ChunkVolumeStore::KeepSnapshot(const std::string& volume_id,
                                            const std::string& snapshot_id,
                                            const std::shared_ptr<Layer>& head,
                                            uint64_t expected_bytes, std::string* frozen) {
  base::MutexLock lock(mutex_);
  if (records_.FindSnapshot(snapshot_id))
    return Error(Code::kAlreadyExists, "there is a snapshot " + snapshot_id);
  Change change;
  ASSIGN_OR_RETURN(*frozen, Freeze(volume_id, *head, expected_bytes, &change));
  change.snapshots[snapshot_id] = SnapshotRecord{volume_id, *frozen, expected_bytes};
  RETURN_IF_ERROR(Commit(std::move(change)));
  SwitchHead(volume_id, head);
  return {};
}

std::vector<std::shared_ptr<Layer>> ChunkVolumeStore::OpenLayersFrom(const std::string& layer) {
  std::vector<std::shared_ptr<Layer>> layers;
  const LayerRecord* record = records_.FindLayer(layer);
  for (std::string id = layer; record; record = records_.FindLayer(id = record->parent)) {
    const auto open = open_layers_.find(id);
    if (open != open_layers_.end()) layers.push_back(open->second);
  }
  return layers;
}

// Makes what lies in a frozen layer, and in those below, final and durable.
Result<void> ChunkVolumeStore::FlushFrom(const std::string& layer) {
  base::MutexLock lock(mutex_);
  const std::vector<std::shared_ptr<Layer>> layers = OpenLayersFrom(layer);
  ++flushes_;
  mutex_.Unlock();
  Result<void> flushed;
  for (size_t i = 0; i < layers.size() && flushed; ++i) {
    layers[i]->writers().Await();
    flushed = layers[i]->Flush();
  }
  mutex_.Lock();
  --flushes_;
  wake_.NotifyAll();
  return flushed;
}

Result<void> ChunkVolumeStore::RemoveSnapshot(const std::string& id) {
  base::MutexLock lock(mutex_);
  if (!records_.FindSnapshot(id)) return NoSnapshot(id);
  Change change;
  change.snapshots[id] = std::nullopt;
  return Commit(std::move(change));
}

Result<void> ChunkVolumeStore::Revert(const std::string& volume_id,
                                      const std::string& snapshot_id) {
  uint64_t size_bytes = 0;
  ASSIGN_OR_RETURN(const std::shared_ptr<Layer> head, NewHeadFor(volume_id, &size_bytes));
  Result<void> reverted = SwitchToSnapshot(volume_id, snapshot_id, head, size_bytes);
  if (!reverted) Discard(head);
  return reverted;
}

Result<void> ChunkVolumeStore::SwitchToSnapshot(const std::string& volume_id,
                                                const std::string& snapshot_id,
                                                const std::shared_ptr<Layer>& head,
                                                uint64_t expected_bytes) {
  base::MutexLock lock(mutex_);
  const VolumeRecord* volume = records_.FindVolume(volume_id);
  if (!volume) return NoVolume(volume_id);
  const SnapshotRecord* snapshot = records_.FindSnapshot(snapshot_id);
  if (!snapshot) return NoSnapshot(snapshot_id);
  if (snapshot->volume != volume_id) {
    return Error(Code::kConflict, "snapshot " + snapshot_id + " is not one of volume " + volume_id);
  }
  if (InUse(volume_id)) return VolumeInUse(volume_id);
  if (volume->size_bytes != expected_bytes)
    return Error(Code::kConflict, "volume " + volume_id + " was resized meanwhile: try again");
  RETURN_IF_ERROR(CheckDepth(records_.FrozenDepth(snapshot->layer)));
  Change change;
  change.layers[head->id()] =
      LayerRecord{LayerState::kActive, volume->size_bytes, snapshot->layer, ""};
  change.volumes[volume_id] = VolumeRecord{head->id(), volume->size_bytes, volume->thick};
  RETURN_IF_ERROR(Commit(std::move(change)));
  open_volumes_.erase(volume_id);
  return {};
}

Result<void> ChunkVolumeStore::Refill(const std::string& volume_id, const std::string& holder) {
  uint64_t size_bytes = 0;
  Parts parts;
  ASSIGN_OR_RETURN(parts.head, NewHeadFor(volume_id, &size_bytes));
  const NewVolume as = {volume_id, size_bytes, false, {VolumeSource::Kind::kContent, holder}};
  Result<void> filled = TakeContent(as, &parts);
  if (filled) filled = SwitchToContent(volume_id, parts, size_bytes);
  if (!filled) DiscardParts(parts);
  return filled;
}

Result<void> ChunkVolumeStore::SwitchToContent(const std::string& volume_id, const Parts& parts,
                                               uint64_t expected_bytes) {
  base::MutexLock lock(mutex_);
  const VolumeRecord* volume = records_.FindVolume(volume_id);
  if (!volume) return NoVolume(volume_id);
  if (InUse(volume_id)) return VolumeInUse(volume_id);
  if (volume->size_bytes != expected_bytes)
    return Error(Code::kConflict, "volume " + volume_id + " was resized meanwhile: try again");
  Change change;
  change.layers[parts.content] =
      LayerRecord{LayerState::kSealed, parts.content_bytes, "", parts.holder};
  change.layers[parts.head->id()] =
      LayerRecord{LayerState::kActive, volume->size_bytes, parts.content, ""};
  change.volumes[volume_id] = VolumeRecord{parts.head->id(), volume->size_bytes, volume->thick};
  RETURN_IF_ERROR(Commit(std::move(change)));
  open_volumes_.erase(volume_id);
  return {};
}

Result<std::string> ChunkVolumeStore::SnapshotHolder(const std::string& id) {
  base::MutexLock lock(mutex_);
  const SnapshotRecord* snapshot = records_.FindSnapshot(id);
  if (!snapshot) return NoSnapshot(id);
  const LayerRecord& layer = *records_.FindLayer(snapshot->layer);
  if (layer.state == LayerState::kSealed) return layer.holder;
  wanted_.insert(snapshot->layer);
  wake_.NotifyAll();
  return Error(Code::kUnavailable,
               "snapshot " + id + " is being put into the chunk store: try again in a moment");
}

}  // namespace blockd::chunk
