#include "controlplane/cli/host_services.h"

#include <utility>

#include <fmt/format.h>
#include <unistd.h>

#include "controlplane/cli/image_transfer.h"
#include "controlplane/cli/volume_requests.h"

namespace controlplane::cli {

using base::Code;
using base::Error;
using base::Json;
using base::JsonArray;
using base::JsonObject;
using base::Result;
using base::http::ClientRequest;
using host::Found;
using host::Origin;
using host::RemoteAttachment;

namespace {

constexpr size_t kMaxHostName = 256;

std::string Text(const Json& object, std::string_view key) {
  return base::FindString(object, key).value_or("");
}

// A call of the volume service whose answer may have no body.
Result<Json> Call(ApiClient& client, const std::string& method, const std::string& path,
                  const Json& body = nullptr) {
  ASSIGN_OR_RETURN(ClientRequest request, VolumeRequest(client, method, path, body));
  ASSIGN_OR_RETURN(const base::http::Response response, client.Call(std::move(request)));
  if (response.body.empty()) return Json(nullptr);
  return base::ParseJson(response.body);
}

// The one that is meant. `list` is the command that shows all.
Result<Json> FindOne(ApiClient& client, const std::string& kind, const std::string& name,
                     std::string_view list) {
  ASSIGN_OR_RETURN(const JsonArray found, FindByIdOrName(client, kind, name));
  if (found.size() == 1) return found[0];
  if (found.empty()) {
    return Error(Code::kNotFound,
                 fmt::format("no {} '{}'; `{}` shows those the agent can see", kind, name, list));
  }
  return Error(Code::kConflict,
               fmt::format("{} {}s are named '{}': name one by its id", found.size(), kind, name));
}

std::string HostName() {
  char name[kMaxHostName] = {};
  if (::gethostname(name, sizeof(name) - 1) != 0) return "quarry-host";
  return name;
}

// Only what lies at the service as the disk itself can be read block by block.
Result<void> CheckRaw(const Json& image, const std::string& name) {
  const std::string status = Text(image, "status");
  if (status != "active") {
    return Error(Code::kInvalidArgument,
                 fmt::format("image '{}' is {}: only one that is active has bytes", name, status));
  }
  const std::string format = Text(image, "disk_format");
  if (format == "raw" && Text(image, "container_format") == "bare") return {};
  return Error(
      Code::kInvalidArgument,
      fmt::format(
          "image '{0}' is {1}, and a guest would see the {1} file, not the disk in it: make "
          "a volume of it (`openstack volume create --image {0} --size GIB NAME`), and "
          "attach that (`quarry host attach --volume NAME`)",
          name, format));
}

}  // namespace

Result<ApiClient*> HostServices::Client() {
  if (client_ == nullptr) {
    ASSIGN_OR_RETURN(client_, ApiClient::Login(cloud_));
  }
  return client_.get();
}

Result<std::shared_ptr<host::ServiceSession>> HostServices::Session() {
  base::MutexLock lock(session_mutex_);
  if (session_ != nullptr) return session_;
  const auto login = [cloud = cloud_]() -> Result<host::ServiceAccess> {
    ASSIGN_OR_RETURN(const auto client, ApiClient::Login(cloud));
    ASSIGN_OR_RETURN(const std::string image_url, client->Endpoint("image"));
    const Result<std::string> volume_url = client->Endpoint("block-storage");
    return host::ServiceAccess{client->token(), image_url, volume_url.value_or("")};
  };
  ASSIGN_OR_RETURN(session_, host::ServiceSession::Open(login, host::HttpSourceOptions()));
  return session_;
}

Result<std::shared_ptr<host::RemoteImage>> HostServices::OpenRemote(const Origin& origin) {
  ASSIGN_OR_RETURN(const auto session, Session());
  std::shared_ptr<host::RemoteImage> remote;
  if (origin.kind == Origin::Kind::kImage) {
    remote = host::HttpBlockSource::OfImage(session, origin.id);
  } else {
    remote = host::HttpBlockSource::OfSnapshot(session, origin.id);
  }
  return remote;
}

Result<Found> HostServices::FindImage(const std::string& image) {
  base::MutexLock lock(mutex_);
  ASSIGN_OR_RETURN(ApiClient* const client, Client());
  ASSIGN_OR_RETURN(const Json found, controlplane::cli::FindImage(*client, image));
  RETURN_IF_ERROR(CheckRaw(found, image));
  return Found{Text(found, "id"), Text(found, "name")};
}

Result<Found> HostServices::FindSnapshot(const std::string& snapshot) {
  base::MutexLock lock(mutex_);
  ASSIGN_OR_RETURN(ApiClient* const client, Client());
  ASSIGN_OR_RETURN(const Json found,
                   FindOne(*client, "snapshot", snapshot, "openstack volume snapshot list"));
  return Found{Text(found, "id"), Text(found, "name")};
}

Result<RemoteAttachment> HostServices::AttachVolume(const std::string& volume) {
  base::MutexLock lock(mutex_);
  ASSIGN_OR_RETURN(ApiClient* const client, Client());
  ASSIGN_OR_RETURN(const Json found, FindOne(*client, "volume", volume, "quarry volume ls"));
  const std::string id = Text(found, "id");
  // What is still the image's is read here: another writer's blocks would not be seen.
  const Json* const shared = base::Find(found, "multiattach");
  if (shared != nullptr && shared->is_bool() && shared->get_bool()) {
    return Error(Code::kConflict,
                 fmt::format("volume {} may have several writers (multiattach), and a host's cache "
                             "can't see what others write: attach it straight to its service "
                             "(`quarry volume attach {}`)",
                             id, id));
  }
  const JsonObject attachment = {{"volume_uuid", id},
                                 {"instance_uuid", nullptr},
                                 {"mode", "rw"},
                                 {"connector", {{"host", HostName()}, {"mode", "rw"}}}};
  const Result<Json> made =
      Call(*client, "POST", "/attachments", JsonObject{{"attachment", attachment}});
  if (!made.has_value() && made.error().code() == Code::kInvalidArgument) {
    return Error(Code::kConflict, fmt::format("{} (`quarry volume detach {}` ends what there is)",
                                              made.error().message(), id));
  }
  RETURN_IF_ERROR(made);
  const Json* const view = base::Find(*made, "attachment");
  const Json* const info = view == nullptr ? nullptr : base::Find(*view, "connection_info");
  RemoteAttachment result;
  result.volume_id = id;
  result.volume_name = Text(found, "name");
  if (info != nullptr) {
    result.attachment_id = Text(*view, "id");
    result.uri = Text(*info, "uri");
  }
  if (result.uri.empty()) return Error(Code::kIo, "the volume service did not say how to connect");
  RETURN_IF_ERROR(Call(*client, "POST", "/attachments/" + result.attachment_id + "/action",
                       JsonObject{{"os-complete", JsonObject()}}));
  if (const Json* const metadata = base::Find(found, "volume_image_metadata"))
    result.image_id = Text(*metadata, "image_id");
  return result;
}

Result<void> HostServices::DetachVolume(const std::string& attachment_id) {
  base::MutexLock lock(mutex_);
  ASSIGN_OR_RETURN(ApiClient* const client, Client());
  const Result<Json> removed = Call(*client, "DELETE", "/attachments/" + attachment_id);
  if (!removed.has_value() && removed.error().code() != Code::kNotFound) return removed.error();
  return {};
}

}  // namespace controlplane::cli
