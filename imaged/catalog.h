#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "chunkstore/meta_store.h"
#include "imaged/image.h"
#include "imaged/query.h"
#include "imaged/quota.h"

namespace imaged {

// What FinishUpload learned about the bytes.
struct DataFacts {
  chunkstore::Root root;
  std::optional<uint64_t> virtual_size_bytes;
  std::optional<std::string> checksum;
  std::optional<std::string> os_hash_algo;
  std::optional<std::string> os_hash_value;
  std::vector<std::string> stores;
};

// An upload as recovery sees it.
struct UploadInFlight {
  std::string image_id;
  std::string holder;
};

// The records of all images, over one partition of a MetaStore. Knows nothing of HTTP and of who
// may do what (policy.h); its errors are the API's sentences all the same, because it alone knows
// them.
//
// Every change is a compare-and-set of the record, and one commit with the index entries, the
// project's usage and what is to be released; it is durable when it returns. A change that loses a
// race is tried again on the fresh record, so a `change` function may run more than once.
//
// Keys of the partition "images":
//   i/<id>                        the record
//   x/<scope>/c/<created><id>     index by creation, and ...
//   x/<scope>/n/<name><created><id>   ... by name; scopes in query.h
//   u/<holder>                    an upload on its way, and its lease: what recovery looks through
//   g/<holder>                    a holder in the chunk store that nothing needs any more; since
//                                 when nobody was seen to read it, in microseconds
//   q/<project>                   what the project uses (quota.h)
//   d/<id>                        an image that was deleted, for ever: its id is not given again,
//                                 because others (compute hosts) keep its bytes under it
//   t/<id>                        a boot trace (block_wire.h): gone with the record
//
// Thread-safe; several processes may share the store.
class Catalog {
 public:
  // Borrowed; they outlive the catalog.
  Catalog(chunkstore::MetaStore& meta, const base::Clock& clock, QuotaLimits limits = {});

  // --- records ---

  // Adds an image; sets created_at and updated_at. kAlreadyExists, also if there was one of this id
  // ever; kQuotaExceeded.
  base::Result<Image> Create(Image image);

  // Whether an image of this id was deleted.
  base::Result<bool> WasDeleted(std::string_view id);

  // kNotFound: "No image found with ID <id>". Any string may be asked for.
  base::Result<Image> Get(std::string_view id);

  // Changes a record by `change`, which sees the present one and may refuse (its error is returned,
  // nothing is written). Sets updated_at unless nothing changed. kNotFound, kQuotaExceeded,
  // kConflict under endless contention. `change` must not touch id, created_at, data, staged, raw
  // and upload: the functions below do.
  using Change = std::function<base::Result<void>(Image&)>;
  base::Result<Image> Update(std::string_view id, const Change& change);

  // Removes a record if `check` agrees to what it then is; its holders (data, staged, raw,
  // upload) become pending releases in the same commit. Returns what was removed.
  using Check = std::function<base::Result<void>(const Image&)>;
  base::Result<Image> Delete(std::string_view id, const Check& check);

  // --- the data path ---
  // An upload begins with BeginUpload and always ends with FinishUpload, FinishStage or FailUpload
  // (by the uploader, or by recovery when its lease ran out); until then its holder is known here,
  // whatever becomes of the image. All check the status table first: kConflict with Glance's
  // sentence.

  // queued -> saving (kData), queued -> uploading (kStage), queued or uploading -> importing
  // (kImport). The record names `holder` until Finish or Fail. `check` as for Delete (the caller's
  // right to modify). `reserve_bytes`: the announced length, or 0. `keep_for` as in Upload.
  // kQuotaExceeded.
  base::Result<Image> BeginUpload(std::string_view id, UploadKind kind, std::string_view holder,
                                  int64_t lease_ms, uint64_t reserve_bytes, const Check& check,
                                  std::string_view keep_for = {});

  // Keeps the upload alive (not synced: only time is lost), and raises what it reserves to
  // `reserve_bytes` (never lowers). Call it before each step beyond what was reserved, and at least
  // every third of the lease. kNotFound when the image is gone or this upload was called off: stop
  // and release the holder. kQuotaExceeded.
  base::Result<void> RenewUpload(std::string_view id, std::string_view holder, int64_t lease_ms,
                                 uint64_t reserve_bytes);

  // saving or importing -> active: the upload's holder becomes the image's data (for a kImport of
  // staged bytes with the staged holder itself, pass that as `data_holder`), anything staged is a
  // pending release. kNotFound as above. kQuotaExceeded: the upload stands as it was; FailUpload
  // it.
  base::Result<Image> FinishUpload(std::string_view id, std::string_view holder,
                                   std::string_view data_holder, const DataFacts& facts);

