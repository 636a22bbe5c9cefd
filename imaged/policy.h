#pragma once

#include <string>

#include "base/auth/caller.h"
#include "base/result.h"
#include "imaged/image.h"
#include "imaged/query.h"

// Who may see and do what: Glance's default policy, as functions of the caller and the image. An
// administrator may do everything that the state of the image allows.
//
// The roles are OpenStack's: whoever only has "reader" reads; writing needs "member" (which admin
// implies). An image that the caller may not even see is answered as one that is not there:
// kNotFound.

namespace imaged {

using base::auth::Caller;

Viewer ViewerOf(const Caller& caller);

// By what memory is shared: a token without a project still has a user.
std::string SharerOf(const Caller& caller);

// Owner's project, public, community, or shared with the caller's project (accepted or not), or
// admin.
bool MaySee(const Caller& caller, const Image& image);
// kNotFound "No image found with ID <id>".
base::Result<void> CheckSee(const Caller& caller, const Image& image);

// Has the role to write at all. kPermissionDenied.
base::Result<void> CheckMayWrite(const Caller& caller);
// `action` names what was tried, for the sentence: "modify_image".
base::Result<void> CheckAdmin(const Caller& caller, std::string_view action);

// Visible, the role, and the owner's project (or admin): patch, tags, delete, upload, stage,
// import, members. kNotFound, kPermissionDenied. `action`: "modify_image", "upload_image", ...
base::Result<void> CheckModify(const Caller& caller, const Image& image, std::string_view action);

// Visible, and not deactivated (but for an admin). kNotFound, kPermissionDenied with Glance's
// sentence.
base::Result<void> CheckDownload(const Caller& caller, const Image& image);

// A service of the cloud itself, or an administrator: it may know how things lie, and keep boot
// traces of what it may download.
bool IsService(const Caller& caller);

// Only an admin makes an image public (Glance's publicize_image).
base::Result<void> CheckVisibility(const Caller& caller, Visibility visibility);

}  // namespace imaged
