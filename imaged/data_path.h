#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/async/gate.h"
#include "base/async/pool.h"
#include "base/clock.h"
#include "base/http/resolver.h"
#include "base/http/router.h"
#include "base/metrics.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "chunkstore/chunk_store.h"
#include "chunkstore/jobs/journal.h"
#include "chunkstore/jobs/runner.h"
#include "imaged/block_names.h"
#include "imaged/buffers.h"
#include "imaged/catalog.h"
#include "imaged/data_options.h"
#include "imaged/digests.h"
#include "imaged/formats/inspector.h"
#include "imaged/holder.h"
#include "imaged/reconcile.h"
#include "imaged/tasks.h"

namespace imaged {

constexpr int64_t kReconcileMs = 10'000;       // expired uploads; sooner with shorter leases
constexpr int64_t kOrphanScanMs = 600'000;     // holders that no record names ...
constexpr int64_t kOrphanAgeUs = 600'000'000;  // ... and that are so old
// Names of web-downloads that are being looked up, those included that nobody waits for any more.
constexpr size_t kMaxLookups = 32;
constexpr int64_t kChecksumQuietMs = 2'000;  // MD5 waits until no upload was there for so long

// Everything that moves image bytes: uploads, downloads, staging, imports, their tasks, and the
// putting right of what a crash left. Owns the threads and the memory for it. Thread-safe.
class DataPath {
 public:
  // Borrowed; they outlive the data path. `pool` is the server's own: short jobs of requests.
  DataPath(DataOptions options, chunkstore::ChunkStore& store, chunkstore::MetaStore& meta,
           Catalog& catalog, base::async::Pool& pool, const base::Clock& clock,
           base::Metrics& metrics);
  ~DataPath();  // stops
  DataPath(const DataPath&) = delete;
  DataPath& operator=(const DataPath&) = delete;

  // Puts right what a crash left, then starts the jobs and the sweeps. Once, before the routes are
  // used.
  base::Result<void> Start();
  // Cancels jobs and waits for them. After the server has stopped. Idempotent.
  void Stop();

  // /v2/images/{image_id}/file, /stage, /import, /tasks, /v2/tasks, and those below /v2/quarry.
  // They borrow this object.
  std::vector<base::http::Route> Routes();

  // Releases in the chunk store what the catalog no longer needs (deleted images): done every
  // second by itself; before a collection it frees at once. Downloads in flight keep theirs, in
  // whichever process (DataOptions::sole_process). Returns how many holders were let go.
  base::Result<size_t> ReleasePending();

  // Releases a holder that no record names (any more), now. False, without doing it, for one that
  // is in use.
  base::Result<bool> ReleaseOne(const std::string& holder);

  // --- for the handlers in this folder, and for who makes volumes of images ---

  const DataOptions& options() const { return options_; }
  chunkstore::ChunkStore& store() { return store_; }
  Catalog& catalog() { return catalog_; }
  base::async::Pool& pool() { return pool_; }
  base::async::Pool& data_pool() { return *data_pool_; }
  const base::Clock& clock() const { return clock_; }
  DigestStore& digests() { return digests_; }
  TaskStore& tasks() { return tasks_; }
  chunkstore::jobs::Journal& journal() { return journal_; }
  void WakeImports() { imports_.Wake(); }
  base::http::Resolver& resolver() { return resolver_; }
  const std::shared_ptr<BufferPool>& upload_buffers() { return upload_buffers_; }
  const DownloadMemory& download_memory() const { return download_memory_; }
  // REQUIRES: started.
  const BlockNames& block_names() const { return *block_names_; }

  // The digests that an image needs before it becomes active.
  std::vector<std::string> NeededDigests() const;

  // An upload is known here from BeginUpload until it was finished or failed: its lease is kept,
  // and recovery leaves it alone. `called_off` runs (on any thread) when the catalog says that it
  // was. The lease of its `ingest` (may be empty) is kept as well, as long as there is one.
  class Active {
   public:
    Active(DataPath& path, std::string image_id, std::string holder,
           std::function<void()> called_off, std::weak_ptr<chunkstore::Ingest> ingest = {});
    ~Active();
    Active(const Active&) = delete;
    Active& operator=(const Active&) = delete;

   private:
    DataPath& path_;
    const std::string holder_;
  };

  // While it lives, the holder's bytes stay although its image goes.
  class Reading {
   public:
    Reading(DataPath& path, std::string holder);
    ~Reading();
    Reading(const Reading&) = delete;
    Reading& operator=(const Reading&) = delete;

   private:
    DataPath& path_;
    const std::string holder_;
  };

