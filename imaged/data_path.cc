#include "imaged/data_path.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/log.h"
#include "base/uuid.h"
#include "imaged/import.h"
#include "imaged/import_turns.h"
#include "imaged/reconcile.h"

namespace imaged {

using base::Code;
using base::MutexLock;
using base::Result;
using chunkstore::jobs::Job;
using chunkstore::jobs::JobControl;
using chunkstore::jobs::Outcome;
using chunkstore::jobs::RunnerOptions;

namespace {

constexpr size_t kLeastDataThreads = 4;
// Bounded by what feeds it: buffers of uploads and slices of downloads.
constexpr size_t kMaxDataJobs = 16'384;

size_t DataThreads(size_t configured) {
  if (configured > 0) return configured;
  return std::max<size_t>(kLeastDataThreads, std::thread::hardware_concurrency());
}

base::Counter& UploadCounter(base::Metrics& metrics, const char* outcome) {
  return metrics.GetCounter("quarry_imaged_uploads_total", "uploads that ended",
                            {{"outcome", outcome}});
}

base::Counter& RefusedCounter(base::Metrics& metrics, const char* limit) {
  return metrics.GetCounter("quarry_imaged_refused_downloads_total",
                            "downloads answered 503, by the limit that was reached",
                            {{"limit", limit}});
}

RunnerOptions ImportRunner(const DataOptions& options, base::Metrics& metrics) {
  base::Gauge& waiting =
      metrics.GetGauge("quarry_imaged_imports_waiting", "imports that wait for their turn");
  return {.threads = options.import_threads,
          .choose = ImportTurns(options.project_imports, &waiting)};
}

DownloadMemory MemoryOf(uint64_t limit_bytes, base::Metrics& metrics) {
  auto budget = [&metrics](const char* use, uint64_t bytes) {
    base::Gauge& in_use = metrics.GetGauge("quarry_imaged_download_memory_bytes",
                                           "memory that downloads have reserved", {{"for", use}});
    return std::make_shared<FairBudget>(bytes, &in_use);
  };
  const uint64_t short_reads = limit_bytes / DownloadMemory::kShortReadsPart;
  return {budget("images", limit_bytes - short_reads), budget("short_reads", short_reads)};
}

}  // namespace

DataPath::DataPath(DataOptions options, chunkstore::ChunkStore& store, chunkstore::MetaStore& meta,
                   Catalog& catalog, base::async::Pool& pool, const base::Clock& clock,
                   base::Metrics& metrics)
    : options_(std::move(options)),
      store_(store),
      meta_(meta),
      catalog_(catalog),
      pool_(pool),
      clock_(clock),
      data_pool_(std::make_unique<base::async::Pool>("data", DataThreads(options_.data_threads),
                                                     kMaxDataJobs)),
      upload_buffers_(std::make_shared<BufferPool>(
          std::max<size_t>(1, options_.upload_memory_bytes / chunkstore::kChunkBytes))),
      digests_(meta),
      tasks_(meta, clock),
      journal_(meta, clock, std::string(kJobsPartition), base::NewUuidHex()),
      resolver_(kMaxLookups, options_.web.lookup),
      imports_(journal_, std::string(kImportJob), ImportRunner(options_, metrics),
               [this](const Job& job, const JobControl& control) {
                 return RunImport(*this, job, control);
               }),
      checksums_(
          journal_, std::string(kChecksumJob), RunnerOptions{.threads = 1, .background = true},
          [this](const Job& job, const JobControl& control) { return RunChecksum(job, control); }),
      uploads_(UploadCounter(metrics, "success")),
      failed_uploads_(UploadCounter(metrics, "failure")),
      uploaded_bytes_(metrics.GetCounter("quarry_imaged_uploaded_bytes_total",
                                         "bytes of images in uploads, sent or named")),
      known_bytes_(metrics.GetCounter("quarry_imaged_uploaded_known_bytes_total",
                                      "those of them that were stored already, or zeros")),
      named_bytes_(metrics.GetCounter("quarry_imaged_uploaded_named_bytes_total",
                                      "those of them that clients named by their chunk's id and "
                                      "did not send")),
      downloaded_bytes_(metrics.GetCounter("quarry_imaged_downloaded_bytes_total",
                                           "bytes handed out in downloads")),
      block_bytes_(
          metrics.GetCounter("quarry_imaged_block_bytes_total",
                             "bytes of blocks, as stored, and of their tables handed out")),
      uploads_in_flight_(
          metrics.GetGauge("quarry_imaged_uploads_in_flight", "uploads and imports on their way")),
      downloads_in_flight_(
          metrics.GetGauge("quarry_imaged_downloads_in_flight", "downloads on their way")),
      kept_bytes_(metrics.GetGauge("quarry_imaged_kept_bytes",
                                   "bytes of uploads that broke off, kept for the next try")),
      refused_by_share_(RefusedCounter(metrics, "project")),
      refused_by_memory_(RefusedCounter(metrics, "service")),
      download_memory_(MemoryOf(options_.download_memory_bytes, metrics)) {}

DataPath::~DataPath() { Stop(); }

Result<void> DataPath::Start() {
  RETURN_IF_ERROR(CheckHostLists(options_.web));
  ASSIGN_OR_RETURN(BlockNames names, BlockNames::Open(meta_));
  block_names_ = std::move(names);
  if (options_.sole_process) {
    RETURN_IF_ERROR(journal_.BreakLeases());
    RETURN_IF_ERROR(Reconcile(*this, Recovery::kAfterCrash));
  }
  imports_.Start();
  checksums_.Start();
  sweeper_ = std::thread([this] { Sweep(); });
  lease_keeper_ = std::thread([this] { KeepLeases(); });
  return {};
}

void DataPath::Stop() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    stopped_.NotifyAll();
  }
  if (sweeper_.joinable()) sweeper_.join();
  if (lease_keeper_.joinable()) lease_keeper_.join();
  imports_.Stop();
  checksums_.Stop();
}

