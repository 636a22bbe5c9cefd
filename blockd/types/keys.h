#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/uuid.h"
#include "blockd/api/errors.h"
#include "blockd/catalog.h"
#include "blockd/type_directory.h"
#include "blockd/types/volume_type.h"

// The keys of types and qos-specs, and their records inside of a transaction: what type_store.cc
// and qos_store.cc share.

namespace blockd::types {

constexpr std::string_view kTypePrefix = "t/i/";
constexpr std::string_view kDefaultPrefix = "t/d/";
constexpr std::string_view kQosPrefix = "q/i/";

inline std::string TypeKey(std::string_view id) { return std::string(kTypePrefix).append(id); }
inline std::string TypeNameKey(std::string_view name) { return "t/n/" + std::string(name); }
inline std::string DefaultKey(std::string_view project) {
  return std::string(kDefaultPrefix).append(project);
}
inline std::string QosKey(std::string_view id) { return std::string(kQosPrefix).append(id); }
inline std::string QosNameKey(std::string_view name) { return "q/n/" + std::string(name); }

inline base::Error NoType(std::string_view id) { return api::NotFound("Volume type", id); }
inline base::Error NoQos(std::string_view id) {
  return {base::Code::kNotFound, "No such QoS spec " + api::Echo(id) + "."};
}

inline base::Result<VolumeType> LoadType(Transaction& transaction, std::string_view id) {
  if (!base::IsUuid(id)) return NoType(id);
  ASSIGN_OR_RETURN(const std::optional<std::string> bytes, transaction.GetKey(TypeKey(id)));
  if (!bytes.has_value()) return NoType(id);
  return DecodeType(*bytes);
}

inline base::Result<QosSpec> LoadQos(Transaction& transaction, std::string_view id) {
  if (!base::IsUuid(id)) return NoQos(id);
  ASSIGN_OR_RETURN(const std::optional<std::string> bytes, transaction.GetKey(QosKey(id)));
  if (!bytes.has_value()) return NoQos(id);
  return DecodeQosSpec(*bytes);
}

}  // namespace blockd::types
