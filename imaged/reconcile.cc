#include "imaged/reconcile.h"

#include <limits>
#include <set>
#include <string>

#include "base/log.h"
#include "imaged/data_path.h"
#include "imaged/import.h"
#include "imaged/kept_parts.h"

namespace imaged {

using base::Code;
using base::Result;

namespace {

constexpr size_t kPage = 1000;

// The uploads that an import job of the journal answers for.
Result<std::set<std::string>> HoldersOfImports(DataPath& path) {
  std::set<std::string> holders;
  ASSIGN_OR_RETURN(auto jobs, path.journal().List(kImportJob));
  for (const auto& job : jobs) {
    Result<ImportPayload> payload = DecodeImport(job.payload);
    if (payload.has_value()) holders.insert(payload->holder);
  }
  return holders;
}

Result<std::set<std::string>> TasksOfImports(DataPath& path) {
  std::set<std::string> tasks;
  ASSIGN_OR_RETURN(auto jobs, path.journal().List(kImportJob));
  for (const auto& job : jobs) {
    Result<ImportPayload> payload = DecodeImport(job.payload);
    if (payload.has_value()) tasks.insert(payload->task_id);
  }
  return tasks;
}

bool MayName(const Image& image, std::string_view holder) {
  return (image.data.has_value() && image.data->holder == holder) ||
         (image.staged.has_value() && image.staged->holder == holder) ||
         // An import's bytes have a holder of their own until the record names it.
         image.upload.has_value();
}

Result<bool> IsNeeded(DataPath& path, const std::string& holder) {
  const bool is_raw = holder.starts_with(kRawHolderPrefix);
  Result<Image> image =
      path.catalog().Get(is_raw ? ImageOfRawHolder(holder) : ImageOfHolder(holder));
  if (image.has_value()) {
    if (is_raw) return image->raw.has_value() && image->raw->holder == holder;
    return MayName(*image, holder);
  }
  if (image.error().code() == Code::kNotFound) return false;
  return image.error();
}

// Whose part this upload is to leave; empty: it leaves none.
std::string KeepFor(Catalog& catalog, const UploadInFlight& upload) {
  const Result<Image> image = catalog.Get(upload.image_id);
  if (!image.has_value() || !image->upload.has_value()) return {};
  return image->upload->holder == upload.holder ? image->upload->keep_for : std::string();
}

// Of an upload that its process left behind, or stands still over: who gives up its ingest gives
// back what it brought.
void KeepWhatCame(DataPath& path, const std::string& holder, const std::string& keep_for) {
  if (keep_for.empty()) return;
  const Result<void> kept = KeepPart(path, keep_for, holder);
  if (!kept.has_value()) {
    LOG(kWarn, "imaged", "nothing is kept of what {} had: {}", holder, kept.error().ToString());
  }
}

Result<void> ReleaseOrphansBelow(DataPath& path, Recovery recovery, std::string_view prefix) {
  std::string after;
  for (;;) {
    ASSIGN_OR_RETURN(auto holders, path.store().Holders(prefix, after, kPage));
    for (const chunkstore::ChunkStore::Held& held : holders) {
      after = held.holder;
      bool young =
          recovery == Recovery::kRunning && path.clock().NowUs() - held.since_us < kOrphanAgeUs;
      // What is still ingesting has a lease of its own, and the collector looks after it.
      if (young || !held.root.has_value()) continue;
      ASSIGN_OR_RETURN(bool needed, IsNeeded(path, held.holder));
      // Another process may read it still: ReleasePending knows.
      if (!needed) {
        ASSIGN_OR_RETURN(needed, path.catalog().IsReleasePending(held.holder));
      }
      if (needed) continue;
      ASSIGN_OR_RETURN(bool released, path.ReleaseOne(held.holder));
      if (released) LOG(kInfo, "imaged", "released {}, which no image needs", held.holder);
    }
    if (holders.size() < kPage) return {};
  }
}

}  // namespace

Result<void> Reconcile(DataPath& path, Recovery recovery) {
  bool crashed = recovery == Recovery::kAfterCrash;
  int64_t now_us = crashed ? std::numeric_limits<int64_t>::max() : path.clock().NowUs();
  ASSIGN_OR_RETURN(std::set<std::string> imports, HoldersOfImports(path));
  std::string after;
  for (;;) {
    ASSIGN_OR_RETURN(auto uploads, path.catalog().ExpiredUploads(now_us, after, kPage));
    for (const UploadInFlight& upload : uploads) {
      after = upload.holder;
      if (imports.contains(upload.holder) || path.IsActive(upload.holder)) continue;
      const std::string keep_for = KeepFor(path.catalog(), upload);
      // Alone, it is kept whatever happens next; beside others, by the one who calls it off.
      if (crashed) KeepWhatCame(path, upload.holder, keep_for);
      ASSIGN_OR_RETURN(const bool failed,
                       path.catalog().FailExpiredUpload(upload.image_id, upload.holder, now_us));
      if (!failed) continue;
      LOG(kInfo, "imaged", "the upload of image {} was abandoned: it is queued again",
          upload.image_id);
      if (!crashed) KeepWhatCame(path, upload.holder, keep_for);
    }
    if (uploads.size() < kPage) break;
  }
  if (!crashed) return {};
  RETURN_IF_ERROR(FailLostTasks(path, recovery));
  RETURN_IF_ERROR(path.ReleasePending());
  return ReleaseOrphans(path, recovery);
}

Result<void> ReleaseOrphans(DataPath& path, Recovery recovery) {
  RETURN_IF_ERROR(ReleaseOrphansBelow(path, recovery, kHolderPrefix));
  RETURN_IF_ERROR(ReleaseOrphansBelow(path, recovery, kRawHolderPrefix));
  return ReleaseOldParts(path);
}

// The jobs are read first: one that ended since has ended its task before.
Result<void> FailLostTasks(DataPath& path, Recovery recovery) {
  ASSIGN_OR_RETURN(std::set<std::string> alive, TasksOfImports(path));
  std::vector<std::string> dead;
  RETURN_IF_ERROR(path.tasks().Visit([&](const ImportTask& task) {
    const bool young =
        recovery == Recovery::kRunning && path.clock().NowUs() - task.updated_at_us < kOrphanAgeUs;
    if (!task.ended() && !young && !alive.contains(task.id)) dead.push_back(task.id);
    return true;
  }));
  for (const std::string& id : dead) {
    RETURN_IF_ERROR(path.tasks().SetStatus(id, "failure", "the service stopped before it began"));
  }
  return {};
}

Result<size_t> ReleaseNoLongerNeeded(chunkstore::ChunkStore& store, Catalog& catalog,
                                     const InUse& in_use) {
  size_t count = 0;
  ASSIGN_OR_RETURN(const auto pending, catalog.PendingReleases(kPage));
  for (const Catalog::PendingRelease& one : pending) {
    bool used = false;
    if (in_use) {
      ASSIGN_OR_RETURN(used, in_use(one));
    }
    if (used) continue;
    RETURN_IF_ERROR(store.Release(one.holder));
    RETURN_IF_ERROR(catalog.ForgetRelease(one.holder));
    ++count;
  }
  return count;
}

}  // namespace imaged
