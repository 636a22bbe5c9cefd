#include "blockd/backup/home.h"

#include <optional>

#include "base/files.h"
#include "base/uuid.h"

namespace blockd::backup {
namespace {

using base::Code;
using base::Error;
using base::Result;

constexpr char kHomeKey[] = "S/backup-store";  // in the catalog's partition
constexpr uint64_t kMaxIdFileBytes = 64;

std::string IdPath(const std::string& dir) { return dir + "/STORE"; }

// Empty: none.
Result<std::string> IdOf(const std::string& dir) {
  Result<std::string> id = base::ReadWholeFile(IdPath(dir), kMaxIdFileBytes);
  if (!id.has_value() && id.error().code() == Code::kNotFound) return std::string();
  if (!id.has_value()) return id.error();
  while (id->ends_with('\n')) id->pop_back();
  if (!base::IsUuid(*id))
    return Error(Code::kCorruption, IdPath(dir) + " should hold a UUID, and does not");
  return id;
}

}  // namespace

bool IsHome(const std::string& dir) { return base::SystemFiles().Stat(IdPath(dir)).has_value(); }

Result<bool> HasHome(Catalog& catalog) {
  ASSIGN_OR_RETURN(const std::optional<std::string> known, catalog.GetKey(kHomeKey));
  return known.has_value();
}

Result<void> CheckHome(Catalog& catalog, const std::string& dir) {
  ASSIGN_OR_RETURN(const std::optional<std::string> known, catalog.GetKey(kHomeKey));
  if (!known.has_value()) return {};
  ASSIGN_OR_RETURN(const std::string present, IdOf(dir));
  if (present == *known) return {};
  ListQuery any;
  any.limit = 1;
  ASSIGN_OR_RETURN(const auto backups, catalog.ListBackups(any));
  if (backups.empty()) return {};
  return Error(Code::kConflict,
               "block.backup-dir: " + dir +
                   (present.empty() ? " is not" : " holds other backups than") +
                   " the store that this service's backups are in. Is its disk mounted? Mount it, "
                   "or name the right directory, and start again. If those backups are lost for "
                   "good, write " +
                   *known + " to " + IdPath(dir) + " first");
}

Result<void> RememberHome(Catalog& catalog, const std::string& dir) {
  ASSIGN_OR_RETURN(std::string id, IdOf(dir));
  if (id.empty()) {
    id = base::NewUuid();
    RETURN_IF_ERROR(base::WriteFileDurably(IdPath(dir), id + "\n"));
  }
  return catalog.Transact([&](Transaction& transaction) -> Result<void> {
    ASSIGN_OR_RETURN(const std::optional<std::string> known, transaction.GetKey(kHomeKey));
    if (known != id) transaction.PutKey(kHomeKey, id);
    return {};
  });
}

}  // namespace blockd::backup
