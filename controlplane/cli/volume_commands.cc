#include <fmt/format.h>

#include "controlplane/cli/cloud.h"
#include "controlplane/cli/cloud_options.h"
#include "controlplane/cli/command.h"
#include "controlplane/cli/volume_requests.h"

// What the stock client does only together with a compute service: an attachment of its own, for
// whoever runs QEMU or an NBD client by hand.

namespace controlplane::cli {
namespace {

using base::Code;
using base::Error;
using base::Json;
using base::JsonArray;
using base::JsonObject;
using base::Result;
using base::http::ClientRequest;

std::string Text(const Json& object, std::string_view key) {
  return Printable(base::FindString(object, key).value_or("-"));
}

Result<JsonArray> Volumes(ApiClient& client) {
  return ListOf(client, "/volumes/detail?limit=1000", "volumes");
}

// By id or by name.
Result<Json> FindVolume(ApiClient& client, const std::string& volume) {
  ASSIGN_OR_RETURN(const JsonArray all, FindByIdOrName(client, "volume", volume));
  if (all.size() == 1) return all[0];
  if (all.empty()) {
    return Error(Code::kNotFound,
                 fmt::format("no volume '{}'; `quarry volume ls` shows those you can see", volume));
  }
  return Error(Code::kConflict,
               fmt::format("{} volumes are named '{}': name one by its id", all.size(), volume));
}

// Those of a volume, also what a broken-off command left half made: all that `quarry volume detach`
// ends. Each has its id and status.
Result<JsonArray> AttachmentsOf(ApiClient& client, const std::string& volume_id) {
  return ListOf(client, "/attachments?limit=1000&all_tenants=1&volume_id=" + volume_id,
                "attachments");
}

// The refusal, with what to do where the volume has an attachment already.
Error ExplainRefusal(ApiClient& client, const Json& volume, const Error& refusal) {
  if (refusal.code() != Code::kInvalidArgument) return refusal;
  const std::string id = base::FindString(volume, "id").value_or("");
  const Result<JsonArray> attachments = AttachmentsOf(client, id);
  if (!attachments.has_value() || attachments->empty()) return refusal;
  const Json& first = attachments->front();
  const std::string status = Text(first, "status");
  const std::string name = Text(volume, "name");
  if (status == "detaching") {
    return Error(Code::kConflict,
                 fmt::format("volume '{}' is being detached: try again in a moment", name));
  }
  return Error(Code::kConflict,
               fmt::format("volume '{}' has an attachment already: {}, {}\n  `quarry volume detach "
                           "{}` ends it, and cuts off whoever has it open\n  ({})",
                           name, Text(first, "id"), status, id, refusal.message()));
}

Result<Json> Attach(ApiClient& client, const std::string& volume_name, bool read_only) {
  ASSIGN_OR_RETURN(const Json volume, FindVolume(client, volume_name));
  const std::string mode = read_only ? "ro" : "rw";
  const JsonObject attachment = {{"volume_uuid", base::FindString(volume, "id").value_or("")},
                                 {"instance_uuid", nullptr},
                                 {"mode", mode},
                                 {"connector", {{"host", "quarry-volume-attach"}, {"mode", mode}}}};
  ASSIGN_OR_RETURN(ClientRequest create, VolumeRequest(client, "POST", "/attachments",
                                                       JsonObject{{"attachment", attachment}}));
  const Result<Json> made = client.CallJson(std::move(create));
  if (!made.has_value()) return ExplainRefusal(client, volume, made.error());
  const Json* view = base::Find(*made, "attachment");
  const Json* info = view == nullptr ? nullptr : base::Find(*view, "connection_info");
  if (info == nullptr || !base::FindString(*info, "uri").has_value())
    return Error(Code::kIo, "the volume service did not say how to connect");
  const std::string id = base::FindString(*view, "id").value_or("");
  ASSIGN_OR_RETURN(ClientRequest complete,
                   VolumeRequest(client, "POST", "/attachments/" + id + "/action",
                                 JsonObject{{"os-complete", JsonObject()}}));
  RETURN_IF_ERROR(client.Call(std::move(complete)));
  JsonObject result = {{"attachment_id", id}, {"volume_id", Text(volume, "id")}};
  for (const std::string_view key : {"uri", "host", "port", "export", "socket", "tls"}) {
    if (const Json* value = base::Find(*info, key)) result.emplace(key, *value);
  }
  return Json(std::move(result));
}

// Everybody who is attached is cut off.
Result<JsonArray> Detach(ApiClient& client, const std::string& volume_name) {
  ASSIGN_OR_RETURN(const Json volume, FindVolume(client, volume_name));
  ASSIGN_OR_RETURN(const JsonArray attachments,
                   AttachmentsOf(client, base::FindString(volume, "id").value_or("")));
  JsonArray removed;
  for (const Json& attachment : attachments) {
    const std::string id = base::FindString(attachment, "id").value_or("");
    ASSIGN_OR_RETURN(ClientRequest remove, VolumeRequest(client, "DELETE", "/attachments/" + id));
    RETURN_IF_ERROR(client.Call(std::move(remove)));
    removed.emplace_back(id);
  }
  return removed;
}

}  // namespace

int RunVolumeLs(const Command& command, const std::vector<std::string>& args) {
  base::ConfigBuilder options;
  const CloudOptions common(options);
  int exit_code = kOk;
  const auto client = common.LogIn(command, options, args, 0, 0, &exit_code);
  if (client == nullptr) return exit_code;
  const Result<JsonArray> volumes = Volumes(*client);
  if (!volumes.has_value()) return Fail(volumes.error());
  if (*common.json) {
    PrintJson(*volumes);
    return kOk;
  }
  fmt::print("{:<36}  {:<16}  {:>9}  {}\n", "ID", "STATUS", "SIZE", "NAME");
  for (const Json& volume : *volumes) {
    const uint64_t size_gb = base::FindUint(volume, "size").value_or(0);
    fmt::print("{:<36}  {:<16}  {:>9}  {}\n", Text(volume, "id"), Text(volume, "status"),
               base::FormatBytes(size_gb * base::kGiB), Text(volume, "name"));
  }
  return kOk;
}

int RunVolumeAttach(const Command& command, const std::vector<std::string>& args) {
  base::ConfigBuilder options;
  const CloudOptions common(options);
  auto& read_only = options.Bool("read_only", false, "attach it to be read only");
  int exit_code = kOk;
  const auto client = common.LogIn(command, options, args, 1, 1, &exit_code);
  if (client == nullptr) return exit_code;
  const Result<Json> attached = Attach(*client, options.positional()[0], *read_only);
  if (!attached.has_value()) return Fail(attached.error());
  if (*common.json) {
    PrintJson(*attached);
  } else {
    fmt::print("{}\n", Text(*attached, "uri"));
  }
  return kOk;
}

int RunVolumeDetach(const Command& command, const std::vector<std::string>& args) {
  base::ConfigBuilder options;
  const CloudOptions common(options);
  int exit_code = kOk;
  const auto client = common.LogIn(command, options, args, 1, 1, &exit_code);
  if (client == nullptr) return exit_code;
  const Result<JsonArray> removed = Detach(*client, options.positional()[0]);
  if (!removed.has_value()) return Fail(removed.error());
  if (*common.json) {
    PrintJson(*removed);
    return kOk;
  }
  for (const Json& id : *removed)
    fmt::print("{}  detached\n", Printable(std::string(id.as_string())));
  if (removed->empty()) fmt::print("nobody was attached\n");
  return kOk;
}

}  // namespace controlplane::cli
