#include <array>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/uuid.h"
#include "blockd/actions.h"
#include "blockd/api/body.h"
#include "blockd/api/views.h"
#include "blockd/attach.h"
#include "blockd/attachments.h"
#include "blockd/handler_tools.h"
#include "blockd/jobs.h"
#include "blockd/policy.h"
#include "blockd/views.h"

// Attaching as it was before attachments had a resource of their own:
//   os-reserve, os-initialize_connection, os-attach          available -> attaching -> in-use
//   os-begin_detaching, os-terminate_connection, os-detach   in-use -> detaching -> available
// os-initialize_connection makes an attachment that is marked as such, and os-attach completes it.

namespace blockd {
namespace {

using base::Json;
using base::JsonObject;
using base::Result;
using base::http::Response;

std::string StatusOf(const VolumeRecord& volume) {
  return std::string(VolumeStatusName(volume.status));
}

// Moves a volume between the statuses that a client announces; a lease runs where one is on its
// way.
Result<Response> Announce(const Context& context, const api::Call& call, std::string_view policy,
                          VolumeStatus from, VolumeStatus to, std::string_view verb) {
  RETURN_IF_ERROR(
      ChangeVolume(context, call, policy, [&](Transaction&, VolumeRecord& volume) -> Result<void> {
        const bool shared = volume.multi_attach && from == VolumeStatus::kAvailable &&
                            volume.status == VolumeStatus::kInUse;
        if (volume.status != from && !shared)
          return InvalidVolume("Volume status must be " + std::string(VolumeStatusName(from)) +
                               " to " + std::string(verb) + ", but the status is " +
                               StatusOf(volume) + ".");
        volume.status = to;
        const bool passes = to == VolumeStatus::kAttaching || to == VolumeStatus::kDetaching;
        volume.lease_until_us =
            passes ? context.catalog.NowUs() + context.options.attach_lease_ms * 1000 : 0;
        return {};
      }));
  return api::Accepted();
}

Result<Response> Reserve(const Context& context, const api::Call& call, const Json&) {
  return Announce(context, call, "volume_extension:volume_actions:reserve",
                  VolumeStatus::kAvailable, VolumeStatus::kAttaching, "reserve");
}

Result<Response> Unreserve(const Context& context, const api::Call& call, const Json&) {
  RETURN_IF_ERROR(ChangeVolume(context, call, "volume_extension:volume_actions:unreserve",
                               [&](Transaction& transaction, VolumeRecord& volume) -> Result<void> {
                                 if (volume.status != VolumeStatus::kAttaching) return {};
                                 RETURN_IF_ERROR(SettleVolumeStatus(transaction, volume.id));
                                 ASSIGN_OR_RETURN(volume, transaction.GetVolume(volume.id));
                                 return {};
                               }));
  return api::Accepted();
}

Result<Response> BeginDetaching(const Context& context, const api::Call& call, const Json&) {
  return Announce(context, call, "volume_extension:volume_actions:begin_detaching",
                  VolumeStatus::kInUse, VolumeStatus::kDetaching, "begin detaching");
}

Result<Response> RollDetaching(const Context& context, const api::Call& call, const Json&) {
  return Announce(context, call, "volume_extension:volume_actions:roll_detaching",
                  VolumeStatus::kDetaching, VolumeStatus::kInUse, "roll detaching");
}

using Match = std::function<bool(const AttachmentRecord&)>;
Result<std::optional<AttachmentRecord>> FindAttachment(Transaction& transaction,
                                                       const VolumeRecord& volume,
                                                       const Match& match) {
  for (const std::string& id : volume.attachment_ids) {
    ASSIGN_OR_RETURN(AttachmentRecord attachment, transaction.GetAttachment(id));
    if (attachment.status != AttachStatus::kDetaching && match(attachment))
      return std::optional<AttachmentRecord>(std::move(attachment));
  }
  return std::optional<AttachmentRecord>();
}

Result<Response> Initialize(const Context& context, const api::Call& call, const Json& argument) {
  constexpr std::string_view kPolicy = "volume_extension:volume_actions:initialize_connection";
  RETURN_IF_ERROR(CheckMayWrite(call.caller, kPolicy));
  const Json* connector_json = base::Find(argument, "connector");
  if (connector_json == nullptr) return api::Missing("connector");
  ASSIGN_OR_RETURN(const Connector connector, ParseConnector(*connector_json));
  std::string attachment_id;
  RETURN_IF_ERROR(context.catalog.Transact([&](Transaction& transaction) -> Result<void> {
    ASSIGN_OR_RETURN(const VolumeRecord volume,
                     OwnVolume(transaction, call, call.Param("volume_id")));
    ASSIGN_OR_RETURN(const auto present,
                     FindAttachment(transaction, volume, [&](const AttachmentRecord& attachment) {
                       return attachment.legacy && attachment.host_name == connector.host_name;
                     }));
    if (present.has_value()) {
      attachment_id = present->id;
      return {};
    }
    RETURN_IF_ERROR(CheckAttachable(volume));
    AttachmentRecord attachment;
    attachment.id = base::NewUuid();
    attachment.volume_id = volume.id;
    attachment.project_id = volume.project_id;
    attachment.host_name = connector.host_name;
    attachment.legacy = true;
    attachment_id = attachment.id;
    return transaction.Put(attachment);
  }));
  ASSIGN_OR_RETURN(JsonObject data, Connect(context, call, attachment_id, connector));
  data.insert_or_assign("access_mode", connector.read_only ? "ro" : "rw");
  data.insert_or_assign("qos_specs", nullptr);
  data.insert_or_assign("encrypted", false);
  data.insert_or_assign("cacheable", false);
  return Wrapped(200, "connection_info",
                 JsonObject{{"driver_volume_type", "nbd"}, {"data", std::move(data)}});
}

// What was connected becomes attached; a volume that is attached without having been connected (an
// administrator's doing, as a rule) gets an attachment that opens nothing.
Result<Response> Attach(const Context& context, const api::Call& call, const Json& argument) {
  constexpr std::string_view kPolicy = "volume_extension:volume_actions:attach";
  RETURN_IF_ERROR(CheckMayWrite(call.caller, kPolicy));
  if (!argument.is_object()) return InvalidInput("os-attach needs an object");
  const JsonObject& body = argument.get_object();
  ASSIGN_OR_RETURN(const auto instance,
                   api::OptionalText(body, "instance_uuid", api::kMaxIdCharacters));
  ASSIGN_OR_RETURN(const auto host, api::OptionalText(body, "host_name", api::kMaxNameCharacters));
  ASSIGN_OR_RETURN(const auto mount,
                   api::OptionalText(body, "mountpoint", api::kMaxNameCharacters));
  ASSIGN_OR_RETURN(const auto mode, api::OptionalText(body, "mode", api::kMaxIdCharacters));
  if (mode.has_value() && *mode != "ro" && *mode != "rw")
    return InvalidInput("mode must be 'ro' or 'rw', not '" + *mode + "'");
  RETURN_IF_ERROR(context.catalog.Transact([&](Transaction& transaction) -> Result<void> {
    ASSIGN_OR_RETURN(const VolumeRecord volume,
                     OwnVolume(transaction, call, call.Param("volume_id")));
    ASSIGN_OR_RETURN(auto attachment,
                     FindAttachment(transaction, volume, [](const AttachmentRecord& present) {
                       return present.legacy && present.status == AttachStatus::kAttaching;
                     }));
    if (!attachment.has_value()) {
      RETURN_IF_ERROR(CheckAttachable(volume));
      attachment.emplace();
      attachment->id = base::NewUuid();
      attachment->volume_id = volume.id;
      attachment->project_id = volume.project_id;
      attachment->legacy = true;
      attachment->read_only = mode == "ro";
    }
    attachment->status = AttachStatus::kAttached;
    attachment->attached_at_us = context.catalog.NowUs();
    attachment->lease_until_us = 0;
    attachment->instance_id = instance.value_or("");
    attachment->mount_point = mount.value_or("");
    if (host.has_value()) attachment->host_name = *host;
    RETURN_IF_ERROR(transaction.Put(*attachment));
    return SettleVolumeStatus(transaction, volume.id);
  }));
  return api::Accepted();
}

// Those that match and are not on their way out.
Result<std::vector<std::string>> Meant(const Context& context, const api::Call& call,
                                       const Match& match) {
  std::vector<std::string> ids;
  RETURN_IF_ERROR(context.catalog.Transact([&](Transaction& transaction) -> Result<void> {
    ids.clear();
    ASSIGN_OR_RETURN(const VolumeRecord volume,
                     OwnVolume(transaction, call, call.Param("volume_id")));
    for (const std::string& id : volume.attachment_ids) {
      ASSIGN_OR_RETURN(const AttachmentRecord attachment, transaction.GetAttachment(id));
      if (attachment.status != AttachStatus::kDetaching && match(attachment)) ids.push_back(id);
    }
    return {};
  }));
  return ids;
}

// Nothing counts as an object without members.
Result<JsonObject> ArgumentsOf(const Json& argument, std::string_view action) {
  if (argument.is_null()) return JsonObject();
  if (argument.is_object()) return argument.get_object();
  return api::BadField(action, argument, "It is not of type 'object'");
}

// Of one that is attached the export alone goes, and the record with os-detach; here both go at
// once, since an attachment without an export is of no use to anybody.
Result<Response> Terminate(const Context& context, const api::Call& call, const Json& argument) {
  constexpr std::string_view kPolicy = "volume_extension:volume_actions:terminate_connection";
  RETURN_IF_ERROR(CheckMayWrite(call.caller, kPolicy));
  ASSIGN_OR_RETURN(const JsonObject body, ArgumentsOf(argument, "os-terminate_connection"));
  const Json* connector_json = body.if_contains("connector");
  std::string host;
  if (connector_json != nullptr && !connector_json->is_null()) {
    ASSIGN_OR_RETURN(const Connector connector, ParseConnector(*connector_json));
    host = connector.host_name;
  }
  ASSIGN_OR_RETURN(const auto ids, Meant(context, call, [&](const AttachmentRecord& attachment) {
                     return attachment.legacy && (host.empty() || attachment.host_name == host);
                   }));
  if (!ids.empty()) RETURN_IF_ERROR(Disconnect(context, call, ids.front()));
  return api::Accepted();
}

Result<Response> Detach(const Context& context, const api::Call& call, const Json& argument) {
  constexpr std::string_view kPolicy = "volume_extension:volume_actions:detach";
  RETURN_IF_ERROR(CheckMayWrite(call.caller, kPolicy));
  ASSIGN_OR_RETURN(const JsonObject body, ArgumentsOf(argument, "os-detach"));
  ASSIGN_OR_RETURN(const auto wanted,
                   api::OptionalText(body, "attachment_id", api::kMaxIdCharacters));
  ASSIGN_OR_RETURN(const auto ids, Meant(context, call, [&](const AttachmentRecord& attachment) {
                     return !wanted.has_value() || attachment.id == *wanted;
                   }));
  if (ids.size() > 1)
    return InvalidVolume(
        "Detach volume failed: More than one attachment, but no attachment_id provided.");
  if (!ids.empty()) {
    RETURN_IF_ERROR(Disconnect(context, call, ids.front()));
    return api::Accepted();
  }
  // Nothing is attached: only what was announced is taken back.
  RETURN_IF_ERROR(ChangeVolume(context, call, kPolicy,
                               [&](Transaction& transaction, VolumeRecord& volume) -> Result<void> {
                                 RETURN_IF_ERROR(SettleVolumeStatus(transaction, volume.id));
                                 ASSIGN_OR_RETURN(volume, transaction.GetVolume(volume.id));
                                 return {};
                               }));
  return api::Accepted();
}

constexpr std::array<Action, 8> kActions = {{{"os-reserve", Reserve},
                                             {"os-unreserve", Unreserve},
                                             {"os-begin_detaching", BeginDetaching},
                                             {"os-roll_detaching", RollDetaching},
                                             {"os-initialize_connection", Initialize},
                                             {"os-attach", Attach},
                                             {"os-terminate_connection", Terminate},
                                             {"os-detach", Detach}}};

}  // namespace

std::span<const Action> ConnectionActions() { return kActions; }

}  // namespace blockd
