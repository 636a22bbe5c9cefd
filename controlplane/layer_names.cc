#include "controlplane/layer_names.h"

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "base/clock.h"
#include "blockd/catalog.h"
#include "blockd/chunk/holders.h"
#include "blockd/chunk/volume_records.h"
#include "chunkstore/jobs/journal.h"

namespace controlplane {
namespace {

using base::Code;
using base::Json;
using base::JsonArray;
using base::JsonObject;
using base::Result;
using blockd::chunk::VolumeRecords;

std::string LayerOf(std::string_view holder) {
  if (!holder.starts_with(blockd::chunk::kLayerHolders)) return {};
  holder.remove_prefix(blockd::chunk::kLayerHolders.size());
  return std::string(holder.substr(0, holder.find('/')));
}

void Collect(const Json* holders, std::set<std::string>* layers) {
  if (holders == nullptr || !holders->is_array()) return;
  for (const Json& holder : holders->as_array()) {
    if (!holder.is_string() || LayerOf(base::View(holder.get_string())).empty()) continue;
    layers->emplace(base::View(holder.get_string()));
  }
}

// The holders in a report that are layers.
std::set<std::string> LayersIn(const Json& report) {
  std::set<std::string> layers;
  Collect(base::Find(report, "shared_with"), &layers);
  const Json* findings = base::Find(report, "findings");
  if (findings == nullptr || !findings->is_array()) return layers;
  for (const Json& finding : findings->as_array()) Collect(base::Find(finding, "holders"), &layers);
  return layers;
}

// What reads through each of some layers.
class Users {
 public:
  Users(chunkstore::MetaStore& meta, const VolumeRecords& records)
      : records_(records),
        journal_(meta, base::SystemClock(), std::string(blockd::kPartition), ""),
        catalog_(meta, base::SystemClock(), journal_) {}

  Result<std::map<std::string, JsonArray>> Of(const std::set<std::string>& layers) {
    for (const std::string& layer : layers) users_[layer];
    for (const auto& [id, volume] : records_.volumes())
      RETURN_IF_ERROR(Add(volume.head, "volume", id, &blockd::Catalog::GetVolume));
    for (const auto& [id, snapshot] : records_.snapshots())
      RETURN_IF_ERROR(Add(snapshot.layer, "snapshot", id, &blockd::Catalog::GetSnapshot));
    return std::move(users_);
  }

 private:
  template <typename Record>
  Result<void> Add(std::string layer, std::string_view kind, const std::string& id,
                   Result<Record> (blockd::Catalog::*get)(std::string_view)) {
    while (!layer.empty()) {
      const auto wanted = users_.find(layer);
      if (wanted != users_.end() && wanted->second.size() < kMaxLayerUsers) {
        JsonObject user = {{"kind", kind}, {"id", id}};
        const Result<Record> record = (catalog_.*get)(id);
        if (record.has_value()) user["name"] = record->name.value_or("");
        if (!record.has_value() && record.error().code() != Code::kNotFound) return record.error();
        wanted->second.push_back(std::move(user));
      }
      const blockd::chunk::LayerRecord* below = records_.FindLayer(layer);
      layer = below == nullptr ? "" : below->parent;
    }
    return {};
  }

  const VolumeRecords& records_;
  chunkstore::jobs::Journal journal_;
  blockd::Catalog catalog_;
  std::map<std::string, JsonArray> users_;
};

}  // namespace

Result<void> NameLayers(chunkstore::MetaStore& meta, Json* report) {
  const std::set<std::string> holders = LayersIn(*report);
  if (holders.empty()) return {};
  std::set<std::string> layers;
  for (const std::string& holder : holders) layers.insert(LayerOf(holder));
  ASSIGN_OR_RETURN(const VolumeRecords records, VolumeRecords::Load(meta));
  ASSIGN_OR_RETURN(const auto users, Users(meta, records).Of(layers));
  JsonObject named;
  for (const std::string& holder : holders) named.emplace(holder, users.at(LayerOf(holder)));
  report->as_object()["layers"] = std::move(named);
  return {};
}

}  // namespace controlplane
