#pragma once

#include <string_view>

#include "controlplane/identity/api.h"

// The routes that are more than a row of the table, by folder of the interface.

namespace controlplane::identity {

void AddAuthApi(Routes& routes);          // /auth/*
void AddGrantApi(Routes& routes);         // roles on projects, domains, the system; inheritance
void AddRoleApi(Routes& routes);          // implied roles, role assignments
void AddUserApi(Routes& routes);          // passwords, memberships, a user's projects and groups
void AddProjectApi(Routes& routes);       // tags
void AddDomainConfigApi(Routes& routes);  // /domains/{id}/config
void AddApplicationCredentialApi(Routes& routes);  // and access rules
void AddEc2Api(Routes& routes);
void AddTrustApi(Routes& routes);
void AddLimitApi(Routes& routes);

// The user if the password is its own and it is not locked out; counts failures. Takes as long for
// a user that does not exist (null). Whether the user is enabled is for Sessions::Evaluate to say.
// kUnauthenticated.
base::Result<RecordPtr> CheckPassword(Api& api, const Snapshot& now, RecordPtr user,
                                      std::string_view password);

}  // namespace controlplane::identity