  // What follows when all bytes are in the store: the digests are kept, the image becomes active, a
  // checksum job is written if one is due. `virtual_bytes` as the inspector found it. Blocking.
  base::Result<Image> Activate(const std::string& image_id, const std::string& holder,
                               const std::string& data_holder, const chunkstore::Root& root,
                               std::optional<uint64_t> virtual_bytes, const Digests& digests);

  // The image goes back to queued, and its holder is let go. Logs what fails; recovery will do it.
  void CallOff(const std::string& image_id, const std::string& holder,
               const Catalog::Change& change = {});

  // All the digests of a root that are needed and not known are computed from the bytes. Blocking.
  base::Result<Digests> CompleteDigests(const chunkstore::Root& root, Digests known,
                                        const std::function<bool()>& cancelled);

  // Whoever works for long without a request of a client looks here now and then.
  bool stopping();

  void CountUpload(uint64_t bytes, uint64_t known_bytes, bool succeeded);
  // A chunk of an upload that the client named instead of sending it.
  void CountNamed(uint64_t bytes) { named_bytes_.Add(static_cast<double>(bytes)); }
  void CountDownload(uint64_t bytes) { downloaded_bytes_.Add(static_cast<double>(bytes)); }
  // Of an answer with blocks, their tables included.
  void CountBlockBytes(uint64_t bytes) { block_bytes_.Add(static_cast<double>(bytes)); }
  // Bytes of all kept parts (kept_parts.h).
  void ShowKept(uint64_t bytes) { kept_bytes_.Set(static_cast<double>(bytes)); }
  void CountDownloadBegun() { downloads_in_flight_.Add(1); }
  void CountDownloadEnded() { downloads_in_flight_.Add(-1); }
  void CountDownloadRefused(FairBudget::Refusal why) {
    (why == FairBudget::Refusal::kShare ? refused_by_share_ : refused_by_memory_).Add();
  }

 private:
  friend base::Result<void> Reconcile(DataPath&, Recovery);
  struct ActiveUpload {
    std::string image_id;
    std::function<void()> called_off;
    std::weak_ptr<chunkstore::Ingest> ingest;
  };

  // Waits for a while; false when it is to end.
  bool Pause();
  bool IsDue(int64_t* last_ns, int64_t every_ms) const;
  void Sweep();
  // On a thread of its own: a sweep may be long, a lease is not.
  void KeepLeases();
  std::map<std::string, ActiveUpload> ActiveUploads();
  void TellCalledOff(const std::string& holder);
  void KeepUploadLeases();
  // Ends the uploads and imports whose image was deleted: they hold memory and threads.
  void CallOffDeleted();
  bool IsInUse(const std::string& holder);
  base::Result<chunkstore::jobs::Outcome> RunChecksum(const chunkstore::jobs::Job& job,
                                                      const chunkstore::jobs::JobControl& control);
  bool WaitForQuiet(const chunkstore::jobs::JobControl& control);
  bool IsActive(const std::string& holder);

  const DataOptions options_;
  chunkstore::ChunkStore& store_;
  chunkstore::MetaStore& meta_;
  Catalog& catalog_;
  base::async::Pool& pool_;
  const base::Clock& clock_;
  std::unique_ptr<base::async::Pool> data_pool_;
  const std::shared_ptr<BufferPool> upload_buffers_;
  std::optional<BlockNames> block_names_;
  DigestStore digests_;
  TaskStore tasks_;
  chunkstore::jobs::Journal journal_;
  base::http::Resolver resolver_;
  chunkstore::jobs::Runner imports_;
  chunkstore::jobs::Runner checksums_;

  base::Counter& uploads_;
  base::Counter& failed_uploads_;
  base::Counter& uploaded_bytes_;
  base::Counter& known_bytes_;
  base::Counter& named_bytes_;
  base::Counter& downloaded_bytes_;
  base::Counter& block_bytes_;
  base::Gauge& uploads_in_flight_;
  base::Gauge& downloads_in_flight_;
  base::Gauge& kept_bytes_;
  base::Counter& refused_by_share_;
  base::Counter& refused_by_memory_;
  const DownloadMemory download_memory_;

  base::Mutex mutex_;
  base::CondVar stopped_;
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::map<std::string, ActiveUpload> active_ GUARDED_BY(mutex_);  // by holder
  std::map<std::string, int> reading_ GUARDED_BY(mutex_);          // by holder
  int64_t last_upload_ns_ GUARDED_BY(mutex_) = INT64_MIN;
  std::thread sweeper_;
  std::thread lease_keeper_;
};

}  // namespace imaged
