#pragma once

#include "controlplane/identity/store.h"

// What goes when a record goes, so that nothing is left that names it. Each also removes the record
// itself.

namespace controlplane::identity {

void RemoveUser(Transaction& tx, const Record& user);
void RemoveGroup(Transaction& tx, const Record& group);
void RemoveRole(Transaction& tx, const Record& role);
// REQUIRES: nothing is below it.
void RemoveProject(Transaction& tx, const Record& project);
// With its users, groups, projects and roles.
void RemoveDomain(Transaction& tx, const Record& domain);
void RemoveService(Transaction& tx, const Record& service);

}  // namespace controlplane::identity
