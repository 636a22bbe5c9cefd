#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

// What the store of volumes keeps in the MetaStore: one partition, so that every change is one
// commit. Values are JSON.
//
//   l/<layer>     {"state": "active" | "frozen" | "sealed", "size": bytes, "parent": layer | "",
//                  "holder": name | ""}
//   v/<volume>    {"head": layer, "size": bytes, "thick": bool}
//   s/<snapshot>  {"volume": id, "layer": layer, "size": bytes}

namespace blockd::chunk {

constexpr std::string_view kPartition = "volumes";

enum class LayerState {
  kActive,  // a volume writes to it
  kFrozen,  // nobody writes to it any more
  kSealed,  // it and all below it are a content of the chunk store: no files, no parent
};

struct LayerRecord {
  LayerState state = LayerState::kActive;
  uint64_t size_bytes = 0;  // of the volume when it was frozen; of the content when sealed
  std::string parent;       // what lies below; empty: nothing
  std::string holder;       // in the chunk store, when sealed
};

struct VolumeRecord {
  std::string head;
  uint64_t size_bytes = 0;
  bool thick = false;
};

struct SnapshotRecord {
  std::string volume;
  std::string layer;
  uint64_t size_bytes = 0;
};

std::string LayerKey(const std::string& id);
std::string VolumeKey(const std::string& id);
std::string SnapshotKey(const std::string& id);

std::string Encode(const LayerRecord& record);
std::string Encode(const VolumeRecord& record);
std::string Encode(const SnapshotRecord& record);

// kCorruption.
base::Result<LayerRecord> DecodeLayer(std::string_view text);
base::Result<VolumeRecord> DecodeVolume(std::string_view text);
base::Result<SnapshotRecord> DecodeSnapshot(std::string_view text);

}  // namespace blockd::chunk
