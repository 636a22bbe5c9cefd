#pragma once

#include <string>
#include <string_view>

#include "controlplane/identity/sessions.h"

// The catalog: where the services are. An endpoint's URL is a template; what it may hold:
//   $(base_url)s                    the address under which the client reached this server
//   $(project_id)s, $(tenant_id)s   the project of the token
//   $(user_id)s                     its user
// and the same with % for $. An endpoint whose project is asked for and missing is left out.

namespace controlplane::identity {

// The names above; anything else in "$(...)s" is an error.
bool IsKnownTemplate(std::string_view url);

// The services with at least one enabled endpoint, as tokens and /auth/catalog show them.
base::JsonArray Catalog(const Snapshot& now, const Session& session, std::string_view base_url);

}  // namespace controlplane::identity
