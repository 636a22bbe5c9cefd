#include "blockd/handler_tools.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "blockd/api/body.h"
#include "blockd/catalog_keys.h"
#include "blockd/jobs.h"
#include "blockd/policy.h"

namespace blockd {

using base::Code;
using base::Error;
using base::Json;
using base::JsonObject;
using base::Result;

namespace {

constexpr int kWithCount = 45;  // the microversion that brought the number of all

template <typename Record>
Result<Record> IfVisible(Result<Record> record, const api::Call& call, std::string_view id) {
  if (record.has_value() && !MaySee(call.caller, record->project_id)) return NotThere<Record>(id);
  return record;
}

std::optional<ListQuery::Key> KeyOfName(std::string_view name) {
  using Key = ListQuery::Key;
  constexpr std::array<std::pair<std::string_view, Key>, 13> kKeys = {
      {{"created_at", Key::kCreated},
       {"updated_at", Key::kUpdated},
       {"name", Key::kName},
       {"display_name", Key::kName},
       {"id", Key::kId},
       {"status", Key::kStatus},
       {"size", Key::kSize},
       {"volume_size", Key::kSize},
       {"availability_zone", Key::kZone},
       {"bootable", Key::kBootable},
       {"volume_type_id", Key::kType},
       {"volume_id", Key::kVolumeId},
       {"source_volid", Key::kSourceId}}};
  for (const auto& [key_name, key] : kKeys)
    if (key_name == name) return key;
  return std::nullopt;
}

Result<std::optional<std::optional<std::string>>> TextMember(const JsonObject& body,
                                                             std::string_view name,
                                                             std::string_view older_name) {
  const std::string_view present = body.contains(name) ? name : older_name;
  if (!body.contains(present)) return std::optional<std::optional<std::string>>();
  ASSIGN_OR_RETURN(auto text, api::OptionalText(body, present, api::kMaxNameCharacters));
  return std::optional<std::optional<std::string>>(std::move(text));
}

}  // namespace

Result<void> CheckNotHeld(const VolumeRecord& volume) {
  if (volume.holds == 0) return {};
  return InvalidVolume("Volume " + volume.id + " is the source of " + std::to_string(volume.holds) +
                       " that are being created: delete it when they are available.");
}
Result<void> CheckNotHeld(const SnapshotRecord& snapshot) {
  if (snapshot.holds == 0) return {};
  return InvalidSnapshot("Snapshot " + snapshot.id + " is the source of " +
                         std::to_string(snapshot.holds) +
                         " that are being created: delete it when they are available.");
}

Error InvalidVolume(std::string_view text) {
  return Error(Code::kInvalidArgument, "Invalid volume: " + std::string(text));
}
Error InvalidSnapshot(std::string_view text) {
  return Error(Code::kInvalidArgument, "Invalid snapshot: " + std::string(text));
}
Error InvalidInput(std::string_view text) {
  return Error(Code::kInvalidArgument, "Invalid input received: " + std::string(text));
}

Result<VolumeRecord> VisibleVolume(const Context& context, const api::Call& call,
                                   std::string_view id) {
  return IfVisible(context.catalog.GetVolume(id), call, id);
}
Result<SnapshotRecord> VisibleSnapshot(const Context& context, const api::Call& call,
                                       std::string_view id) {
  return IfVisible(context.catalog.GetSnapshot(id), call, id);
}
Result<AttachmentRecord> VisibleAttachment(const Context& context, const api::Call& call,
                                           std::string_view id) {
  return IfVisible(context.catalog.GetAttachment(id), call, id);
}
Result<VolumeRecord> OwnVolume(Transaction& transaction, const api::Call& call,
                               std::string_view id) {
  return IfVisible(transaction.GetVolume(id), call, id);
}

namespace {

Catalog::Body BodyOf(const api::Call& call, const VolumeChange& change, VolumeRecord* changed) {
  return [&call, &change, changed](Transaction& transaction) -> Result<void> {
    ASSIGN_OR_RETURN(VolumeRecord volume, OwnVolume(transaction, call, call.Param("volume_id")));
    RETURN_IF_ERROR(change(transaction, volume));
    RETURN_IF_ERROR(transaction.Put(volume));
    ASSIGN_OR_RETURN(*changed, transaction.GetVolume(volume.id));
    return {};
  };
}

}  // namespace

Result<VolumeRecord> ChangeVolume(const Context& context, const api::Call& call,
                                  std::string_view action, const VolumeChange& change) {
  RETURN_IF_ERROR(CheckMayWrite(call.caller, action));
  VolumeRecord changed;
  RETURN_IF_ERROR(context.catalog.Transact(BodyOf(call, change, &changed)));
  return changed;
}

Result<VolumeRecord> ChangeVolumeByJob(const Context& context, const api::Call& call,
                                       std::string_view action, Lane lane,
                                       const VolumeChange& change) {
  RETURN_IF_ERROR(CheckMayWrite(call.caller, action));
  VolumeRecord changed;
  RETURN_IF_ERROR(context.jobs.Submit(lane, BodyOf(call, change, &changed)));
  return changed;
}

Result<ListQuery> ToQuery(const api::Call& call, const api::ListRequest& list) {
  ListQuery query;
  query.marker = list.marker;
  query.offset = list.offset;
  query.limit = list.limit;
  if (!list.all_tenants || !call.caller.IsAdmin()) {
    query.project_id = call.caller.project_id;
  } else if (const auto project = list.Filter("project_id"); project.has_value()) {
    query.project_id = std::string(*project);
  }
  for (const api::SortTerm& term : list.sort) {
    const std::optional<ListQuery::Key> key = KeyOfName(term.key);
    if (!key.has_value()) return InvalidInput("Invalid sort key");
    query.sort.emplace_back(*key, term.descending);
  }
  return query;
}

ListQuery OnAllPages(const ListQuery& page) {
  ListQuery all;
  all.project_id = page.project_id;
  all.limit = UINT64_MAX;
  return all;
}

Result<base::http::Response> ListAnswer(const api::Call& call, const api::ListRequest& list,
                                        std::string_view collection, base::JsonArray views,
                                        std::string_view last_id,
                                        const std::function<Result<size_t>()>& count_all) {
  const size_t count = views.size();
  JsonObject body;
  body.emplace(collection, std::move(views));
  api::AppendNextLink(call, list, collection, count, last_id, &body);
  if (count_all != nullptr && list.with_count && call.version.AtLeast(kWithCount)) {
    ASSIGN_OR_RETURN(const size_t counted, count_all());
    body.emplace("count", counted);
  }
  return base::http::Response::OfJson(200, std::move(body));
}

Result<Naming> ParseNaming(const JsonObject& body) {
  Naming naming;
  ASSIGN_OR_RETURN(naming.name, TextMember(body, "name", "display_name"));
  ASSIGN_OR_RETURN(naming.description, TextMember(body, "description", "display_description"));
  return naming;
}

Result<std::optional<Metadata>> ParseMetadata(const JsonObject& body, std::string_view name) {
  const Json* value = body.if_contains(name);
  if (value == nullptr || value->is_null()) return std::optional<Metadata>();
  ASSIGN_OR_RETURN(Metadata metadata, api::ParseTextMap(*value, name));
  return std::optional<Metadata>(std::move(metadata));
}

Result<Metadata> ParseMetadataFilter(std::string_view text) {
  std::string json_text(text);
  std::replace(json_text.begin(), json_text.end(), '\'', '"');
  const Result<Json> json = base::ParseJson(json_text);
  if (!json.has_value() || !json->is_object())
    return InvalidInput("the filter metadata must be an object of texts");
  Metadata wanted;
  for (const auto& [key, value] : json->get_object()) {
    if (!value.is_string()) return InvalidInput("the filter metadata must be an object of texts");
    wanted.emplace(key, base::View(value.get_string()));
  }
  return wanted;
}

bool Includes(const Metadata& metadata, const Metadata& wanted) {
  return std::all_of(wanted.begin(), wanted.end(), [&](const auto& pair) {
    const auto found = metadata.find(pair.first);
    return found != metadata.end() && found->second == pair.second;
  });
}

}  // namespace blockd
