#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

// Volume types and qos-specs: values, and their forms in the store.

namespace blockd::types {

using Specs = std::map<std::string, std::string>;

// Extra specs that this service itself understands; others are kept for whoever reads them.
constexpr std::string_view kBackEndSpec = "volume_backend_name";
constexpr std::string_view kMultiAttachSpec = "multiattach";           // "<is> True"
constexpr std::string_view kProvisioningSpec = "quarry:provisioning";  // "thick", "thin"
constexpr std::string_view kAvailabilityZonesSpec = "RESKEY:availability_zones";

struct VolumeType {
  std::string id;
  std::string name;  // unique
  std::optional<std::string> description;
  bool is_public = true;
  Specs extra_specs;
  std::string qos_specs_id;        // empty: none
  std::set<std::string> projects;  // that have access, if it isn't public
  // Being deleted: nothing new may be made of it (type_store.h).
  bool deleting = false;
  int64_t created_at_us = 0;
  int64_t updated_at_us = 0;  // 0: never

  bool operator==(const VolumeType&) const = default;

  bool MultiAttach() const;
  bool Thick() const;
  std::string BackEnd() const;  // that it asks for; empty: any
  // As TypeFacts::unfit, where these are the back ends that there are.
  std::string Unfit(const std::vector<std::string>& back_ends) const;
};

// Who enforces a qos-spec: the hypervisor, this service, or both.
enum class Consumer : uint8_t { kFrontEnd, kBackEnd, kBoth };
std::string_view ConsumerName(Consumer consumer);  // "front-end", "back-end", "both"
std::optional<Consumer> ParseConsumer(std::string_view name);

struct QosSpec {
  std::string id;
  std::string name;  // unique
  Consumer consumer = Consumer::kBackEnd;
  Specs specs;  // keys of qos::ParseSpec, and any others
  // Types that name it: changed in the same commit as VolumeType::qos_specs_id.
  std::set<std::string> type_ids;
  int64_t created_at_us = 0;

  bool operator==(const QosSpec&) const = default;
};

// One JSON object with a version; equal records give equal bytes. Decode: kCorruption.
std::string Encode(const VolumeType& type);
std::string Encode(const QosSpec& spec);
base::Result<VolumeType> DecodeType(std::string_view bytes);
base::Result<QosSpec> DecodeQosSpec(std::string_view bytes);

}  // namespace blockd::types
