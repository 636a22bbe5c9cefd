#include "imaged/policy.h"

#include <string>

namespace imaged {
namespace {

using base::Code;
using base::Error;
using base::Result;

Error Unauthorized(std::string_view action) {
  return Error(Code::kPermissionDenied,
               "You are not authorized to complete " + std::string(action) + " action.");
}

bool IsOwner(const Caller& caller, const Image& image) {
  return !caller.project_id.empty() && image.owner == caller.project_id;
}

}  // namespace

Viewer ViewerOf(const Caller& caller) { return {caller.project_id, caller.IsAdmin()}; }

std::string SharerOf(const Caller& caller) {
  return caller.project_id.empty() ? caller.user_id : caller.project_id;
}

bool MaySee(const Caller& caller, const Image& image) {
  if (caller.IsAdmin() || IsOwner(caller, image)) return true;
  switch (image.visibility) {
    case Visibility::kPublic:
    case Visibility::kCommunity:
      return true;
    case Visibility::kPrivate:
      return false;
    case Visibility::kShared:
      break;
  }
  return !caller.project_id.empty() && image.FindMember(caller.project_id) != nullptr;
}

Result<void> CheckSee(const Caller& caller, const Image& image) {
  if (MaySee(caller, image)) return {};
  return Error(Code::kNotFound, "No image found with ID " + image.id);
}

Result<void> CheckMayWrite(const Caller& caller) {
  if (caller.IsAdmin() || caller.HasRole("member")) return {};
  return Error(Code::kPermissionDenied,
               "You are not authorized to change anything: that needs the role member.");
}

Result<void> CheckAdmin(const Caller& caller, std::string_view action) {
  if (caller.IsAdmin()) return {};
  return Unauthorized(action);
}

Result<void> CheckModify(const Caller& caller, const Image& image, std::string_view action) {
  RETURN_IF_ERROR(CheckSee(caller, image));
  RETURN_IF_ERROR(CheckMayWrite(caller));
  if (caller.IsAdmin() || IsOwner(caller, image)) return {};
  return Unauthorized(action);
}

Result<void> CheckDownload(const Caller& caller, const Image& image) {
  RETURN_IF_ERROR(CheckSee(caller, image));
  if (image.status != Status::kDeactivated || caller.IsAdmin()) return {};
  return Error(Code::kPermissionDenied,
               "The requested image has been deactivated. Image data download is forbidden.");
}

bool IsService(const Caller& caller) { return caller.IsAdmin() || caller.HasRole("service"); }

Result<void> CheckVisibility(const Caller& caller, Visibility visibility) {
  if (visibility != Visibility::kPublic || caller.IsAdmin()) return {};
  return Unauthorized("publicize_image");
}

}  // namespace imaged
