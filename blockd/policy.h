#pragma once

#include <string>
#include <string_view>

#include "base/auth/caller.h"
#include "base/result.h"

// Who may do what: a project's readers see its things, its members change them, administrators do
// anything. What the caller may not see is not there: kNotFound, in the words of one that does not
// exist.

namespace blockd {

inline bool MaySee(const base::auth::Caller& caller, std::string_view project_id) {
  return caller.IsAdmin() || (!caller.project_id.empty() && caller.project_id == project_id);
}

// kPermissionDenied. `action` as Cinder's policies are named: "volume:create".
base::Result<void> CheckMayWrite(const base::auth::Caller& caller, std::string_view action);
base::Result<void> CheckAdmin(const base::auth::Caller& caller, std::string_view action);

}  // namespace blockd
