#pragma once

#include <string_view>

#include "base/result.h"
#include "blockd/context.h"

// What the calls that make, restore and list backups have in common.

namespace blockd {

// kUnavailable where there is no store for backups, in Cinder's words with what to set, or with
// what is amiss.
base::Result<void> CheckBackupService(const Context& context);

// "Invalid backup: <text>".
base::Error InvalidBackup(std::string_view text);

// The one that the path names, if the caller may see it. kNotFound. Within a transaction, the one
// that is to be changed by a caller who may write.
base::Result<BackupRecord> VisibleBackup(const Context& context, const api::Call& call);
base::Result<BackupRecord> OwnBackup(Transaction& transaction, const api::Call& call,
                                     std::string_view id);

// The same if it may be restored now; and then the part of a transaction that has it restored to a
// volume, which is put there by the caller, in the lane kBackup.
base::Result<BackupRecord> BackupToRestore(Transaction& transaction, const api::Call& call,
                                           std::string_view id);
base::Result<void> BeginRestore(Transaction& transaction, const api::Call& call,
                                BackupRecord backup, const VolumeRecord& volume);

// How much of it: what a list or an answer to a creation shows, or all.
base::JsonObject BackupSummary(const api::Call& call, const BackupRecord& backup);
base::JsonObject BackupView(const api::Call& call, const BackupRecord& backup);

// POST {id}/restore, and the records: export, import, and import of all (handlers_restore.cc).
void AppendRestoreRoutes(const Context& context, Routes* routes);

}  // namespace blockd
