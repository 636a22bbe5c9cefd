#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "blockd/chunk/records.h"
#include "chunkstore/meta_store.h"

namespace blockd::chunk {

// All records of the store of volumes, in memory and durable: a tree of layers, with volumes,
// snapshots and further layers that use them. A layer that nothing uses goes in the commit that
// took its last use away, and so on downwards. One thread at a time.
class VolumeRecords {
 public:
  // Reads them all. `meta` is borrowed. kCorruption for what can't be read, or names what is not
  // there.
  static base::Result<VolumeRecords> Load(chunkstore::MetaStore& meta);

  // New values of records; nothing: it goes.
  struct Change {
    std::map<std::string, std::optional<LayerRecord>> layers;
    std::map<std::string, std::optional<VolumeRecord>> volumes;
    std::map<std::string, std::optional<SnapshotRecord>> snapshots;
  };
  struct GoneLayer {
    std::string id;
    LayerRecord record;
  };
  // One durable commit; returns the layers that went with it. After an error nothing changed: if
  // the commit may have happened in spite of the error, it was taken back; where that failed too,
  // the records are `unsure`, and every further change is kIo.
  base::Result<std::vector<GoneLayer>> Commit(Change change);

  // What the disk has may be what the last failed change wanted. Files and holders that it named
  // must stay.
  bool unsure() const { return unsure_; }

  // Null if there is none.
  const LayerRecord* FindLayer(const std::string& id) const;
  const VolumeRecord* FindVolume(const std::string& id) const;
  const SnapshotRecord* FindSnapshot(const std::string& id) const;

  struct Layer {
    LayerRecord record;
    int uses = 0;
  };
  const std::map<std::string, Layer>& layers() const { return layers_; }
  const std::map<std::string, VolumeRecord>& volumes() const { return volumes_; }
  const std::map<std::string, SnapshotRecord>& snapshots() const { return snapshots_; }

  // Layers from `id` down that are frozen.
  size_t FrozenDepth(const std::string& id) const;

 private:
  explicit VolumeRecords(chunkstore::MetaStore& meta) : meta_(&meta) {}
  base::Result<void> Take(std::string_view key, std::string_view value);
  base::Result<void> CountUses();
  base::Result<void> Use(const std::string& layer);
  std::vector<GoneLayer> DropUnused(Change* change) const;
  base::Result<void> Store(const Change& change);

  chunkstore::MetaStore* meta_;
  bool unsure_ = false;
  std::map<std::string, Layer> layers_;
  std::map<std::string, VolumeRecord> volumes_;
  std::map<std::string, SnapshotRecord> snapshots_;
};

}  // namespace blockd::chunk
