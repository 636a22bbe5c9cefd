#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/auth/caller.h"
#include "base/result.h"
#include "blockd/catalog.h"
#include "blockd/types/type_store.h"

namespace blockd::tenancy {

// A volume that waits for another project to take it.
struct TransferRecord {
  std::string id;
  std::string name;  // may be empty
  std::string volume_id;
  std::string source_project_id;
  bool no_snapshots = false;  // its snapshots stay where they are
  // Of the key that whoever takes it must know: the key itself is told once and kept nowhere.
  std::string salt;
  std::string key_hash;  // HMAC-SHA-256 of the key by the salt, in hex: the key is random, 128 bits
  int64_t created_at_us = 0;
};

// Records x/<id> in the catalog's partition. A volume awaits a transfer exactly as long as its
// record is there: both change in one commit, and so do owner, snapshots and both projects' usage
// when it is taken. Whatever crashes, one project has it and pays for it.
//
// Thread-safe, blocking. kNotFound ("Transfer <id> could not be found.") also where the caller has
// no right to know.
class Transfers {
 public:
  // Borrowed.
  Transfers(Catalog& catalog, types::TypeStore& types) : catalog_(catalog), types_(types) {}

  struct Offer {
    TransferRecord transfer;
    std::string auth_key;
  };
  // available -> awaiting-transfer, by the volume's project or an administrator. kInvalidArgument
  // in another status.
  base::Result<Offer> Create(const base::auth::Caller& caller, std::string_view volume_id,
                             std::string_view name, bool no_snapshots);

  // To the caller's project. kInvalidArgument for a wrong key or a volume type that the project has
  // no access to; kQuotaExceeded: nothing changed, it may be tried again. Returns what was taken.
  base::Result<TransferRecord> Accept(const base::auth::Caller& caller, std::string_view id,
                                      std::string_view auth_key);

  // Calls it off: the volume is available again.
  base::Result<void> Delete(const base::auth::Caller& caller, std::string_view id);

  base::Result<TransferRecord> Get(const base::auth::Caller& caller, std::string_view id);
  // Those that the caller offers; all with `all_tenants` (an administrator). By id.
  base::Result<std::vector<TransferRecord>> List(const base::auth::Caller& caller,
                                                 bool all_tenants);

 private:
  Catalog& catalog_;
  types::TypeStore& types_;
};

}  // namespace blockd::tenancy
