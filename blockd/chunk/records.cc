#include "blockd/chunk/records.h"

#include <array>
#include <optional>
#include <utility>

#include "base/json.h"

namespace blockd::chunk {

using base::Code;
using base::Error;
using base::FindString;
using base::FindUint;
using base::Json;
using base::JsonObject;
using base::Result;

namespace {

constexpr std::array<std::string_view, 3> kStateNames = {"active", "frozen", "sealed"};

Error BadRecord(std::string_view what, std::string_view text) {
  return Error(Code::kCorruption,
               "the record of a " + std::string(what) + " is not readable: " + std::string(text));
}

std::optional<LayerState> StateNamed(const std::optional<std::string>& name) {
  for (size_t i = 0; i < kStateNames.size(); ++i) {
    if (name == kStateNames[i]) return static_cast<LayerState>(i);
  }
  return std::nullopt;
}

}  // namespace

std::string LayerKey(const std::string& id) { return "l/" + id; }
std::string VolumeKey(const std::string& id) { return "v/" + id; }
std::string SnapshotKey(const std::string& id) { return "s/" + id; }

std::string Encode(const LayerRecord& record) {
  JsonObject object;
  object["state"] = kStateNames[static_cast<size_t>(record.state)];
  object["size"] = record.size_bytes;
  object["parent"] = record.parent;
  object["holder"] = record.holder;
  return base::ToText(object);
}

std::string Encode(const VolumeRecord& record) {
  JsonObject object;
  object["head"] = record.head;
  object["size"] = record.size_bytes;
  object["thick"] = record.thick;
  return base::ToText(object);
}

std::string Encode(const SnapshotRecord& record) {
  JsonObject object;
  object["volume"] = record.volume;
  object["layer"] = record.layer;
  object["size"] = record.size_bytes;
  return base::ToText(object);
}

Result<LayerRecord> DecodeLayer(std::string_view text) {
  Result<Json> json = base::ParseJson(text);
  if (!json) return BadRecord("layer", text);
  const auto state = StateNamed(FindString(*json, "state"));
  const auto size_bytes = FindUint(*json, "size");
  const auto parent = FindString(*json, "parent");
  const auto holder = FindString(*json, "holder");
  if (!state || !size_bytes || !parent || !holder) return BadRecord("layer", text);
  return LayerRecord{*state, *size_bytes, *parent, *holder};
}

Result<VolumeRecord> DecodeVolume(std::string_view text) {
  Result<Json> json = base::ParseJson(text);
  if (!json) return BadRecord("volume", text);
  const auto head = FindString(*json, "head");
  const auto size_bytes = FindUint(*json, "size");
  const Json* thick = base::Find(*json, "thick");
  if (!head || !size_bytes || !thick || !thick->is_bool()) return BadRecord("volume", text);
  return VolumeRecord{*head, *size_bytes, thick->get_bool()};
}

Result<SnapshotRecord> DecodeSnapshot(std::string_view text) {
  Result<Json> json = base::ParseJson(text);
  if (!json) return BadRecord("snapshot", text);
  const auto volume = FindString(*json, "volume");
  const auto layer = FindString(*json, "layer");
  const auto size_bytes = FindUint(*json, "size");
  if (!volume || !layer || !size_bytes) return BadRecord("snapshot", text);
  return SnapshotRecord{*volume, *layer, *size_bytes};
}

}  // namespace blockd::chunk