bool DataPath::Pause() {
  MutexLock lock(mutex_);
  if (!stopping_) stopped_.WaitForMs(mutex_, options_.sweep_ms);
  return !stopping_;
}

bool DataPath::IsDue(int64_t* last_ns, int64_t every_ms) const {
  const int64_t now_ns = clock_.MonotonicNs();
  if (now_ns - *last_ns < every_ms * 1'000'000) return false;
  *last_ns = now_ns;
  return true;
}

void DataPath::KeepLeases() {
  int64_t last_ns = clock_.MonotonicNs();
  while (Pause()) {
    CallOffDeleted();
    if (IsDue(&last_ns, options_.lease_ms / 3)) KeepUploadLeases();
  }
}

void DataPath::Sweep() {
  int64_t last_reconcile_ns = clock_.MonotonicNs();
  int64_t last_orphans_ns = last_reconcile_ns;
  auto log = [](const char* what, const Result<void>& result) {
    if (!result.has_value()) LOG(kError, "imaged", "{}: {}", what, result.error().ToString());
  };
  while (Pause()) {
    Result<size_t> released = ReleasePending();
    if (!released.has_value()) log("releasing the bytes of deleted images", released.error());
    if (IsDue(&last_reconcile_ns, std::min(kReconcileMs, options_.lease_ms / 3))) {
      log("looking for abandoned uploads", Reconcile(*this, Recovery::kRunning));
    }
    if (IsDue(&last_orphans_ns, kOrphanScanMs)) {
      log("looking for bytes that no image needs", ReleaseOrphans(*this, Recovery::kRunning));
      log("looking for tasks whose job is gone", FailLostTasks(*this, Recovery::kRunning));
      log("forgetting old tasks", tasks_.Expire());
    }
  }
}

bool DataPath::stopping() {
  MutexLock lock(mutex_);
  return stopping_;
}

std::map<std::string, DataPath::ActiveUpload> DataPath::ActiveUploads() {
  MutexLock lock(mutex_);
  return active_;
}

void DataPath::TellCalledOff(const std::string& holder) {
  MutexLock lock(mutex_);
  const auto still = active_.find(holder);
  if (still != active_.end()) still->second.called_off();
}

void DataPath::CallOffDeleted() {
  for (const auto& [holder, upload] : ActiveUploads()) {
    const Result<Image> image = catalog_.Get(upload.image_id);
    if (image.has_value() || image.error().code() != Code::kNotFound) continue;
    TellCalledOff(holder);
  }
}

