#include "blockd/attachments.h"

#include <utility>

#include "blockd/api/body.h"
#include "blockd/attach.h"
#include "blockd/catalog_keys.h"
#include "blockd/handler_tools.h"
#include "blockd/jobs.h"
#include "blockd/policy.h"
#include "blockd/serving.h"

namespace blockd {

using base::Code;
using base::Error;
using base::JsonObject;
using base::Result;

Result<Connector> ParseConnector(const base::Json& connector) {
  if (!connector.is_object())
    return Error(Code::kInvalidArgument, "Invalid input received: connector must be an object");
  const JsonObject& object = connector.get_object();
  Connector parsed;
  ASSIGN_OR_RETURN(const auto host, api::OptionalText(object, "host", api::kMaxNameCharacters));
  ASSIGN_OR_RETURN(const auto mount,
                   api::OptionalText(object, "mountpoint", api::kMaxNameCharacters));
  ASSIGN_OR_RETURN(const auto mode, api::OptionalText(object, "mode", api::kMaxNameCharacters));
  parsed.host_name = host.value_or("");
  parsed.mount_point = mount.value_or("");
  parsed.read_only = mode == "ro";
  return parsed;
}

Result<AttachmentRecord> OwnAttachment(Transaction& transaction, const api::Call& call,
                                       std::string_view id) {
  ASSIGN_OR_RETURN(AttachmentRecord attachment, transaction.GetAttachment(id));
  if (!MaySee(call.caller, attachment.project_id)) return NotThere<AttachmentRecord>(id);
  return attachment;
}

Result<void> BeginAttaching(Transaction& transaction, const Context& context,
                            const Connector& connector, AttachmentRecord* attachment) {
  if (attachment->status == AttachStatus::kDetaching)
    return InvalidVolume("attachment " + attachment->id + " is being detached.");
  if (attachment->secret.empty()) attachment->secret = NewSecret();
  if (!connector.host_name.empty()) attachment->host_name = connector.host_name;
  if (!connector.mount_point.empty()) attachment->mount_point = connector.mount_point;
  if (attachment->status != AttachStatus::kAttached) {
    attachment->read_only = attachment->read_only || connector.read_only;
    attachment->status = AttachStatus::kAttaching;
    attachment->lease_until_us = context.catalog.NowUs() + context.options.attach_lease_ms * 1000;
  }
  RETURN_IF_ERROR(transaction.Put(*attachment));
  return SettleVolumeStatus(transaction, attachment->volume_id);
}

Result<JsonObject> PublishOrDetach(const Context& context, const api::Call& call,
                                   const VolumeRecord& volume, const AttachmentRecord& attachment) {
  Result<JsonObject> data = PublishAttachment(volume, attachment, context.types, context.exports);
  if (!data.has_value() && data.error().code() == Code::kConflict) {
    // Another process may have ended what is in the way.
    RETURN_IF_ERROR(WithdrawGone(context.catalog, context.exports));
    data = PublishAttachment(volume, attachment, context.types, context.exports);
  }
  if (data.has_value()) return data;
  RETURN_IF_ERROR(Disconnect(context, call, attachment.id));
  if (data.error().code() != Code::kConflict) return data.error();
  return InvalidVolume(data.error().message());
}

Result<JsonObject> Connect(const Context& context, const api::Call& call,
                           const std::string& attachment_id, const Connector& connector) {
  AttachmentRecord attachment;
  VolumeRecord volume;
  RETURN_IF_ERROR(context.catalog.Transact([&](Transaction& transaction) -> Result<void> {
    ASSIGN_OR_RETURN(attachment, OwnAttachment(transaction, call, attachment_id));
    ASSIGN_OR_RETURN(volume, transaction.GetVolume(attachment.volume_id));
    return BeginAttaching(transaction, context, connector, &attachment);
  }));
  return PublishOrDetach(context, call, volume, attachment);
}

Result<void> Disconnect(const Context& context, const api::Call& call,
                        const std::string& attachment_id) {
  RETURN_IF_ERROR(context.jobs.Submit(Lane::kDetach, [&](Transaction& transaction) -> Result<void> {
    ASSIGN_OR_RETURN(AttachmentRecord attachment, OwnAttachment(transaction, call, attachment_id));
    if (!attachment.secret.empty()) return BeginDetach(transaction, std::move(attachment));
    // It was never anybody's to connect to.
    RETURN_IF_ERROR(transaction.Remove(attachment));
    return SettleVolumeStatus(transaction, attachment.volume_id);
  }));
  context.jobs.Await(
      [&] {
        const Result<AttachmentRecord> present = context.catalog.GetAttachment(attachment_id);
        return !present.has_value();
      },
      context.options.detach_wait_ms);
  return {};
}

Result<void> Complete(const Context& context, const api::Call& call,
                      const std::string& attachment_id) {
  return context.catalog.Transact([&](Transaction& transaction) -> Result<void> {
    ASSIGN_OR_RETURN(AttachmentRecord attachment, OwnAttachment(transaction, call, attachment_id));
    if (attachment.status == AttachStatus::kAttached) return {};
    if (attachment.status != AttachStatus::kAttaching)
      return Error(Code::kInvalidArgument, "Invalid volume: attachment " + attachment_id +
                                               " must be attaching to be completed, but is " +
                                               std::string(AttachStatusName(attachment.status)) +
                                               ".");
    attachment.status = AttachStatus::kAttached;
    attachment.attached_at_us = context.catalog.NowUs();
    attachment.lease_until_us = 0;
    RETURN_IF_ERROR(transaction.Put(attachment));
    return SettleVolumeStatus(transaction, attachment.volume_id);
  });
}

}  // namespace blockd
