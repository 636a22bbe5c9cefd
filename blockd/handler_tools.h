#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/result.h"
#include "blockd/api/list_request.h"
#include "blockd/context.h"

// What the handlers of this folder have in common.

namespace blockd {

// The one that the path names, if the caller may see it. kNotFound.
base::Result<VolumeRecord> VisibleVolume(const Context& context, const api::Call& call,
                                         std::string_view id);
base::Result<SnapshotRecord> VisibleSnapshot(const Context& context, const api::Call& call,
                                             std::string_view id);
base::Result<AttachmentRecord> VisibleAttachment(const Context& context, const api::Call& call,
                                                 std::string_view id);

// The same within a transaction that changes it, by a caller who may write.
base::Result<VolumeRecord> OwnVolume(Transaction& transaction, const api::Call& call,
                                     std::string_view id);

// One change of the volume in the path. Returns it as it then is.
using VolumeChange = std::function<base::Result<void>(Transaction&, VolumeRecord&)>;
base::Result<VolumeRecord> ChangeVolume(const Context& context, const api::Call& call,
                                        std::string_view action, const VolumeChange& change);
// The same with a job that is to act on it.
base::Result<VolumeRecord> ChangeVolumeByJob(const Context& context, const api::Call& call,
                                             std::string_view action, Lane lane,
                                             const VolumeChange& change);

// Refuses to delete what something is still to be made of. kInvalidArgument.
base::Result<void> CheckNotHeld(const VolumeRecord& volume);
base::Result<void> CheckNotHeld(const SnapshotRecord& snapshot);

// "Invalid volume: <text>".
base::Error InvalidVolume(std::string_view text);
base::Error InvalidSnapshot(std::string_view text);
base::Error InvalidInput(std::string_view text);  // "Invalid input received: <text>"

// A list's page and order for the catalog; the project is the caller's unless an administrator asks
// for all.
base::Result<ListQuery> ToQuery(const api::Call& call, const api::ListRequest& list);

// The same on all pages: to count them.
ListQuery OnAllPages(const ListQuery& page);

// The answer to a list: a page of views, the next page's address, and how many there are on all
// pages if that was asked for (3.45) and can be told (`count_all` is not null).
base::Result<base::http::Response> ListAnswer(
    const api::Call& call, const api::ListRequest& list, std::string_view collection,
    base::JsonArray views, std::string_view last_id,
    const std::function<base::Result<size_t>()>& count_all);

// "name", and "description" with their older names: display_name, display_description.
struct Naming {
  std::optional<std::optional<std::string>> name;  // nothing: not said; null: none
  std::optional<std::optional<std::string>> description;
};
base::Result<Naming> ParseNaming(const base::JsonObject& body);

// A member that must be an object of texts; nothing if it is absent or null.
base::Result<std::optional<Metadata>> ParseMetadata(const base::JsonObject& body,
                                                    std::string_view name);

// The filter "metadata": {'key': 'value'} in JSON's or Python's spelling.
base::Result<Metadata> ParseMetadataFilter(std::string_view text);
bool Includes(const Metadata& metadata, const Metadata& wanted);

}  // namespace blockd
