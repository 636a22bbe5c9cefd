#include "base/uuid.h"
#include "blockd/qos/limits.h"
#include "blockd/types/keys.h"
#include "blockd/types/type_store.h"
#include "blockd/volume.h"

// The half of TypeStore that keeps qos-specs.

namespace blockd::types {
namespace {

using api::Bad;
using base::Code;
using base::Error;
using base::Result;

// A spec must do for volumes of all sizes: rates per GB grow with them.
Result<void> CheckSpecs(const QosSpec& spec) {
  for (const uint64_t size_gb : {uint64_t{1}, kMaxVolumeBytes / base::kGiB}) {
    const Result<qos::Limits> limits = qos::ParseSpec(spec.specs, size_gb);
    if (!limits.has_value()) return Bad("Invalid qos specs: " + limits.error().message());
  }
  return {};
}

// Takes the spec off a type, as far as the type is there and has it.
Result<void> TakeOff(Transaction& transaction, const QosSpec& spec, const std::string& type_id) {
  Result<VolumeType> type = LoadType(transaction, type_id);
  if (!type.has_value()) {
    if (type.error().code() == Code::kNotFound) return {};
    return type.error();
  }
  if (type->qos_specs_id != spec.id) return {};
  type->qos_specs_id.clear();
  transaction.PutKey(TypeKey(type_id), Encode(*type));
  return {};
}

}  // namespace

Result<std::vector<QosSpec>> TypeStore::ListQos() {
  return catalog_.ReadAll<QosSpec>(kQosPrefix, DecodeQosSpec);
}

Result<QosSpec> TypeStore::GetQos(std::string_view id) {
  if (!base::IsUuid(id)) return NoQos(id);
  ASSIGN_OR_RETURN(const std::optional<std::string> bytes, catalog_.GetKey(QosKey(id)));
  if (!bytes.has_value()) return NoQos(id);
  return DecodeQosSpec(*bytes);
}

Result<QosSpec> TypeStore::CreateQos(QosSpec spec) {
  ASSIGN_OR_RETURN(const std::vector<QosSpec> present, ListQos());
  if (present.size() >= kMaxTypes)
    return Bad("There are " + std::to_string(kMaxTypes) + " qos-specs already: delete one.");
  RETURN_IF_ERROR(CheckSpecs(spec));
  spec.id = base::NewUuid();
  spec.created_at_us = catalog_.NowUs();
  RETURN_IF_ERROR(catalog_.Transact([&](Transaction& transaction) -> Result<void> {
    ASSIGN_OR_RETURN(const auto holder, transaction.GetKey(QosNameKey(spec.name)));
    if (holder.has_value())
      return Error(Code::kAlreadyExists, "QoS Specs " + spec.name + " already exists.");
    ASSIGN_OR_RETURN(const auto nothing, transaction.GetKey(QosKey(spec.id)));
    if (nothing.has_value()) return Error(Code::kConflict, "the id of a new qos-spec is taken");
    transaction.PutKey(QosNameKey(spec.name), spec.id);
    transaction.PutKey(QosKey(spec.id), Encode(spec));
    return {};
  }));
  return spec;
}

Result<QosSpec> TypeStore::UpdateQos(std::string_view id, const QosChange& change) {
  QosSpec spec;
  RETURN_IF_ERROR(catalog_.Transact([&](Transaction& transaction) -> Result<void> {
    ASSIGN_OR_RETURN(spec, LoadQos(transaction, id));
    const QosSpec before = spec;
    RETURN_IF_ERROR(change(spec));
    RETURN_IF_ERROR(CheckSpecs(spec));
    if (!(spec == before)) transaction.PutKey(QosKey(id), Encode(spec));
    return {};
  }));
  return spec;
}

Result<QosSpec> TypeStore::DeleteQos(std::string_view id, bool force) {
  QosSpec spec;
  RETURN_IF_ERROR(catalog_.Transact([&](Transaction& transaction) -> Result<void> {
    ASSIGN_OR_RETURN(spec, LoadQos(transaction, id));
    if (!spec.type_ids.empty() && !force)
      return Bad("QoS Specs " + spec.id + " is still associated with entities.");
    for (const std::string& type_id : spec.type_ids) {
      RETURN_IF_ERROR(TakeOff(transaction, spec, type_id));
    }
    ASSIGN_OR_RETURN(const auto name, transaction.GetKey(QosNameKey(spec.name)));
    if (name.has_value()) transaction.RemoveKey(QosNameKey(spec.name));
    transaction.RemoveKey(QosKey(id));
    return {};
  }));
  return spec;
}

Result<void> TypeStore::Associate(std::string_view qos_id, std::string_view type_id) {
  return catalog_.Transact([&](Transaction& transaction) -> Result<void> {
    ASSIGN_OR_RETURN(QosSpec spec, LoadQos(transaction, qos_id));
    ASSIGN_OR_RETURN(VolumeType type, LoadType(transaction, type_id));
    if (type.qos_specs_id == spec.id) return {};
    if (!type.qos_specs_id.empty())
      return Bad("Invalid volume type: Type " + type.id +
                 " is already associated with another qos specs: " + type.qos_specs_id);
    type.qos_specs_id = spec.id;
    spec.type_ids.insert(type.id);
    transaction.PutKey(TypeKey(type.id), Encode(type));
    transaction.PutKey(QosKey(spec.id), Encode(spec));
    return {};
  });
}

Result<void> TypeStore::Disassociate(std::string_view qos_id, std::string_view type_id) {
  return catalog_.Transact([&](Transaction& transaction) -> Result<void> {
    ASSIGN_OR_RETURN(QosSpec spec, LoadQos(transaction, qos_id));
    ASSIGN_OR_RETURN(const VolumeType type, LoadType(transaction, type_id));
    if (spec.type_ids.erase(type.id) == 0) return {};
    RETURN_IF_ERROR(TakeOff(transaction, spec, type.id));
    transaction.PutKey(QosKey(spec.id), Encode(spec));
    return {};
  });
}

Result<QosSpec> TypeStore::DisassociateAll(std::string_view qos_id) {
  QosSpec before;
  RETURN_IF_ERROR(catalog_.Transact([&](Transaction& transaction) -> Result<void> {
    ASSIGN_OR_RETURN(before, LoadQos(transaction, qos_id));
    if (before.type_ids.empty()) return {};
    QosSpec spec = before;
    for (const std::string& type_id : before.type_ids) {
      RETURN_IF_ERROR(TakeOff(transaction, before, type_id));
    }
    spec.type_ids.clear();
    transaction.PutKey(QosKey(spec.id), Encode(spec));
    return {};
  }));
  return before;
}

}  // namespace blockd::types
