#include "blockd/chunk/volume_records.h"

#include <algorithm>
#include <utility>

#include "base/log.h"

namespace blockd::chunk {

using base::Code;
using base::Error;
using base::Result;
using chunkstore::MetaBatch;

namespace {

template <typename Map>
auto* FindIn(const Map& map, const std::string& id) {
  const auto found = map.find(id);
  return found == map.end() ? nullptr : &found->second;
}

// What a record uses: the layer that it names.
const std::string& UsedBy(const LayerRecord& record) { return record.parent; }
const std::string& UsedBy(const VolumeRecord& record) { return record.head; }
const std::string& UsedBy(const SnapshotRecord& record) { return record.layer; }

using Deltas = std::map<std::string, int>;

void CountUse(const std::string& layer, int by, Deltas* deltas) {
  if (!layer.empty()) (*deltas)[layer] += by;
}

template <typename Record>
void CountChange(const Record* was, const std::optional<Record>& is, Deltas* deltas) {
  if (was != nullptr) CountUse(UsedBy(*was), -1, deltas);
  if (is) CountUse(UsedBy(*is), 1, deltas);
}

template <typename Record>
void AddTo(const std::string& key, const Record* was, const std::optional<Record>& is,
           MetaBatch* batch, MetaBatch* undo) {
  is ? batch->Put(key, Encode(*is)) : batch->Delete(key);
  was ? undo->Put(key, Encode(*was)) : undo->Delete(key);
}

template <typename Record>
void ApplyTo(const std::map<std::string, std::optional<Record>>& changes,
             std::map<std::string, Record>* records) {
  for (const auto& [id, record] : changes) {
    if (record) {
      (*records)[id] = *record;
    } else {
      records->erase(id);
    }
  }
}

}  // namespace

Result<VolumeRecords> VolumeRecords::Load(chunkstore::MetaStore& meta) {
  VolumeRecords records(meta);
  Result<void> taken;
  RETURN_IF_ERROR(
      meta.Scan(kPartition, "", "", SIZE_MAX, [&](std::string_view key, std::string_view value) {
        taken = records.Take(key, value);
        return taken.has_value();
      }));
  RETURN_IF_ERROR(taken);
  RETURN_IF_ERROR(records.CountUses());
  return records;
}

Result<void> VolumeRecords::Take(std::string_view key, std::string_view value) {
  const std::string id(key.substr(std::min<size_t>(2, key.size())));
  const std::string_view kind = key.substr(0, 2);
  if (kind == "l/") {
    ASSIGN_OR_RETURN(layers_[id].record, DecodeLayer(value));
  } else if (kind == "v/") {
    ASSIGN_OR_RETURN(volumes_[id], DecodeVolume(value));
  } else if (kind == "s/") {
    ASSIGN_OR_RETURN(snapshots_[id], DecodeSnapshot(value));
  } else {
    return Error(Code::kCorruption, "unknown record " + std::string(key) + " among the volumes");
  }
  return {};
}

Result<void> VolumeRecords::Use(const std::string& layer) {
  if (layer.empty()) return {};
  const auto found = layers_.find(layer);
  if (found == layers_.end())
    return Error(Code::kCorruption,
                 "the records of volumes name layer " + layer + ", which has none");
  ++found->second.uses;
  return {};
}

Result<void> VolumeRecords::CountUses() {
  for (const auto& [id, layer] : layers_) RETURN_IF_ERROR(Use(UsedBy(layer.record)));
  for (const auto& [id, volume] : volumes_) RETURN_IF_ERROR(Use(UsedBy(volume)));
  for (const auto& [id, snapshot] : snapshots_) RETURN_IF_ERROR(Use(UsedBy(snapshot)));
  return {};
}

const LayerRecord* VolumeRecords::FindLayer(const std::string& id) const {
  const Layer* layer = FindIn(layers_, id);
  return layer ? &layer->record : nullptr;
}
const VolumeRecord* VolumeRecords::FindVolume(const std::string& id) const {
  return FindIn(volumes_, id);
}
const SnapshotRecord* VolumeRecords::FindSnapshot(const std::string& id) const {
  return FindIn(snapshots_, id);
}

size_t VolumeRecords::FrozenDepth(const std::string& id) const {
  size_t depth = 0;
  for (const LayerRecord* layer = FindLayer(id); layer; layer = FindLayer(layer->parent))
    depth += layer->state == LayerState::kFrozen;
  return depth;
}

std::vector<VolumeRecords::GoneLayer> VolumeRecords::DropUnused(Change* change) const {
  Deltas deltas;
  for (const auto& [id, is] : change->layers) CountChange(FindLayer(id), is, &deltas);
  for (const auto& [id, is] : change->volumes) CountChange(FindVolume(id), is, &deltas);
  for (const auto& [id, is] : change->snapshots) CountChange(FindSnapshot(id), is, &deltas);
  std::vector<std::string> looked_at;
  for (const auto& [id, delta] : deltas) looked_at.push_back(id);
  std::vector<GoneLayer> gone;
  while (!looked_at.empty()) {
    const std::string id = std::move(looked_at.back());
    looked_at.pop_back();
    const Layer* was = FindIn(layers_, id);
    if ((was ? was->uses : 0) + deltas[id] > 0) continue;
    const auto changed = change->layers.find(id);
    if (changed != change->layers.end() && !changed->second) continue;  // gone already
    const LayerRecord last = changed == change->layers.end() ? was->record : *changed->second;
    change->layers[id] = std::nullopt;
    gone.push_back({id, last});
    CountUse(last.parent, -1, &deltas);
    if (!last.parent.empty()) looked_at.push_back(last.parent);
  }
  return gone;
}

Result<void> VolumeRecords::Store(const Change& change) {
  MetaBatch batch;
  MetaBatch undo;
  for (const auto& [id, is] : change.layers) AddTo(LayerKey(id), FindLayer(id), is, &batch, &undo);
  for (const auto& [id, is] : change.volumes)
    AddTo(VolumeKey(id), FindVolume(id), is, &batch, &undo);
  for (const auto& [id, is] : change.snapshots)
    AddTo(SnapshotKey(id), FindSnapshot(id), is, &batch, &undo);
  Result<void> stored = chunkstore::CommitDurably(*meta_, kPartition, batch);
  if (stored) return {};
  // It may have happened, or be going to once the disk syncs.
  Result<void> undone = chunkstore::CommitDurably(*meta_, kPartition, undo);
  if (!undone) {
    unsure_ = true;
    LOG(kError, "blockd", "a change of volumes failed and could not be taken back: {}; {}",
        stored.error().ToString(), undone.error().ToString());
  }
  return stored;
}

Result<std::vector<VolumeRecords::GoneLayer>> VolumeRecords::Commit(Change change) {
  if (unsure_) {
    return Error(Code::kIo,
                 "an earlier change of volumes failed half way: restart the service once its disk "
                 "is well");
  }
  std::vector<GoneLayer> gone = DropUnused(&change);
  RETURN_IF_ERROR(Store(change));
  Deltas deltas;
  for (const auto& [id, is] : change.layers) CountChange(FindLayer(id), is, &deltas);
  for (const auto& [id, is] : change.volumes) CountChange(FindVolume(id), is, &deltas);
  for (const auto& [id, is] : change.snapshots) CountChange(FindSnapshot(id), is, &deltas);
  for (const auto& [id, record] : change.layers) {
    if (record) {
      layers_[id].record = *record;
    } else {
      layers_.erase(id);
    }
  }
  ApplyTo(change.volumes, &volumes_);
  ApplyTo(change.snapshots, &snapshots_);
  for (const auto& [id, delta] : deltas) {
    const auto layer = layers_.find(id);
    if (layer != layers_.end()) layer->second.uses += delta;
  }
  return gone;
}

}  // namespace blockd::chunk
