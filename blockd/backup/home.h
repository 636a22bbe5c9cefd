#pragma once

#include <string>

#include "base/result.h"
#include "blockd/catalog.h"

// Which directory the backups are in. A disk that isn't mounted looks like an empty directory: were
// it taken for the real one, new backups would go to the wrong disk, and those that are deleted
// would leave their bytes on the right one for ever.
//
// So the directory has an id, in the file STORE, and the catalog remembers the one it is used to. A
// catalog that remembers none (a new service, or one that lost its records) takes what is there.
// One thread.

namespace blockd::backup {

// Whether backups are kept in a directory, or were.
bool IsHome(const std::string& dir);

// Whether the catalog remembers a directory.
base::Result<bool> HasHome(Catalog& catalog);

// Before the store there is opened: kConflict if the directory is another one while there are
// backups, with what to do. Makes nothing. kIo, kCorruption.
base::Result<void> CheckHome(Catalog& catalog, const std::string& dir);

// After that: from now on it is this one. Gives the directory an id if it has none.
base::Result<void> RememberHome(Catalog& catalog, const std::string& dir);

}  // namespace blockd::backup
