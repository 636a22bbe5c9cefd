#pragma once

#include <string>

#include "base/json.h"
#include "base/result.h"
#include "blockd/context.h"

// What the attachments API and the older actions do alike, each wholly: commits and exports.

namespace blockd {

// What a connector says.
struct Connector {
  std::string host_name;
  std::string mount_point;
  bool read_only = false;  // "mode": "ro"
};
base::Result<Connector> ParseConnector(const base::Json& connector);

// Within a transaction: the attachment, a new one too, gets a secret and becomes "attaching" under
// a lease. One that is attaching or attached already keeps its secret.
base::Result<void> BeginAttaching(Transaction& transaction, const Context& context,
                                  const Connector& connector, AttachmentRecord* attachment);

// After it: the export is published. Returns the data for the client; where the export can't be,
// the attachment is detached again.
base::Result<base::JsonObject> PublishOrDetach(const Context& context, const api::Call& call,
                                               const VolumeRecord& volume,
                                               const AttachmentRecord& attachment);

// Both, of an attachment that is there.
base::Result<base::JsonObject> Connect(const Context& context, const api::Call& call,
                                       const std::string& attachment_id,
                                       const Connector& connector);

// Takes an attachment away, and waits a moment for it to be gone: the job goes on anyhow.
base::Result<void> Disconnect(const Context& context, const api::Call& call,
                              const std::string& attachment_id);

// attaching -> attached. kInvalidArgument.
base::Result<void> Complete(const Context& context, const api::Call& call,
                            const std::string& attachment_id);

// The same within a transaction, of an attachment that the caller may change.
base::Result<AttachmentRecord> OwnAttachment(Transaction& transaction, const api::Call& call,
                                             std::string_view id);

}  // namespace blockd
