#include <algorithm>

#include "base/uuid.h"
#include "imaged/attributes.h"
#include "imaged/errors.h"
#include "imaged/handlers.h"
#include "imaged/list_request.h"
#include "imaged/patch.h"
#include "imaged/policy.h"
#include "imaged/views.h"

namespace imaged {
namespace {

using base::Code;
using base::Error;
using base::Json;
using base::Result;
using base::http::Request;
using base::http::Response;

std::string Join(const std::vector<std::string>& texts) {
  std::string joined;
  for (const std::string& text : texts) {
    if (!joined.empty()) joined.push_back(',');
    joined += text;
  }
  return joined;
}

// An id of the client's choice, or a new one.
Result<std::string> ChooseId(const Json* value) {
  if (value == nullptr) return base::NewUuid();
  if (value->is_string()) {
    const std::string_view id = base::View(value->get_string());
    if (id.size() == 36 && base::IsUuid(id)) return std::string(id);
  }
  return Error(Code::kInvalidArgument,
               "Provided object does not match schema 'image': the id must be a UUID.");
}

Result<Image> ImageFromBody(const base::auth::Caller& caller, const base::JsonObject& body) {
  Image image;
  ASSIGN_OR_RETURN(image.id, ChooseId(body.if_contains("id")));
  image.owner = caller.project_id;
  for (const auto& [key, value] : body) {
    const std::string_view name = key;
    RETURN_IF_ERROR(CheckWritable(name));
    if (name == "id") continue;
    if (name == "owner" && !caller.IsAdmin() && value != Json(caller.project_id))
      return Error(Code::kPermissionDenied,
                   "You are not permitted to create images owned by another project.");
    RETURN_IF_ERROR(SetAttribute(caller, name, value, &image));
  }
  return image;
}

Result<Response> Create(const Context& context, const Request& request) {
  RETURN_IF_ERROR(CheckMayWrite(*request.caller));
  ASSIGN_OR_RETURN(const base::JsonObject body, ParseObject(request));
  ASSIGN_OR_RETURN(Image image, ImageFromBody(*request.caller, body));
  ASSIGN_OR_RETURN(image, context.catalog.Create(std::move(image)));
  Response response = ImageResponse(201, image);
  response.headers.Add("Location",
                       request.base_url + context.options.prefix + "/v2/images/" + image.id);
  response.headers.Add("OpenStack-image-import-methods", Join(context.options.import_methods));
  std::vector<std::string> stores;
  for (const StoreInfo& store : context.options.stores) stores.push_back(store.id);
  response.headers.Add("OpenStack-image-store-ids", Join(stores));
  return response;
}

Result<Response> Show(const Context& context, const Request& request) {
  ASSIGN_OR_RETURN(const Image image, context.catalog.Get(request.Param("image_id")));
  RETURN_IF_ERROR(CheckSee(*request.caller, image));
  return ImageResponse(200, image);
}

Result<Response> List(const Context& context, const Request& request) {
  ASSIGN_OR_RETURN(const ListQuery query, ParseListRequest(request));
  if (!query.marker.empty()) {
    // A marker that the caller may not see is none.
    Result<Image> marker = context.catalog.Get(query.marker);
    if (marker.has_value() && !MaySee(*request.caller, *marker))
      return Error(Code::kInvalidArgument, "No image found with ID " + query.marker);
  }
  ASSIGN_OR_RETURN(const std::vector<Image> images, context.catalog.List(query));
  std::string text = "{\"images\": [";
  text.reserve(images.size() * 1024 + 256);
  for (const Image& image : images) {
    if (&image != &images.front()) text += ", ";
    AppendImage(&text, image);
  }
  text += "], \"first\": ";
  AppendJsonString(&text, ListLink(request, ""));
  text += ", \"schema\": \"/v2/schemas/images\"";
  if (!images.empty() && images.size() == query.limit) {
    text += ", \"next\": ";
    AppendJsonString(&text, ListLink(request, images.back().id));
  }
  text += "}";
  return JsonText(200, std::move(text));
}

std::optional<PatchVersion> PatchVersionOf(const Request& request) {
  const std::string_view type = request.headers.Get("Content-Type");
  const std::string_view media = type.substr(0, type.find(';'));
  if (media == kPatchTypeV21) return PatchVersion::kV21;
  if (media == kPatchTypeV20) return PatchVersion::kV20;
  return std::nullopt;
}

Result<Response> Patch(const Context& context, const Request& request) {
  RETURN_IF_ERROR(CheckMayWrite(*request.caller));
  const std::optional<PatchVersion> version = PatchVersionOf(request);
  if (!version.has_value()) {
    const std::string type(request.headers.Get("Content-Type"));
    Response refused = ErrorPage(
        request, 415, "The request media type " + type + " is not supported by this server.");
    refused.headers.Add("Accept-Patch",
                        std::string(kPatchTypeV20) + ", " + std::string(kPatchTypeV21));
    return refused;
  }
  ASSIGN_OR_RETURN(const std::vector<PatchOperation> operations,
                   ParsePatch(*version, request.body));
  auto change = [&](Image& image) -> Result<void> {
    RETURN_IF_ERROR(CheckModify(*request.caller, image, "modify_image"));
    return ApplyPatch(*request.caller, operations, &image);
  };
  ASSIGN_OR_RETURN(const Image image, context.catalog.Update(request.Param("image_id"), change));
  return ImageResponse(200, image);
}

Result<Response> Delete(const Context& context, const Request& request) {
  RETURN_IF_ERROR(CheckMayWrite(*request.caller));
  const std::string& id = request.Param("image_id");
  auto check = [&](const Image& image) -> Result<void> {
    RETURN_IF_ERROR(CheckModify(*request.caller, image, "delete_image"));
    if (!image.is_protected) return {};
    return Error(Code::kPermissionDenied,
                 "Image " + image.id + " is protected and cannot be deleted.");
  };
  const Result<Image> removed = context.catalog.Delete(id, check);
  if (!removed.has_value()) {
    if (removed.error().code() != Code::kNotFound) return removed.error();
    return Error(Code::kNotFound, "Failed to find image " + id + " to delete");
  }
  if (context.options.on_release) context.options.on_release();
  return Response::Empty(204);
}

Result<Response> ChangeTag(const Context& context, const Request& request,
                           const std::function<Result<void>(const std::string&, Image&)>& change) {
  RETURN_IF_ERROR(CheckMayWrite(*request.caller));
  const std::string& id = request.Param("image_id");
  const std::string& tag = request.Param("tag");
  bool seen = false;
  auto checked = [&](Image& image) -> Result<void> {
    RETURN_IF_ERROR(CheckModify(*request.caller, image, "modify_image"));
    seen = true;
    return change(tag, image);
  };
  const Result<Image> changed = context.catalog.Update(id, checked);
  if (changed.has_value()) return Response::Empty(204);
  if (changed.error().code() == Code::kNotFound && !seen)
    return Error(Code::kNotFound, "Image " + id + " not found.");
  return changed.error();
}

Result<Response> PutTag(const Context& context, const Request& request) {
  return ChangeTag(context, request,
                   [](const std::string& tag, Image& image) { return AddTag(tag, &image); });
}

Result<Response> DeleteTag(const Context& context, const Request& request) {
  return ChangeTag(context, request, [](const std::string& tag, Image& image) -> Result<void> {
    if (std::erase(image.tags, tag) > 0) return {};
    return Error(Code::kNotFound, "The resource could not be found.");
  });
}

// active <-> deactivated; doing it twice is fine, from another status it is forbidden.
Result<Response> SetActive(const Context& context, const Request& request, Status from, Status to,
                           const std::string& action) {
  RETURN_IF_ERROR(CheckMayWrite(*request.caller));
  auto change = [&](Image& image) -> Result<void> {
    RETURN_IF_ERROR(CheckModify(*request.caller, image, action));
    if (image.status == to) return {};
    if (image.status != from)
      return Error(Code::kPermissionDenied, "Not allowed to " + action + " image in status '" +
                                                std::string(StatusName(image.status)) + "'");
    image.status = to;
    return {};
  };
  RETURN_IF_ERROR(context.catalog.Update(request.Param("image_id"), change));
  return Response::Empty(204);
}

Result<Response> Deactivate(const Context& context, const Request& request) {
  return SetActive(context, request, Status::kActive, Status::kDeactivated, "deactivate");
}
Result<Response> Reactivate(const Context& context, const Request& request) {
  return SetActive(context, request, Status::kDeactivated, Status::kActive, "reactivate");
}

}  // namespace

void AppendImageRoutes(const Context& context, Routes* routes) {
  const std::string image = "/v2/images/{image_id}";
  routes->push_back(MakeRoute(context, "POST", "/v2/images", Create));
  routes->push_back(MakeRoute(context, "GET", "/v2/images", List));
  routes->push_back(MakeRoute(context, "GET", image, Show));
  routes->push_back(MakeRoute(context, "PATCH", image, Patch));
  routes->push_back(MakeRoute(context, "DELETE", image, Delete));
  routes->push_back(MakeRoute(context, "PUT", image + "/tags/{tag}", PutTag));
  routes->push_back(MakeRoute(context, "DELETE", image + "/tags/{tag}", DeleteTag));
  routes->push_back(MakeRoute(context, "POST", image + "/actions/deactivate", Deactivate));
  routes->push_back(MakeRoute(context, "POST", image + "/actions/reactivate", Reactivate));
}

}  // namespace imaged
