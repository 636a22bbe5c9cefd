#include "blockd/attach.h"

#include <string>

#include "base/coding.h"
#include "base/hash.h"
#include "blockd/jobs.h"
#include "blockd/serving.h"

namespace blockd {

using base::Code;
using base::Error;
using base::Result;

namespace {

// Statuses that follow from the attachments; all others are set by whoever works on the volume.
bool FollowsAttachments(VolumeStatus status) {
  switch (status) {
    case VolumeStatus::kAvailable:
    case VolumeStatus::kReserved:
    case VolumeStatus::kAttaching:
    case VolumeStatus::kInUse:
    case VolumeStatus::kDetaching:
      return true;
    default:
      return false;
  }
}

// How much an attachment's status says about the volume's.
VolumeStatus Implied(AttachStatus status) {
  switch (status) {
    case AttachStatus::kReserved:
      return VolumeStatus::kReserved;
    case AttachStatus::kAttaching:
      return VolumeStatus::kAttaching;
    case AttachStatus::kAttached:
      return VolumeStatus::kInUse;
    case AttachStatus::kDetaching:
    case AttachStatus::kErrorAttaching:
      break;
  }
  return VolumeStatus::kDetaching;
}

int Weight(VolumeStatus status) {
  switch (status) {
    case VolumeStatus::kInUse:
      return 4;
    case VolumeStatus::kDetaching:
      return 3;
    case VolumeStatus::kAttaching:
      return 2;
    case VolumeStatus::kReserved:
      return 1;
    default:
      return 0;
  }
}

}  // namespace

std::string NewSecret() {
  constexpr size_t kSecretBytes = 32;
  return base::ToBase64Url(base::RandomBytes(kSecretBytes));
}

Result<void> SettleVolumeStatus(Transaction& transaction, const std::string& volume_id) {
  Result<VolumeRecord> volume = transaction.GetVolume(volume_id);
  if (!volume.has_value()) {
    if (volume.error().code() == Code::kNotFound) return {};
    return volume.error();
  }
  VolumeStatus status = VolumeStatus::kAvailable;
  for (const std::string& id : volume->attachment_ids) {
    ASSIGN_OR_RETURN(const AttachmentRecord attachment, transaction.GetAttachment(id));
    const VolumeStatus implied = Implied(attachment.status);
    if (Weight(implied) > Weight(status)) status = implied;
  }
  if (FollowsAttachments(volume->status)) {
    volume->status = status;
    volume->lease_until_us = 0;
  } else if (FollowsAttachments(volume->previous_status)) {
    // What a job of the volume will go back to.
    volume->previous_status = status;
  }
  return transaction.Put(*volume);
}

Result<void> CheckAttachable(const VolumeRecord& volume) {
  if (volume.attachment_ids.size() >= kMaxAttachmentsOfVolume)
    return Error(Code::kInvalidArgument, "Invalid volume: Volume " + volume.id + " has " +
                                             std::to_string(volume.attachment_ids.size()) +
                                             " attachments, and one volume may have " +
                                             std::to_string(kMaxAttachmentsOfVolume) +
                                             ": delete one first.");
  const VolumeStatus status = volume.status;
  if (status == VolumeStatus::kAvailable) return {};
  // os-reserve went before.
  if (status == VolumeStatus::kAttaching && volume.attachment_ids.empty()) return {};
  const bool attached = status == VolumeStatus::kInUse || status == VolumeStatus::kReserved ||
                        status == VolumeStatus::kAttaching;
  if (attached && volume.multi_attach) return {};
  return Error(Code::kInvalidArgument,
               "Invalid volume: Volume " + volume.id +
                   " status must be available to reserve, but the current status is " +
                   std::string(VolumeStatusName(status)) + ".");
}

Result<void> BeginDetach(Transaction& transaction, AttachmentRecord attachment) {
  if (attachment.status == AttachStatus::kDetaching) return {};
  attachment.status = AttachStatus::kDetaching;
  attachment.lease_until_us = 0;
  RETURN_IF_ERROR(transaction.Put(attachment));
  Serving::AskToEnd(transaction, attachment);
  RETURN_IF_ERROR(SettleVolumeStatus(transaction, attachment.volume_id));
  return Jobs::Add(transaction, {Op::kDetach, attachment.project_id, attachment.id, ""});
}

Result<base::JsonObject> PublishAttachment(const VolumeRecord& volume,
                                           const AttachmentRecord& attachment, TypeDirectory& types,
                                           Exports& exports) {
  ExportSpec spec;
  spec.attachment_id = attachment.id;
  spec.secret = attachment.secret;
  spec.volume_id = volume.id;
  spec.project_id = volume.project_id;
  spec.size_gb = volume.size_gb;
  spec.read_only = attachment.read_only || volume.read_only;
  spec.multi_attach = volume.multi_attach;
  ASSIGN_OR_RETURN(TypeFacts type, types.Find(volume.type_id));
  spec.qos = std::move(type.qos);
  return exports.Publish(spec);
}

}  // namespace blockd
