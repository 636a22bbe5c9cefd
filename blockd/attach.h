#pragma once

#include <string>

#include "base/result.h"
#include "blockd/catalog.h"
#include "blockd/exports.h"
#include "blockd/type_directory.h"

// The life of an attachment, as the attachments API and the older actions have it in common. Each
// of these is one step of a transaction, or what goes before and after one.
//
//   reserved -> attaching -> attached -> detaching -> gone
//
// A connector makes it "attaching": the export is published under a name with a fresh secret, and a
// lease runs; whoever attached says os-complete (or os-attach) in time, or is connected, or else
// the reconciler takes it back. A detach withdraws the export, which cuts off whoever is connected,
// and only then lets the volume go: a job (Op::kDetach).

namespace blockd {

// The record of a volume names them all, and each change of one reads them all.
constexpr size_t kMaxAttachmentsOfVolume = 128;

// 256 random bits, in base64url.
std::string NewSecret();

// What the volume's attachments make of its status: in-use if any is attached, else detaching,
// attaching, reserved, or available. Statuses that are a job's business are left alone.
base::Result<void> SettleVolumeStatus(Transaction& transaction, const std::string& volume_id);

// Another attachment for this volume, as the volume is now. kInvalidArgument in Cinder's words: the
// volume is in no state for it, is attached already and not for several, or has too many.
base::Result<void> CheckAttachable(const VolumeRecord& volume);

// The attachment becomes "detaching" with a job. Fine if it is already.
base::Result<void> BeginDetach(Transaction& transaction, AttachmentRecord attachment);

// Publishes the export of an attachment that has a secret.
base::Result<base::JsonObject> PublishAttachment(const VolumeRecord& volume,
                                                 const AttachmentRecord& attachment,
                                                 TypeDirectory& types, Exports& exports);

}  // namespace blockd