void DataPath::KeepUploadLeases() {
  for (const auto& [holder, upload] : ActiveUploads()) {
    // Puts keep it as well; a client that sends little for long has none. What became of a lost one
    // the next put says.
    const std::shared_ptr<chunkstore::Ingest> ingest = upload.ingest.lock();
    if (ingest != nullptr) (void)ingest->Renew().has_value();
    Result<void> renewed = catalog_.RenewUpload(upload.image_id, holder, options_.lease_ms, 0);
    if (renewed.has_value()) continue;
    if (renewed.error().code() != Code::kNotFound) {
      LOG(kWarn, "imaged", "keeping the upload of image {}: {}", upload.image_id,
          renewed.error().ToString());
      continue;
    }
    TellCalledOff(holder);
  }
}

Result<size_t> DataPath::ReleasePending() {
  const int64_t now_us = clock_.NowUs();
  const int64_t lease_us = options_.lease_ms * 1000;
  return ReleaseNoLongerNeeded(store_, catalog_,
                               [&](const Catalog::PendingRelease& pending) -> Result<bool> {
                                 const int64_t age_us = now_us - pending.since_us;
                                 if (!IsInUse(pending.holder))
                                   return !options_.sole_process && age_us < lease_us;
                                 if (age_us >= lease_us / 3)
                                   RETURN_IF_ERROR(catalog_.PutOffRelease(pending));
                                 return true;
                               });
}

bool DataPath::IsInUse(const std::string& holder) {
  MutexLock lock(mutex_);
  return reading_.contains(holder) || active_.contains(holder);
}

Result<bool> DataPath::ReleaseOne(const std::string& holder) {
  if (IsInUse(holder)) return false;
  RETURN_IF_ERROR(store_.Release(holder));
  RETURN_IF_ERROR(catalog_.ForgetRelease(holder));
  return true;
}

bool DataPath::IsActive(const std::string& holder) {
  MutexLock lock(mutex_);
  return active_.contains(holder);
}

std::vector<std::string> DataPath::NeededDigests() const {
  std::vector<std::string> needed{options_.hash_algorithm};
  if (options_.checksum == ChecksumPolicy::kInline) needed.emplace_back(kChecksumAlgorithm);
  return needed;
}

Result<Digests> DataPath::CompleteDigests(const chunkstore::Root& root, Digests known,
                                          const std::function<bool()>& cancelled) {
  ASSIGN_OR_RETURN(Digests kept, digests_.Get(root));
  known.insert(kept.begin(), kept.end());
  std::vector<std::string> missing;
  for (std::string& algorithm : NeededDigests()) {
    if (!known.contains(algorithm)) missing.push_back(std::move(algorithm));
  }
  if (missing.empty()) return known;
  ASSIGN_OR_RETURN(std::shared_ptr<chunkstore::Content> content, store_.Open(root));
  ASSIGN_OR_RETURN(Digests computed, ComputeDigests(*content, missing, cancelled));
  known.insert(computed.begin(), computed.end());
  return known;
}

Result<Image> DataPath::Activate(const std::string& image_id, const std::string& holder,
                                 const std::string& data_holder, const chunkstore::Root& root,
                                 std::optional<uint64_t> virtual_bytes, const Digests& digests) {
  RETURN_IF_ERROR(digests_.Add(root, digests));
  DataFacts facts;
  facts.root = root;
  facts.virtual_size_bytes = virtual_bytes;
  facts.os_hash_algo = options_.hash_algorithm;
  auto hash = digests.find(options_.hash_algorithm);
  if (hash != digests.end()) facts.os_hash_value = hash->second;
  auto checksum = digests.find(kChecksumAlgorithm);
  if (checksum != digests.end()) facts.checksum = checksum->second;
  facts.stores = {options_.store_id};
  bool checksum_due =
      !facts.checksum.has_value() && options_.checksum == ChecksumPolicy::kBackground;
  // Before the image is active: a crash in between leaves a job that finds nothing to do.
  if (checksum_due) RETURN_IF_ERROR(journal_.Add(kChecksumJob, image_id));
  ASSIGN_OR_RETURN(Image image, catalog_.FinishUpload(image_id, holder, data_holder, facts));
  if (checksum_due) checksums_.Wake();
  return image;
}

