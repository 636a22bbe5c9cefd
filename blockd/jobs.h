#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/metrics.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "blockd/back_ends.h"
#include "blockd/backup_target.h"
#include "blockd/catalog.h"
#include "blockd/exports.h"
#include "blockd/image_source.h"
#include "blockd/notices.h"
#include "blockd/serving.h"
#include "blockd/type_directory.h"
#include "blockd/volume_store.h"
#include "chunkstore/jobs/runner.h"

namespace blockd {

// Work on volumes that outlives its request: a job of the journal, written in the same commit as
// the status that announces it ("creating"), so neither is ever without the other. A crash at any
// point leaves a job that the next start, or another process once the lease is over, takes up:
// every step stands being done twice, and one that lost its job meanwhile commits nothing
// (Catalog::ForJob) and begins nothing in the volume store (HeldStore).
//
// Each lane has threads and a bounded queue of its own, so that slow creations never hold up a
// detach; within one, projects take turns. An attach needs no job: to publish an export opens
// nothing.
enum class Lane : uint8_t { kCreate, kDelete, kSnapshot, kDetach, kBackup };
constexpr size_t kLanes = 5;
constexpr std::array<std::string_view, kLanes> kLaneNames = {"create", "delete", "snapshot",
                                                             "detach", "backup"};

enum class Op : uint8_t {
  kCreateVolume,    // creating -> available
  kDeleteVolume,    // deleting -> gone, with all snapshots if they are still there
  kExtend,          // extending -> as before
  kRevert,          // reverting -> available; argument: the snapshot
  kReimage,         // downloading -> as before; argument: the image
  kUploadImage,     // uploading -> as before; argument: the image
  kCreateSnapshot,  // creating -> available
  kDeleteSnapshot,  // deleting -> gone
  kDetach,          // detaching -> gone; of an attachment
  // Of backups; the argument is the volume, but of a restore the backup.
  kSnapshotForBackup,  // a volume: backing-up -> as before, with a snapshot for kCreateBackup
  kCreateBackup,       // creating -> available
  kDeleteBackup,       // deleting -> gone
  kRestoreBackup,      // of the volume: creating or restoring-backup -> available
  kRetype,             // of the volume: retyping -> available, moved; argument: the type
};
std::string_view OpName(Op op);  // "create-volume", ...

struct JobSpec {
  Op op = Op::kCreateVolume;
  std::string project_id;
  std::string id;               // of the volume, snapshot, attachment or backup
  std::string argument;         // see Op
  std::string request_id = {};  // of the request that began it
};
std::string EncodeJob(const JobSpec& spec);
base::Result<JobSpec> DecodeJob(std::string_view payload);  // kCorruption
Lane LaneOf(Op op);

struct JobOptions {
  std::array<size_t, kLanes> threads = {4, 4, 4, 4, 2};
  // Of each lane, waiting and running: beyond it 503.
  size_t max_queued = 20'000;
  // How often an operation that fails for a passing reason is tried before it is given up (a detach
  // never is).
  int max_attempts = 8;
  int64_t lease_ms = 30'000;
  int64_t poll_ms = 1'000;
};

// Thread-safe.
class Jobs {
 public:
  // What the steps work on: borrowed, outlives the jobs.
  struct World {
    Catalog& catalog;
    VolumeStore& store;
    Exports& exports;
    ImageSource& images;
    TypeDirectory& types;
    BackupTarget* backups = nullptr;  // none: there are no backups here
    Notices* notices = nullptr;       // none: nobody is told
    BackEnds* back_ends = nullptr;    // `store`, where that is several; none: nothing moves
    Serving* serving = nullptr;       // none: no other process uses the records
  };
  Jobs(World world, base::Metrics& metrics, JobOptions options = {});
  ~Jobs();  // stops
  Jobs(const Jobs&) = delete;
  Jobs& operator=(const Jobs&) = delete;

  // The threads. Before this jobs are only kept.
  void Start();
  void Stop();

  // Runs `body` as one transaction, in which it adds jobs of this lane (Add); then they are on
  // their way. kUnavailable, before anything is read, when the lane is full: 503, try again later.
  base::Result<void> Submit(Lane lane, const Catalog::Body& body);
  static base::Result<void> Add(Transaction& transaction, const JobSpec& spec);

  // Waits until `done` says so, asking after each job that ends, and now and then; false after
  // `timeout_ms`, and at once when kMaxWaiting others wait already: threads of the pool are not to
  // be spent on that.
  bool Await(const std::function<bool()>& done, int64_t timeout_ms);

  // Counts what waits, for /metrics and the bounds; now and then.
  base::Result<void> Measure();

  // What one job does, once. For the runners, and for tests that stop at every step.
  base::Result<chunkstore::jobs::Outcome> Run(
      const chunkstore::jobs::Job& job,
      const chunkstore::jobs::JobControl& control = chunkstore::jobs::JobControl());

 private:
  struct LaneState {
    std::unique_ptr<chunkstore::jobs::Runner> runner;
    std::atomic<int64_t> queued{0};
    base::Gauge* depth = nullptr;
    base::Gauge* oldest_age = nullptr;
    base::Counter* finished = nullptr;
    base::Counter* refused = nullptr;
  };
  LaneState& StateOf(Lane lane) { return lanes_[static_cast<size_t>(lane)]; }

  const World world_;
  const JobOptions options_;
  std::array<LaneState, kLanes> lanes_;
  static constexpr size_t kMaxWaiting = 4;
  base::Mutex mutex_;
  base::CondVar ended_;
  size_t waiting_ GUARDED_BY(mutex_) = 0;
};

// What each operation does (job_steps.cc, backup_steps.cc). An error: try again later. At the last
// attempt the step gives up instead, which it writes down, and is done.
struct Attempt;
base::Result<chunkstore::jobs::Outcome> RunStep(const Jobs::World& world, const JobSpec& spec,
                                                const Attempt& attempt);

// "blockd.create": the kind of a lane's jobs in the journal.
std::string KindOfLane(Lane lane);

}  // namespace blockd
