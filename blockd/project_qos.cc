#include "blockd/project_qos.h"

#include <set>
#include <utility>

#include "base/json.h"
#include "blockd/catalog_keys.h"
#include "blockd/qos/limits.h"

namespace blockd {

using base::Code;
using base::Error;
using base::Json;
using base::JsonObject;
using base::Result;

namespace {

constexpr std::string_view kPrefix = "P/";
constexpr int kVersion = 1;
// Keys don't depend on a size.
constexpr uint64_t kAnySizeGb = 1;
constexpr size_t kMaxEchoBytes = 64;

std::string KeyOf(std::string_view project_id) {
  return std::string(kPrefix) + ProjectPart(project_id);
}

std::set<std::string> KnownKeys() {
  std::set<std::string> keys = {"size_iops_sec"};
  for (const char* scope : {"total", "read", "write"})
    for (const char* unit : {"_iops_sec", "_bytes_sec"})
      for (const char* part : {"", "_max", "_max_length"})
        keys.insert(std::string(scope) + unit + part);
  return keys;
}

std::string Encode(const ProjectQos& qos) {
  JsonObject specs;
  for (const auto& [key, value] : qos.specs) specs.emplace(key, value);
  return base::ToText(JsonObject{
      {"version", kVersion}, {"project_id", qos.project_id}, {"specs", std::move(specs)}});
}

Result<ProjectQos> Decode(std::string_view bytes) {
  const Error bad(Code::kCorruption, "a record of a project's limits is not readable");
  const Result<Json> json = base::ParseJson(bytes);
  if (!json.has_value() || base::FindUint(*json, "version") != uint64_t{kVersion}) return bad;
  const auto project_id = base::FindString(*json, "project_id");
  const Json* specs = base::Find(*json, "specs");
  if (!project_id.has_value() || specs == nullptr || !specs->is_object()) return bad;
  ProjectQos qos{*project_id, {}};
  for (const auto& [key, value] : specs->get_object()) {
    if (!value.is_string()) return bad;
    qos.specs.emplace(key, base::View(value.get_string()));
  }
  return qos;
}

}  // namespace

Result<void> CheckProjectQos(const QosSpecs& specs) {
  static const std::set<std::string> known = KnownKeys();
  for (const auto& [key, value] : specs) {
    if (known.contains(key)) continue;
    return Error(Code::kInvalidArgument,
                 "qos key " + key.substr(0, kMaxEchoBytes) +
                     ": no limit of a project. These are: total_, read_ and write_ with iops_sec "
                     "and bytes_sec, these also with _max and _max_length, and size_iops_sec");
  }
  const Result<qos::Limits> limits = qos::ParseSpec(specs, kAnySizeGb);
  if (!limits.has_value()) return limits.error();
  return {};
}

Result<ProjectQos> GetProjectQos(Catalog& catalog, std::string_view project_id) {
  ASSIGN_OR_RETURN(const std::optional<std::string> bytes, catalog.GetKey(KeyOf(project_id)));
  if (!bytes.has_value()) return ProjectQos{std::string(project_id), {}};
  return Decode(*bytes);
}

Result<std::vector<ProjectQos>> ListProjectQos(Catalog& catalog) {
  return catalog.ReadAll<ProjectQos>(kPrefix, Decode);
}

Result<void> SetProjectQos(Catalog& catalog, const ProjectQos& qos) {
  RETURN_IF_ERROR(CheckProjectQos(qos.specs));
  const std::string key = KeyOf(qos.project_id);
  return catalog.Transact([&](Transaction& transaction) -> Result<void> {
    if (qos.specs.empty()) {
      transaction.RemoveKey(key);
    } else {
      transaction.PutKey(key, Encode(qos));
    }
    return {};
  });
}

Result<void> ApplyProjectQos(Catalog& catalog, Exports& exports, std::string_view project_id) {
  ASSIGN_OR_RETURN(ProjectQos qos, GetProjectQos(catalog, project_id));
  while (true) {
    RETURN_IF_ERROR(exports.SetProjectLimits(project_id, qos.specs));
    ASSIGN_OR_RETURN(ProjectQos now, GetProjectQos(catalog, project_id));
    if (now == qos) return {};
    qos = std::move(now);
  }
}

Result<void> ApplyAllProjectQos(Catalog& catalog, Exports& exports) {
  ASSIGN_OR_RETURN(const std::vector<ProjectQos> all, ListProjectQos(catalog));
  for (const ProjectQos& qos : all) {
    RETURN_IF_ERROR(exports.SetProjectLimits(qos.project_id, qos.specs));
  }
  return {};
}

}  // namespace blockd
