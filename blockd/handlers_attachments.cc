#include <array>
#include <utility>

#include "base/uuid.h"
#include "blockd/actions.h"
#include "blockd/api/body.h"
#include "blockd/api/views.h"
#include "blockd/attach.h"
#include "blockd/attachments.h"
#include "blockd/handler_tools.h"
#include "blockd/handlers.h"
#include "blockd/jobs.h"
#include "blockd/policy.h"
#include "blockd/views.h"

namespace blockd {
namespace {

using base::Code;
using base::JsonObject;
using base::Result;
using base::http::Response;

constexpr int kAttachments = 27;
constexpr int kComplete = 44;
constexpr int kAttachMode = 54;
constexpr std::array<std::string_view, 3> kSortKeys = {"created_at", "id", "volume_id"};

Result<Response> Answer(const Context& context, const api::Call& call, const std::string& id,
                        JsonObject data) {
  ASSIGN_OR_RETURN(const AttachmentRecord attachment, VisibleAttachment(context, call, id));
  JsonObject info;
  if (!data.empty()) info = ConnectionInfo(attachment, std::move(data));
  return Wrapped(200, "attachment", AttachmentView(attachment, std::move(info)));
}

Result<AttachmentRecord> ParseNew(const api::Call& call, const JsonObject& body) {
  AttachmentRecord attachment;
  attachment.id = base::NewUuid();
  ASSIGN_OR_RETURN(const auto volume,
                   api::OptionalText(body, "volume_uuid", api::kMaxIdCharacters));
  if (!volume.has_value()) return api::Missing("volume_uuid");
  attachment.volume_id = *volume;
  ASSIGN_OR_RETURN(const auto instance,
                   api::OptionalText(body, "instance_uuid", api::kMaxIdCharacters));
  attachment.instance_id = instance.value_or("");
  ASSIGN_OR_RETURN(const auto mode, api::OptionalText(body, "mode", api::kMaxIdCharacters));
  if (mode.has_value() && call.version.AtLeast(kAttachMode)) {
    if (*mode != "ro" && *mode != "rw")
      return InvalidInput("mode must be 'ro' or 'rw', not '" + *mode + "'");
    attachment.read_only = *mode == "ro";
  }
  return attachment;
}

Result<Response> Create(const Context& context, const api::Call& call) {
  RETURN_IF_ERROR(CheckMayWrite(call.caller, "volume:attachment_create"));
  ASSIGN_OR_RETURN(const JsonObject body, api::ParseBody(call, "attachment"));
  ASSIGN_OR_RETURN(AttachmentRecord attachment, ParseNew(call, body));
  const base::Json* connector_json = body.if_contains("connector");
  Connector connector;
  const bool connect = connector_json != nullptr && connector_json->is_object() &&
                       !connector_json->get_object().empty();
  if (connect) {
    ASSIGN_OR_RETURN(connector, ParseConnector(*connector_json));
  }
  VolumeRecord volume;
  // One commit: a crash between two would leave a reservation that nobody knows of.
  RETURN_IF_ERROR(context.catalog.Transact([&](Transaction& transaction) -> Result<void> {
    ASSIGN_OR_RETURN(volume, OwnVolume(transaction, call, attachment.volume_id));
    RETURN_IF_ERROR(CheckAttachable(volume));
    attachment.project_id = volume.project_id;
    if (connect) return BeginAttaching(transaction, context, connector, &attachment);
    RETURN_IF_ERROR(transaction.Put(attachment));
    return SettleVolumeStatus(transaction, volume.id);
  }));
  JsonObject data;
  if (connect) {
    ASSIGN_OR_RETURN(data, PublishOrDetach(context, call, volume, attachment));
  }
  return Answer(context, call, attachment.id, std::move(data));
}

// Only who may write learns how to connect: the name is a capability.
Result<JsonObject> DataFor(const Context& context, const api::Call& call,
                           const AttachmentRecord& attachment) {
  const bool open =
      attachment.status == AttachStatus::kAttaching || attachment.status == AttachStatus::kAttached;
  if (!open || attachment.secret.empty() || !CheckMayWrite(call.caller, "").has_value())
    return JsonObject();
  ASSIGN_OR_RETURN(const VolumeRecord volume, context.catalog.GetVolume(attachment.volume_id));
  return PublishAttachment(volume, attachment, context.types, context.exports);
}

Result<Response> Show(const Context& context, const api::Call& call) {
  const std::string& id = call.Param("attachment_id");
  ASSIGN_OR_RETURN(const AttachmentRecord attachment, VisibleAttachment(context, call, id));
  ASSIGN_OR_RETURN(JsonObject data, DataFor(context, call, attachment));
  return Answer(context, call, id, std::move(data));
}

JsonObject Brief(const AttachmentRecord& attachment) {
  return {{"id", attachment.id},
          {"status", AttachStatusName(attachment.status)},
          {"instance", api::TextOrNull(attachment.instance_id)},
          {"volume_id", attachment.volume_id}};
}

Result<Response> List(const Context& context, const api::Call& call, Detail detail) {
  ASSIGN_OR_RETURN(const api::ListRequest list, api::ParseList(call, kSortKeys));
  ASSIGN_OR_RETURN(const ListQuery query, ToQuery(call, list));
  const auto accept = [&](const AttachmentRecord& attachment) {
    for (const auto& [name, value] : list.filters) {
      if (name == "volume_id" && attachment.volume_id != value) return false;
      if (name == "instance_id" && attachment.instance_id != value) return false;
      if (name == "status" && AttachStatusName(attachment.status) != value) return false;
      if (name == "attach_status" && AttachStatusName(attachment.status) != value) return false;
    }
    return true;
  };
  ASSIGN_OR_RETURN(const std::vector<AttachmentRecord> attachments,
                   context.catalog.ListAttachments(query, accept));
  base::JsonArray array;
  for (const AttachmentRecord& attachment : attachments) {
    if (detail == Detail::kSummary) {
      array.push_back(Brief(attachment));
      continue;
    }
    ASSIGN_OR_RETURN(JsonObject data, DataFor(context, call, attachment));
    if (!data.empty()) data = ConnectionInfo(attachment, std::move(data));
    array.push_back(AttachmentView(attachment, std::move(data)));
  }
  return ListAnswer(call, list, "attachments", std::move(array),
                    attachments.empty() ? "" : attachments.back().id, nullptr);
}

Result<Response> ListSummary(const Context& context, const api::Call& call) {
  return List(context, call, Detail::kSummary);
}
Result<Response> ListDetail(const Context& context, const api::Call& call) {
  return List(context, call, Detail::kFull);
}

Result<Response> Update(const Context& context, const api::Call& call) {
  RETURN_IF_ERROR(CheckMayWrite(call.caller, "volume:attachment_update"));
  ASSIGN_OR_RETURN(const JsonObject body, api::ParseBody(call, "attachment"));
  const base::Json* connector_json = body.if_contains("connector");
  if (connector_json == nullptr) return api::Missing("connector");
  ASSIGN_OR_RETURN(const Connector connector, ParseConnector(*connector_json));
  const std::string& id = call.Param("attachment_id");
  ASSIGN_OR_RETURN(JsonObject data, Connect(context, call, id, connector));
  return Answer(context, call, id, std::move(data));
}

Result<Response> Delete(const Context& context, const api::Call& call) {
  RETURN_IF_ERROR(CheckMayWrite(call.caller, "volume:attachment_delete"));
  const std::string& id = call.Param("attachment_id");
  ASSIGN_OR_RETURN(const AttachmentRecord attachment, VisibleAttachment(context, call, id));
  RETURN_IF_ERROR(Disconnect(context, call, id));
  base::JsonArray left;
  const Result<VolumeRecord> volume = context.catalog.GetVolume(attachment.volume_id);
  if (volume.has_value()) {
    for (const std::string& other : volume->attachment_ids) {
      const Result<AttachmentRecord> present = context.catalog.GetAttachment(other);
      if (present.has_value()) left.push_back(Brief(*present));
    }
  }
  return Response::OfJson(200, JsonObject{{"attachments", std::move(left)}});
}

Result<Response> FinishAttaching(const Context& context, const api::Call& call, const base::Json&) {
  RETURN_IF_ERROR(CheckMayWrite(call.caller, "volume:attachment_complete"));
  RETURN_IF_ERROR(Complete(context, call, call.Param("attachment_id")));
  return Response::Empty(204);
}

Result<Response> Act(const Context& context, const api::Call& call) {
  static constexpr std::array<Action, 1> kActions = {{{"os-complete", FinishAttaching, kComplete}}};
  return RunAction(context, call, kActions);
}

}  // namespace

void AppendAttachmentRoutes(const Context& context, Routes* routes) {
  const std::string attachment = "/attachments/{attachment_id}";
  const auto add = [&](std::string method, const std::string& pattern, ContextHandler handler,
                       int since) {
    routes->push_back(
        MakeRoute(context, std::move(method), pattern, handler, base::http::Access::kToken, since));
  };
  add("POST", "/attachments", Create, kAttachments);
  add("GET", "/attachments", ListSummary, kAttachments);
  add("GET", "/attachments/detail", ListDetail, kAttachments);
  add("GET", attachment, Show, kAttachments);
  add("PUT", attachment, Update, kAttachments);
  add("DELETE", attachment, Delete, kAttachments);
  add("POST", attachment + "/action", Act, kComplete);
}

}  // namespace blockd
