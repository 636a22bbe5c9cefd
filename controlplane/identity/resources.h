#pragma once

#include "controlplane/identity/resource.h"

// The rows of the table, by what they are about. Others show their records too (a user's projects,
// a trust's roles), so the rows can be had one by one.

namespace controlplane::identity {

// Whom and what there is: people.cc.
Resource DomainResource();
Resource ProjectResource();
Resource UserResource();
Resource GroupResource();
Resource RoleResource();

// What the catalog is made of, and the rest: catalog_resources.cc.
Resource RegionResource();
Resource ServiceResource();
Resource EndpointResource();
Resource PolicyResource();
Resource CredentialResource();
Resource ConsumerResource();
Resource EndpointGroupResource();

// The domain of whoever calls, which new users, groups and projects go to unless the client names
// another.
std::string CallersDomain(const Call& call);

// A tag that a project may have.
base::Result<void> CheckTags(const base::JsonObject& project);

}  // namespace controlplane::identity