  // kStage is done: the status stays uploading, the bytes lie ready. kNotFound as above.
  base::Result<Image> FinishStage(std::string_view id, std::string_view holder,
                                  const chunkstore::Root& root);

  // Calls the upload off: back to queued, nothing visible; its holder and anything staged become
  // pending releases. Fine if the image is gone or another upload is on its way (then nothing
  // changes). Returns true if it did it. `change` (may be empty) may alter properties in the same
  // commit, e.g. os_glance_failed_import.
  base::Result<bool> FailUpload(std::string_view id, std::string_view holder, const Change& change);

  // The same by recovery, if the lease still is over by `now_us` when it is committed: whoever
  // renewed it meanwhile lives, and then nothing changes.
  base::Result<bool> FailExpiredUpload(std::string_view id, std::string_view holder,
                                       int64_t now_us);

  // Fills in digests that were computed after the image became active, if it still has that root.
  // True if so.
  base::Result<bool> SetDigests(std::string_view id, const chunkstore::Root& root,
                                const DataFacts& facts);

  // Keeps `raw` with an active image whose data is `data`, if it has no raw form yet; its owner
  // pays for `raw_bytes`. False: it has, or the image changed or is gone; then, as after an error,
  // `raw` stays the caller's to release. kQuotaExceeded.
  base::Result<bool> SetRaw(std::string_view id, const chunkstore::Root& data,
                            const StoredData& raw, uint64_t raw_bytes);

  // Uploads whose lease ran out before `now`: a crashed or hung uploader's. In order of id, after
  // `after`.
  base::Result<std::vector<UploadInFlight>> ExpiredUploads(int64_t now_us, std::string_view after,
                                                           size_t limit);

  // Holders that nothing needs: ChunkStore::Release each, then ForgetRelease. Done by whoever made
  // them pending, and by a sweep for those that a crash left.
  struct PendingRelease {
    std::string holder;
    int64_t since_us = 0;  // since nobody was seen to read it
  };
  base::Result<std::vector<PendingRelease>> PendingReleases(size_t limit);
  base::Result<void> ForgetRelease(std::string_view holder);
  // Somebody reads it still: counts as pending from now on, for every process that looks. (Not
  // synced: only time is lost.) Fine if it is not pending any more.
  base::Result<void> PutOffRelease(const PendingRelease& pending);
  base::Result<bool> IsReleasePending(std::string_view holder);

  // --- boot traces (catalog_trace.cc) ---

  // As it was put; nothing if there is none. The id is a record's.
  base::Result<std::optional<std::string>> GetTrace(std::string_view image_id);
  // Puts or (nothing) removes it, if the image is there and `check` agrees to it. Durable.
  // kNotFound.
  base::Result<void> PutTrace(std::string_view id, std::optional<std::string_view> trace,
                              const Check& check);

  // --- lists and numbers ---

  // One page, in order. See query.h. kInvalidArgument for a marker that is not there.
  base::Result<std::vector<Image>> List(const ListQuery& query);

  base::Result<Usage> UsageOfProject(std::string_view project_id);
  const QuotaLimits& limits() const { return limits_; }
  int64_t NowUs() const { return clock_.NowUs(); }

 private:
  static constexpr size_t kStripes = 64;
  static constexpr int kMaxAttempts = 200;

  struct Stored {
    Image image;
    std::string bytes;  // as read: the expectation of the next commit
  };
  struct Outcome {
    bool remove = false;
    std::vector<std::string> releases;
  };
  // Changes the image in place, or refuses.
  using Step = std::function<base::Result<Outcome>(Image&)>;

  base::Result<Stored> Load(std::string_view id);
  // Load, step, commit, again while others are faster. Not yet durable.
  base::Result<Image> Apply(std::string_view id, bool touch, const Step& step);
  base::Result<Image> ApplyDurably(std::string_view id, bool touch, const Step& step);
  // One attempt: `before` (null: must be absent) becomes `after` (null: is removed). False: lost a
  // race.
  base::Result<bool> CommitOnce(const Stored* before, const Image* after,
                                const std::vector<std::string>& releases);
  base::Result<bool> EndUpload(std::string_view id, std::string_view holder,
                               std::optional<int64_t> expired_by_us, const Change& change);
  base::Result<void> AddUsage(const Image* before, const Image* after,
                              chunkstore::MetaBatch* batch);
  base::Result<void> ChangeProject(std::string_view project_id, const Usage& before,
                                   const Usage& after, chunkstore::MetaBatch* batch);
  base::Mutex& StripeOf(std::string_view project_id);

  chunkstore::MetaStore& meta_;
  const base::Clock& clock_;
  const QuotaLimits limits_;
  // Changes of one process to one project's records take turns, so that they don't starve each
  // other by races; across processes the expectations alone decide.
  std::array<base::Mutex, kStripes> stripes_;
};

}  // namespace imaged
