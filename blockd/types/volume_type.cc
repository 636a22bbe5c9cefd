#include "blockd/types/volume_type.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/json.h"
#include "blockd/type_directory.h"

namespace blockd::types {
namespace {

using base::Json;
using base::JsonArray;
using base::JsonObject;
using base::Result;

constexpr uint64_t kVersion = 1;

constexpr std::array<std::pair<Consumer, std::string_view>, 3> kConsumers = {{
    {Consumer::kFrontEnd, "front-end"},
    {Consumer::kBackEnd, "back-end"},
    {Consumer::kBoth, "both"},
}};

JsonObject ToJson(const Specs& specs) {
  JsonObject object;
  for (const auto& [key, value] : specs) object.emplace(key, value);
  return object;
}
JsonArray ToJson(const std::set<std::string>& ids) {
  JsonArray array;
  for (const std::string& id : ids) array.emplace_back(id);
  return array;
}

base::Error Damaged() {
  return base::Error(base::Code::kCorruption, "the record of a volume type or qos-spec is damaged");
}

// Reads the members of a record; what is missing or of another kind makes it bad.
class Reader {
 public:
  explicit Reader(std::string_view bytes) {
    Result<Json> json = base::ParseJson(bytes);
    bad_ = !json.has_value() || !json->is_object();
    if (!bad_) json_ = *std::move(json);
    bad_ = bad_ || base::FindUint(json_, "version") != kVersion;
  }
  std::string Text(std::string_view name) {
    std::optional<std::string> text = OptionalText(name);
    bad_ = bad_ || !text.has_value();
    return std::move(text).value_or("");
  }
  std::optional<std::string> OptionalText(std::string_view name) {
    return base::FindString(json_, name);
  }
  bool Bool(std::string_view name) {
    const Json* value = base::Find(json_, name);
    bad_ = bad_ || value == nullptr || !value->is_bool();
    return !bad_ && value->get_bool();
  }
  int64_t Time(std::string_view name) {
    const std::optional<uint64_t> time = base::FindUint(json_, name);
    bad_ = bad_ || !time.has_value() || *time > INT64_MAX;
    return bad_ ? 0 : static_cast<int64_t>(*time);
  }
  Specs Map(std::string_view name) {
    Specs specs;
    const Json* value = base::Find(json_, name);
    bad_ = bad_ || value == nullptr || !value->is_object();
    if (bad_) return specs;
    for (const auto& [key, member] : value->get_object()) {
      bad_ = bad_ || !member.is_string();
      if (!bad_) specs.emplace(key, base::View(member.get_string()));
    }
    return specs;
  }
  std::set<std::string> Set(std::string_view name) {
    std::set<std::string> ids;
    const Json* value = base::Find(json_, name);
    bad_ = bad_ || value == nullptr || !value->is_array();
    if (bad_) return ids;
    for (const Json& member : value->get_array()) {
      bad_ = bad_ || !member.is_string();
      if (!bad_) ids.emplace(base::View(member.get_string()));
    }
    return ids;
  }
  void Fail() { bad_ = true; }
  bool bad() const { return bad_; }

 private:
  Json json_;
  bool bad_ = false;
};

}  // namespace

bool VolumeType::MultiAttach() const {
  const auto spec = extra_specs.find(std::string(kMultiAttachSpec));
  return spec != extra_specs.end() && (spec->second == "<is> True" || spec->second == "<is> true");
}

bool VolumeType::Thick() const {
  const auto spec = extra_specs.find(std::string(kProvisioningSpec));
  return spec != extra_specs.end() && spec->second == "thick";
}

std::string VolumeType::BackEnd() const {
  const auto spec = extra_specs.find(std::string(kBackEndSpec));
  return spec == extra_specs.end() ? "" : spec->second;
}

std::string VolumeType::Unfit(const std::vector<std::string>& back_ends) const {
  const std::string back_end = BackEnd();
  if (!back_end.empty() &&
      std::find(back_ends.begin(), back_ends.end(), back_end) == back_ends.end())
    return std::string(kBackEndSpec);
  const std::pair<std::string_view, std::string_view> offered[] = {
      {"vendor_name", kBackEndVendor}, {"storage_protocol", kBackEndProtocol}};
  for (const auto& [key, value] : offered) {
    const auto spec = extra_specs.find(std::string(key));
    if (spec != extra_specs.end() && spec->second != value) return std::string(key);
  }
  return "";
}

std::string_view ConsumerName(Consumer consumer) {
  for (const auto& [value, name] : kConsumers)
    if (value == consumer) return name;
  return "";
}

std::optional<Consumer> ParseConsumer(std::string_view name) {
  for (const auto& [value, known] : kConsumers)
    if (known == name) return value;
  return std::nullopt;
}

std::string Encode(const VolumeType& type) {
  JsonObject object = {{"version", kVersion},
                       {"id", type.id},
                       {"name", type.name},
                       {"is_public", type.is_public},
                       {"extra_specs", ToJson(type.extra_specs)},
                       {"qos_specs_id", type.qos_specs_id},
                       {"projects", ToJson(type.projects)},
                       {"deleting", type.deleting},
                       {"created_at_us", type.created_at_us},
                       {"updated_at_us", type.updated_at_us}};
  if (type.description.has_value()) object.emplace("description", *type.description);
  return boost::json::serialize(object);
}

std::string Encode(const QosSpec& spec) {
  const JsonObject object = {{"version", kVersion},
                             {"id", spec.id},
                             {"name", spec.name},
                             {"consumer", ConsumerName(spec.consumer)},
                             {"specs", ToJson(spec.specs)},
                             {"type_ids", ToJson(spec.type_ids)},
                             {"created_at_us", spec.created_at_us}};
  return boost::json::serialize(object);
}

Result<VolumeType> DecodeType(std::string_view bytes) {
  Reader reader(bytes);
  VolumeType type;
  type.id = reader.Text("id");
  type.name = reader.Text("name");
  type.description = reader.OptionalText("description");
  type.is_public = reader.Bool("is_public");
  type.extra_specs = reader.Map("extra_specs");
  type.qos_specs_id = reader.Text("qos_specs_id");
  type.projects = reader.Set("projects");
  type.deleting = reader.Bool("deleting");
  type.created_at_us = reader.Time("created_at_us");
  type.updated_at_us = reader.Time("updated_at_us");
  if (reader.bad()) return Damaged();
  return type;
}

Result<QosSpec> DecodeQosSpec(std::string_view bytes) {
  Reader reader(bytes);
  QosSpec spec;
  spec.id = reader.Text("id");
  spec.name = reader.Text("name");
  const std::optional<Consumer> consumer = ParseConsumer(reader.Text("consumer"));
  if (!consumer.has_value()) reader.Fail();
  spec.consumer = consumer.value_or(Consumer::kBackEnd);
  spec.specs = reader.Map("specs");
  spec.type_ids = reader.Set("type_ids");
  spec.created_at_us = reader.Time("created_at_us");
  if (reader.bad()) return Damaged();
  return spec;
}

}  // namespace blockd::types