void DataPath::CallOff(const std::string& image_id, const std::string& holder,
                       const Catalog::Change& change) {
  Result<bool> failed = catalog_.FailUpload(image_id, holder, change);
  if (!failed.has_value()) {
    LOG(kError, "imaged",
        "image {} could not be put back to queued: {}; it will be once its "
        "upload's lease is over",
        image_id, failed.error().ToString());
    return;
  }
  // If not, the upload may be finished, and these the bytes of an image: also where that seemed to
  // fail. What became pending elsewhere a sweep releases.
  if (!*failed) return;
  Result<bool> released = ReleaseOne(holder);
  if (!released.has_value()) {
    LOG(kWarn, "imaged", "{} will be released later: {}", holder, released.error().ToString());
  }
}

Result<Outcome> DataPath::RunChecksum(const Job& job, const JobControl& control) {
  {
    // MD5 is a long pass over the bytes: it waits until nobody waits for anything else.
    MutexLock lock(mutex_);
    bool quiet = last_upload_ns_ == INT64_MIN ||
                 clock_.MonotonicNs() - last_upload_ns_ >= kChecksumQuietMs * 1'000'000;
    if (!active_.empty() || !quiet) {
      return Outcome{.done = false, .delay_ms = kChecksumQuietMs};
    }
  }
  Result<Image> image = catalog_.Get(job.payload);
  if (!image.has_value()) {
    if (image.error().code() == Code::kNotFound) return Outcome{};
    return image.error();
  }
  // Written just before the upload ends.
  if (image->upload.has_value()) return Outcome{.done = false, .delay_ms = kChecksumQuietMs};
  if (!image->data.has_value() || image->checksum.has_value()) return Outcome{};
  Reading reading(*this, image->data->holder);
  const chunkstore::Root& root = image->data->root;
  ASSIGN_OR_RETURN(Digests digests, digests_.Get(root));
  if (!digests.contains(kChecksumAlgorithm)) {
    ASSIGN_OR_RETURN(std::shared_ptr<chunkstore::Content> content, store_.Open(root));
    auto give_way = [&] { return !WaitForQuiet(control); };
    ASSIGN_OR_RETURN(digests,
                     ComputeDigests(*content, {std::string(kChecksumAlgorithm)}, give_way));
    RETURN_IF_ERROR(digests_.Add(root, digests));
  }
  DataFacts facts;
  facts.checksum = digests.find(kChecksumAlgorithm)->second;
  RETURN_IF_ERROR(catalog_.SetDigests(image->id, root, facts));
  return Outcome{};
}

// Uploads come first: stands still while there are any. False when the job is to stop.
bool DataPath::WaitForQuiet(const JobControl& control) {
  constexpr int64_t kPauseMs = 100;
  MutexLock lock(mutex_);
  while (!active_.empty() && !stopping_ && !control.cancelled()) {
    stopped_.WaitForMs(mutex_, kPauseMs);
  }
  return !stopping_ && !control.cancelled();
}

void DataPath::CountUpload(uint64_t bytes, uint64_t known_bytes, bool succeeded) {
  (succeeded ? uploads_ : failed_uploads_).Add();
  uploaded_bytes_.Add(static_cast<double>(bytes));
  known_bytes_.Add(static_cast<double>(known_bytes));
}

DataPath::Active::Active(DataPath& path, std::string image_id, std::string holder,
                         std::function<void()> called_off, std::weak_ptr<chunkstore::Ingest> ingest)
    : path_(path), holder_(std::move(holder)) {
  MutexLock lock(path_.mutex_);
  path_.active_[holder_] =
      ActiveUpload{std::move(image_id), std::move(called_off), std::move(ingest)};
  path_.uploads_in_flight_.Add(1);
}

DataPath::Active::~Active() {
  MutexLock lock(path_.mutex_);
  path_.active_.erase(holder_);
  path_.last_upload_ns_ = path_.clock_.MonotonicNs();
  path_.uploads_in_flight_.Add(-1);
}

DataPath::Reading::Reading(DataPath& path, std::string holder)
    : path_(path), holder_(std::move(holder)) {
  MutexLock lock(path_.mutex_);
  ++path_.reading_[holder_];
}

DataPath::Reading::~Reading() {
  MutexLock lock(path_.mutex_);
  auto reading = path_.reading_.find(holder_);
  if (--reading->second == 0) path_.reading_.erase(reading);
}

}  // namespace imaged
