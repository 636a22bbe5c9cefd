#include "blockd/tenancy/transfers.h"

#include <array>
#include <utility>

#include "base/coding.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/uuid.h"
#include "blockd/api/errors.h"
#include "blockd/policy.h"

namespace blockd::tenancy {
namespace {

using api::Bad;
using base::Code;
using base::Error;
using base::JsonObject;
using base::Result;
using base::auth::Caller;

constexpr uint64_t kVersion = 1;
constexpr std::string_view kPrefix = "x/";
constexpr size_t kKeyBytes = 16;
constexpr size_t kSaltBytes = 16;

std::string KeyOf(std::string_view id) { return std::string(kPrefix).append(id); }
Error NoTransfer(std::string_view id) { return api::NotFound("Transfer", id); }

std::string HashOf(std::string_view salt, std::string_view auth_key) {
  const std::array<uint8_t, 32> hash = base::HmacSha256(salt, auth_key);
  return base::ToHex({reinterpret_cast<const char*>(hash.data()), hash.size()});
}

std::string Encode(const TransferRecord& transfer) {
  const JsonObject object = {{"version", kVersion},
                             {"id", transfer.id},
                             {"name", transfer.name},
                             {"volume_id", transfer.volume_id},
                             {"source_project_id", transfer.source_project_id},
                             {"no_snapshots", transfer.no_snapshots},
                             {"salt", transfer.salt},
                             {"key_hash", transfer.key_hash},
                             {"created_at_us", transfer.created_at_us}};
  return boost::json::serialize(object);
}

Result<TransferRecord> Decode(std::string_view bytes) {
  const Error damaged(Code::kCorruption, "the record of a transfer is damaged");
  const Result<base::Json> json = base::ParseJson(bytes);
  if (!json.has_value() || base::FindUint(*json, "version") != kVersion) return damaged;
  TransferRecord transfer;
  const std::pair<const char*, std::string*> texts[] = {
      {"id", &transfer.id},
      {"name", &transfer.name},
      {"volume_id", &transfer.volume_id},
      {"source_project_id", &transfer.source_project_id},
      {"salt", &transfer.salt},
      {"key_hash", &transfer.key_hash},
  };
  for (const auto& [name, member] : texts) {
    std::optional<std::string> text = base::FindString(*json, name);
    if (!text.has_value()) return damaged;
    *member = *std::move(text);
  }
  const base::Json* no_snapshots = base::Find(*json, "no_snapshots");
  const std::optional<uint64_t> created = base::FindUint(*json, "created_at_us");
  if (no_snapshots == nullptr || !no_snapshots->is_bool() || !created.has_value()) return damaged;
  transfer.no_snapshots = no_snapshots->get_bool();
  transfer.created_at_us = static_cast<int64_t>(*created);
  return transfer;
}

Result<TransferRecord> Load(Transaction& transaction, std::string_view id) {
  if (!base::IsUuid(id)) return NoTransfer(id);
  ASSIGN_OR_RETURN(const std::optional<std::string> bytes, transaction.GetKey(KeyOf(id)));
  if (!bytes.has_value()) return NoTransfer(id);
  return Decode(*bytes);
}

// The volume if it is there; a removed one (its status was reset by force) is nothing.
Result<std::optional<VolumeRecord>> FindVolume(Transaction& transaction, std::string_view id) {
  Result<VolumeRecord> volume = transaction.GetVolume(id);
  if (volume.has_value()) return std::optional<VolumeRecord>(*std::move(volume));
  if (volume.error().code() == Code::kNotFound) return std::optional<VolumeRecord>();
  return volume.error();
}

}  // namespace

Result<Transfers::Offer> Transfers::Create(const Caller& caller, std::string_view volume_id,
                                           std::string_view name, bool no_snapshots) {
  RETURN_IF_ERROR(CheckMayWrite(caller, "volume:create_transfer"));
  Offer offer;
  offer.auth_key = base::ToHex(base::RandomBytes(kKeyBytes));
  TransferRecord& transfer = offer.transfer;
  transfer.id = base::NewUuid();
  transfer.name = std::string(name);
  transfer.no_snapshots = no_snapshots;
  transfer.salt = base::ToHex(base::RandomBytes(kSaltBytes));
  transfer.key_hash = HashOf(transfer.salt, offer.auth_key);
  transfer.created_at_us = catalog_.NowUs();
  RETURN_IF_ERROR(catalog_.Transact([&](Transaction& transaction) -> Result<void> {
    ASSIGN_OR_RETURN(VolumeRecord volume, transaction.GetVolume(volume_id));
    if (!MaySee(caller, volume.project_id)) return api::NotFound("Volume", volume_id);
    if (volume.status != VolumeStatus::kAvailable || !volume.attachment_ids.empty())
      return Bad("Invalid volume: status must be available");
    volume.status = VolumeStatus::kAwaitingTransfer;
    transfer.volume_id = volume.id;
    transfer.source_project_id = volume.project_id;
    transaction.PutKey(KeyOf(transfer.id), Encode(transfer));
    return transaction.Put(volume);
  }));
  return offer;
}

Result<TransferRecord> Transfers::Accept(const Caller& caller, std::string_view id,
                                         std::string_view auth_key) {
  RETURN_IF_ERROR(CheckMayWrite(caller, "volume:accept_transfer"));
  if (caller.project_id.empty()) return Bad("A volume is taken by a project: scope the token.");
  TransferRecord transfer;
  RETURN_IF_ERROR(catalog_.Transact([&](Transaction& transaction) -> Result<void> {
    ASSIGN_OR_RETURN(transfer, Load(transaction, id));
    if (!base::SecretsEqual(HashOf(transfer.salt, auth_key), transfer.key_hash))
      return Bad("Invalid auth key: Attempt to transfer " + transfer.id +
                 " with invalid auth key.");
    ASSIGN_OR_RETURN(VolumeRecord volume, transaction.GetVolume(transfer.volume_id));
    if (volume.status != VolumeStatus::kAwaitingTransfer)
      return Bad("Invalid volume: status must be awaiting-transfer");
    ASSIGN_OR_RETURN(const types::VolumeType type, types_.Get(volume.type_id));
    if (!types::MaySee(caller, type))
      return Bad("Project " + caller.project_id + " has no access to the volume's type.");
    if (!transfer.no_snapshots) {
      ASSIGN_OR_RETURN(const std::vector<SnapshotRecord> snapshots,
                       catalog_.SnapshotsOf(volume.id));
      for (const SnapshotRecord& listed : snapshots) {
        ASSIGN_OR_RETURN(SnapshotRecord snapshot, transaction.GetSnapshot(listed.id));
        // One that an earlier owner kept is not the giver's to give.
        if (snapshot.project_id != transfer.source_project_id) continue;
        if (snapshot.status != SnapshotStatus::kAvailable)
          return Bad("Invalid snapshot: status must be available for snapshot " + snapshot.id);
        snapshot.project_id = caller.project_id;
        snapshot.user_id = caller.user_id;
        RETURN_IF_ERROR(transaction.Put(snapshot));
      }
      // Putting a snapshot may have put its volume.
      ASSIGN_OR_RETURN(volume, transaction.GetVolume(volume.id));
    }
    volume.project_id = caller.project_id;
    volume.user_id = caller.user_id;
    volume.status = VolumeStatus::kAvailable;
    RETURN_IF_ERROR(transaction.Put(volume));
    transaction.RemoveKey(KeyOf(transfer.id));
    return {};
  }));
  return transfer;
}

Result<void> Transfers::Delete(const Caller& caller, std::string_view id) {
  return catalog_.Transact([&](Transaction& transaction) -> Result<void> {
    ASSIGN_OR_RETURN(const TransferRecord transfer, Load(transaction, id));
    if (!MaySee(caller, transfer.source_project_id)) return NoTransfer(id);
    RETURN_IF_ERROR(CheckMayWrite(caller, "volume:delete_transfer"));
    transaction.RemoveKey(KeyOf(id));
    ASSIGN_OR_RETURN(std::optional<VolumeRecord> volume,
                     FindVolume(transaction, transfer.volume_id));
    if (!volume.has_value() || volume->status != VolumeStatus::kAwaitingTransfer) return {};
    volume->status = VolumeStatus::kAvailable;
    return transaction.Put(*volume);
  });
}

Result<TransferRecord> Transfers::Get(const Caller& caller, std::string_view id) {
  if (!base::IsUuid(id)) return NoTransfer(id);
  ASSIGN_OR_RETURN(const std::optional<std::string> bytes, catalog_.GetKey(KeyOf(id)));
  if (!bytes.has_value()) return NoTransfer(id);
  ASSIGN_OR_RETURN(TransferRecord transfer, Decode(*bytes));
  if (!MaySee(caller, transfer.source_project_id)) return NoTransfer(id);
  return transfer;
}

Result<std::vector<TransferRecord>> Transfers::List(const Caller& caller, bool all_tenants) {
  ASSIGN_OR_RETURN(std::vector<TransferRecord> transfers,
                   catalog_.ReadAll<TransferRecord>(kPrefix, Decode));
  const bool all = all_tenants && caller.IsAdmin();
  std::erase_if(transfers, [&](const TransferRecord& transfer) {
    return !all && transfer.source_project_id != caller.project_id;
  });
  return transfers;
}

}  // namespace blockd::tenancy
