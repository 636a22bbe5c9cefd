#pragma once

#include "base/json.h"
#include "base/result.h"
#include "blockd/context.h"

// Volumes, snapshots and attachments as clients read them: exactly the fields of Cinder's answers
// at the request's microversion, since suites check them against strict schemas.

namespace blockd {

// How much of it: what a list shows, the answer to a create or update, or all.
enum class Detail { kSummary, kCreated, kFull };

base::Result<base::JsonObject> VolumeView(const Context& context, const api::Call& call,
                                          const VolumeRecord& volume, Detail detail);

base::JsonObject SnapshotView(const api::Call& call, const SnapshotRecord& snapshot, Detail detail);

// `connection_info`: what Exports::Publish answered; empty: none.
base::JsonObject AttachmentView(const AttachmentRecord& attachment,
                                base::JsonObject connection_info);

// "data" of connection_info with what the attachments API adds to it.
base::JsonObject ConnectionInfo(const AttachmentRecord& attachment, base::JsonObject data);

// 200 or 202 with {"<name>": <object>}.
base::http::Response Wrapped(int status, std::string_view name, base::JsonObject object);

}  // namespace blockd
