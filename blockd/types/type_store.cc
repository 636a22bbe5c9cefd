#include "blockd/types/type_store.h"

#include <utility>

#include "base/json.h"
#include "base/uuid.h"
#include "blockd/api/body.h"
#include "blockd/quota.h"
#include "blockd/types/keys.h"

namespace blockd::types {
namespace {

using api::Bad;
using base::Code;
using base::Error;
using base::Result;

constexpr size_t kMaxNameBytes = 1020;  // with its prefix, within a key

Error NameTaken(std::string_view name) {
  return Error(Code::kAlreadyExists, "Volume Type " + api::Echo(name) + " already exists.");
}

Result<void> CheckType(const VolumeType& type) {
  if (type.projects.size() > kMaxProjectsOfAType)
    return Bad("A volume type may be given to at most " + std::to_string(kMaxProjectsOfAType) +
               " projects.");
  if (type.extra_specs.size() > api::kMaxPairs)
    return Bad("A volume type may have at most " + std::to_string(api::kMaxPairs) +
               " extra specs.");
  const auto provisioning = type.extra_specs.find(std::string(kProvisioningSpec));
  if (provisioning == type.extra_specs.end() || provisioning->second == "thick" ||
      provisioning->second == "thin")
    return {};
  return Bad("Invalid extra spec " + std::string(kProvisioningSpec) +
             ": it must be thick or thin.");
}

}  // namespace

bool MaySee(const base::auth::Caller& caller, const VolumeType& type) {
  if (type.is_public || caller.IsAdmin()) return true;
  return !caller.project_id.empty() && type.projects.contains(caller.project_id);
}

Result<void> TypeStore::Start() {
  Result<VolumeType> standard = GetByName(kDefaultTypeName);
  if (!standard.has_value()) {
    if (standard.error().code() != Code::kNotFound) return standard.error();
    VolumeType type;
    type.name = std::string(kDefaultTypeName);
    type.description = "Default Volume Type";
    Result<VolumeType> made = Create(std::move(type));
    // Another process may be starting as well.
    if (!made.has_value() && made.error().code() != Code::kAlreadyExists) return made.error();
  }
  ASSIGN_OR_RETURN(const std::vector<VolumeType> types, List());
  for (const VolumeType& type : types) {
    if (!type.deleting) continue;
    RETURN_IF_ERROR(SetMark(type.id, false));
  }
  return {};
}

Result<TypeFacts> TypeStore::FactsOf(const VolumeType& type) {
  TypeFacts facts;
  facts.id = type.id;
  facts.name = type.name;
  facts.multi_attach = type.MultiAttach();
  facts.thick = type.Thick();
  facts.unfit = type.Unfit(back_ends_);
  facts.back_end = type.BackEnd();
  if (facts.back_end.empty()) facts.back_end = back_ends_.front();
  if (type.qos_specs_id.empty()) return facts;
  Result<QosSpec> spec = GetQos(type.qos_specs_id);
  if (!spec.has_value()) {
    // It went since the type was read, and so did the association.
    if (spec.error().code() == Code::kNotFound) return facts;
    return spec.error();
  }
  if (spec->consumer != Consumer::kFrontEnd) facts.qos = std::move(spec->specs);
  return facts;
}

Result<TypeFacts> TypeStore::Find(std::string_view id) {
  ASSIGN_OR_RETURN(const VolumeType type, Get(id));
  return FactsOf(type);
}

Result<TypeFacts> TypeStore::Resolve(const base::auth::Caller& caller,
                                     std::string_view id_or_name) {
  if (id_or_name.empty()) {
    ASSIGN_OR_RETURN(const VolumeType standard, DefaultOf(caller.project_id));
    return FactsOf(standard);
  }
  Result<VolumeType> type = Get(id_or_name);
  if (!type.has_value() && type.error().code() == Code::kNotFound) type = GetByName(id_or_name);
  if (!type.has_value()) return type.error();
  if (!MaySee(caller, *type)) return NoType(id_or_name);
  if (type->deleting) return Bad("Volume type " + type->name + " is being deleted.");
  return FactsOf(*type);
}

Result<void> TypeStore::Use(Transaction& transaction, std::string_view id) {
  ASSIGN_OR_RETURN(const VolumeType type, LoadType(transaction, id));
  if (type.deleting) return NoType(id);
  return {};
}

Result<std::vector<VolumeType>> TypeStore::List() {
  return catalog_.ReadAll<VolumeType>(kTypePrefix, DecodeType);
}

Result<VolumeType> TypeStore::Get(std::string_view id) {
  if (!base::IsUuid(id)) return NoType(id);
  ASSIGN_OR_RETURN(const std::optional<std::string> bytes, catalog_.GetKey(TypeKey(id)));
  if (!bytes.has_value()) return NoType(id);
  return DecodeType(*bytes);
}

Result<VolumeType> TypeStore::GetByName(std::string_view name) {
  if (name.empty() || name.size() > kMaxNameBytes) return NoType(name);
  ASSIGN_OR_RETURN(const std::optional<std::string> id, catalog_.GetKey(TypeNameKey(name)));
  if (!id.has_value()) return NoType(name);
  return Get(*id);
}

Result<VolumeType> TypeStore::DefaultOf(std::string_view project_id) {
  Result<Default> own = GetDefault(project_id);
  if (own.has_value()) return Get(own->type_id);
  if (own.error().code() != Code::kNotFound) return own.error();
  return GetByName(kDefaultTypeName);
}

Result<VolumeType> TypeStore::Create(VolumeType type) {
  ASSIGN_OR_RETURN(const std::vector<VolumeType> present, List());
  if (present.size() >= kMaxTypes)
    return Bad("There are " + std::to_string(kMaxTypes) + " volume types already: delete one.");
  RETURN_IF_ERROR(CheckType(type));
  type.id = base::NewUuid();
  type.created_at_us = catalog_.NowUs();
  RETURN_IF_ERROR(catalog_.Transact([&](Transaction& transaction) -> Result<void> {
    ASSIGN_OR_RETURN(const auto holder, transaction.GetKey(TypeNameKey(type.name)));
    if (holder.has_value()) return NameTaken(type.name);
    ASSIGN_OR_RETURN(const auto nothing, transaction.GetKey(TypeKey(type.id)));
    if (nothing.has_value()) return Error(Code::kConflict, "the id of a new type is taken");
    transaction.PutKey(TypeNameKey(type.name), type.id);
    transaction.PutKey(TypeKey(type.id), Encode(type));
    return {};
  }));
  return type;
}

Result<VolumeType> TypeStore::Update(std::string_view id, const Change& change) {
  VolumeType type;
  RETURN_IF_ERROR(catalog_.Transact([&](Transaction& transaction) -> Result<void> {
    ASSIGN_OR_RETURN(type, LoadType(transaction, id));
    const VolumeType before = type;
    RETURN_IF_ERROR(change(type));
    RETURN_IF_ERROR(CheckType(type));
    if (type == before) return {};
    if (type.name != before.name) {
      if (before.name == kDefaultTypeName)
        return Bad("The default volume type " + before.name + " keeps its name.");
      ASSIGN_OR_RETURN(const auto holder, transaction.GetKey(TypeNameKey(type.name)));
      if (holder.has_value()) return NameTaken(type.name);
      ASSIGN_OR_RETURN(const auto own, transaction.GetKey(TypeNameKey(before.name)));
      if (own.has_value()) transaction.RemoveKey(TypeNameKey(before.name));
      transaction.PutKey(TypeNameKey(type.name), type.id);
    }
    type.updated_at_us = catalog_.NowUs();
    transaction.PutKey(TypeKey(type.id), Encode(type));
    return {};
  }));
  return type;
}

Result<void> TypeStore::SetMark(std::string_view id, bool deleting) {
  const Result<VolumeType> marked = Update(id, [deleting](VolumeType& type) -> Result<void> {
    type.deleting = deleting;
    return {};
  });
  if (marked.has_value() || (!deleting && marked.error().code() == Code::kNotFound)) return {};
  return marked.error();
}

Result<bool> TypeStore::InUse(std::string_view id) {
  bool used = false;
  Result<void> damage;
  const std::string volumes = TypeResource(kVolumesResource, id);
  const std::string snapshots = TypeResource(kSnapshotsResource, id);
  RETURN_IF_ERROR(catalog_.ScanKeys("U/", [&](std::string_view, std::string_view value) {
    const Result<Amounts> amounts = DecodeAmounts(value);
    if (!amounts.has_value()) {
      damage = amounts.error();
      return false;
    }
    used = amounts->contains(volumes) || amounts->contains(snapshots);
    return !used;
  }));
  RETURN_IF_ERROR(damage);
  return used;
}

Result<void> TypeStore::CheckNoDefault(const VolumeType& type) {
  const Error refused = Bad("Target volume type " + type.name +
                            " is a default one and can't be deleted: name another default first.");
  if (type.name == kDefaultTypeName) return refused;
  ASSIGN_OR_RETURN(const std::vector<Default> defaults, Defaults());
  for (const Default& entry : defaults)
    if (entry.type_id == type.id) return refused;
  return {};
}

Result<void> TypeStore::Delete(std::string_view id) {
  ASSIGN_OR_RETURN(const VolumeType present, Get(id));
  if (present.name == kDefaultTypeName) return CheckNoDefault(present);
  RETURN_IF_ERROR(SetMark(id, true));
  // After the mark nothing new names it, so what is found now is all.
  Result<void> free = CheckNoDefault(present);
  if (free.has_value()) {
    Result<bool> used = InUse(id);
    if (!used.has_value()) {
      free = used.error();
    } else if (*used) {
      free = Bad("Target volume type is still in use.");
    }
  }
  if (!free.has_value()) {
    RETURN_IF_ERROR(SetMark(id, false));
    return free.error();
  }
  return catalog_.Transact([&](Transaction& transaction) -> Result<void> {
    ASSIGN_OR_RETURN(const VolumeType type, LoadType(transaction, id));
    if (!type.deleting)
      return Error(Code::kConflict,
                   "the removal was called off by a start of the service; try again");
    if (!type.qos_specs_id.empty()) {
      ASSIGN_OR_RETURN(QosSpec spec, LoadQos(transaction, type.qos_specs_id));
      spec.type_ids.erase(type.id);
      transaction.PutKey(QosKey(spec.id), Encode(spec));
    }
    ASSIGN_OR_RETURN(const auto name, transaction.GetKey(TypeNameKey(type.name)));
    if (name.has_value()) transaction.RemoveKey(TypeNameKey(type.name));
    transaction.RemoveKey(TypeKey(type.id));
    return {};
  });
}

Result<std::vector<TypeStore::Default>> TypeStore::Defaults() {
  std::vector<Default> defaults;
  RETURN_IF_ERROR(
      catalog_.ScanKeys(kDefaultPrefix, [&](std::string_view key, std::string_view value) {
        key.remove_prefix(kDefaultPrefix.size());
        defaults.push_back({std::string(key), std::string(value)});
        return true;
      }));
  return defaults;
}

Result<TypeStore::Default> TypeStore::SetDefault(std::string_view project_id,
                                                 std::string_view id_or_name) {
  if (!base::IsUuid(project_id)) return Bad("Malformed project id " + api::Echo(project_id) + ".");
  Result<VolumeType> named = Get(id_or_name);
  if (!named.has_value() && named.error().code() == Code::kNotFound) named = GetByName(id_or_name);
  if (!named.has_value()) return named.error();
  Default entry{std::string(project_id), named->id};
  RETURN_IF_ERROR(catalog_.Transact([&](Transaction& transaction) -> Result<void> {
    ASSIGN_OR_RETURN(const VolumeType type, LoadType(transaction, entry.type_id));
    if (type.deleting) return NoType(id_or_name);
    const std::string key = DefaultKey(project_id);
    ASSIGN_OR_RETURN(const auto before, transaction.GetKey(key));
    transaction.PutKey(key, type.id);
    return {};
  }));
  return entry;
}

Result<TypeStore::Default> TypeStore::GetDefault(std::string_view project_id) {
  const Error none(Code::kNotFound,
                   "Default type for project " + api::Echo(project_id) + " not found.");
  if (!base::IsUuid(project_id)) return none;
  ASSIGN_OR_RETURN(const std::optional<std::string> id, catalog_.GetKey(DefaultKey(project_id)));
  if (!id.has_value()) return none;
  return Default{std::string(project_id), *id};
}

Result<void> TypeStore::ForgetDefault(std::string_view project_id) {
  if (!base::IsUuid(project_id)) return {};
  return catalog_.Transact([&](Transaction& transaction) -> Result<void> {
    ASSIGN_OR_RETURN(const auto before, transaction.GetKey(DefaultKey(project_id)));
    if (before.has_value()) transaction.RemoveKey(DefaultKey(project_id));
    return {};
  });
}

}  // namespace blockd::types
