#include "blockd/jobs.h"

#include <algorithm>

#include "base/json.h"
#include "base/log.h"
#include "blockd/held_store.h"
#include "blockd/step_tools.h"

namespace blockd {
namespace {

using base::Code;
using base::Error;
using base::Result;
using chunkstore::jobs::Job;
using chunkstore::jobs::JobControl;
using chunkstore::jobs::Outcome;

constexpr int64_t kAwaitPollMs = 100;

constexpr std::array<std::string_view, 14> kOpNames = {
    "create-volume", "delete-volume",   "extend",          "revert", "reimage",
    "upload-image",  "create-snapshot", "delete-snapshot", "detach", "snapshot-for-backup",
    "create-backup", "delete-backup",   "restore-backup",  "retype"};

}  // namespace

std::string KindOfLane(Lane lane) {
  return "blockd." + std::string(kLaneNames[static_cast<size_t>(lane)]);
}

Lane LaneOf(Op op) {
  switch (op) {
    case Op::kCreateVolume:
    case Op::kExtend:
    case Op::kRevert:
    case Op::kReimage:
    case Op::kUploadImage:
    case Op::kRetype:
      return Lane::kCreate;
    case Op::kDeleteVolume:
    case Op::kDeleteSnapshot:
    case Op::kDeleteBackup:
      return Lane::kDelete;
    case Op::kCreateSnapshot:
    case Op::kSnapshotForBackup:
      return Lane::kSnapshot;
    case Op::kCreateBackup:
    case Op::kRestoreBackup:
      return Lane::kBackup;
    case Op::kDetach:
      break;
  }
  return Lane::kDetach;
}

std::string_view OpName(Op op) { return kOpNames[static_cast<size_t>(op)]; }

std::string EncodeJob(const JobSpec& spec) {
  return base::ToText(base::JsonObject{{"op", OpName(spec.op)},
                                       {"project", spec.project_id},
                                       {"id", spec.id},
                                       {"argument", spec.argument},
                                       {"request", spec.request_id}});
}

Result<JobSpec> DecodeJob(std::string_view payload) {
  const Error bad(Code::kCorruption, "a job of volumes is not readable");
  const Result<base::Json> json = base::ParseJson(payload);
  if (!json.has_value()) return bad;
  const auto op = base::FindString(*json, "op");
  const auto project = base::FindString(*json, "project");
  const auto id = base::FindString(*json, "id");
  const auto argument = base::FindString(*json, "argument");
  if (!op.has_value() || !project.has_value() || !id.has_value() || !argument.has_value())
    return bad;
  const auto name = std::find(kOpNames.begin(), kOpNames.end(), *op);
  if (name == kOpNames.end()) return bad;
  return JobSpec{static_cast<Op>(name - kOpNames.begin()), *project, *id, *argument,
                 base::FindString(*json, "request").value_or("")};
}

Jobs::Jobs(World world, base::Metrics& metrics, JobOptions options)
    : world_(world), options_(options) {
  for (size_t i = 0; i < kLanes; ++i) {
    const base::Labels labels = {{"lane", std::string(kLaneNames[i])}};
    LaneState& state = lanes_[i];
    state.depth =
        &metrics.GetGauge("quarry_block_jobs_queued", "Jobs of volumes that wait or run.", labels);
    state.oldest_age = &metrics.GetGauge("quarry_block_jobs_oldest_seconds",
                                         "Age of the oldest job of volumes.", labels);
    state.finished =
        &metrics.GetCounter("quarry_block_jobs_finished_total", "Jobs that ended.", labels);
    state.refused = &metrics.GetCounter("quarry_block_jobs_refused_total",
                                        "Requests that found their lane full.", labels);
    chunkstore::jobs::RunnerOptions runner;
    runner.threads = options_.threads[i];
    runner.lease_ms = options_.lease_ms;
    runner.poll_ms = options_.poll_ms;
    runner.by_turns = true;
    state.runner = std::make_unique<chunkstore::jobs::Runner>(
        world_.catalog.journal(), KindOfLane(static_cast<Lane>(i)), runner,
        [this](const Job& job, const JobControl& control) { return Run(job, control); });
  }
}

Jobs::~Jobs() { Stop(); }

void Jobs::Start() {
  for (LaneState& lane : lanes_) lane.runner->Start();
}

void Jobs::Stop() {
  for (LaneState& lane : lanes_) lane.runner->Stop();
}

Result<void> Jobs::Add(Transaction& transaction, const JobSpec& spec) {
  return transaction.AddJob(KindOfLane(LaneOf(spec.op)), EncodeJob(spec), spec.project_id);
}

Result<void> Jobs::Submit(Lane lane, const Catalog::Body& body) {
  LaneState& state = StateOf(lane);
  if (state.queued.fetch_add(1) >= static_cast<int64_t>(options_.max_queued)) {
    state.queued.fetch_sub(1);
    state.refused->Add();
    return Error(Code::kUnavailable,
                 "Too many volume operations are waiting. Try again in a few seconds.");
  }
  size_t added = 0;
  Result<void> done = world_.catalog.Transact([&](Transaction& transaction) -> Result<void> {
    RETURN_IF_ERROR(body(transaction));
    added = transaction.jobs_added();
    return {};
  });
  if (!done.has_value()) added = 0;
  state.queued.fetch_add(static_cast<int64_t>(added) - 1);
  if (added > 0) state.runner->Wake();
  return done;
}

bool Jobs::Await(const std::function<bool()>& done, int64_t timeout_ms) {
  // The machine's clock: a request waits in real time, whatever the records are dated by.
  const int64_t until_ns = base::SystemClock().MonotonicNs() + timeout_ms * 1'000'000;
  base::MutexLock lock(mutex_);
  if (waiting_ >= kMaxWaiting) return done();
  ++waiting_;
  bool is_done = done();
  while (!is_done) {
    const int64_t left_ms = (until_ns - base::SystemClock().MonotonicNs()) / 1'000'000;
    if (left_ms <= 0) break;
    // Another process may be the one that does it.
    ended_.WaitForMs(mutex_, std::min(left_ms, kAwaitPollMs));
    is_done = done();
  }
  --waiting_;
  return is_done;
}

Result<void> Jobs::Measure() {
  for (size_t i = 0; i < kLanes; ++i) {
    LaneState& state = lanes_[i];
    ASSIGN_OR_RETURN(const std::vector<Job> jobs,
                     world_.catalog.journal().List(KindOfLane(static_cast<Lane>(i))));
    state.queued.store(static_cast<int64_t>(jobs.size()));
    state.depth->Set(static_cast<double>(jobs.size()));
    const int64_t age_us = jobs.empty() ? 0 : world_.catalog.NowUs() - jobs.front().created_us;
    state.oldest_age->Set(static_cast<double>(age_us) / static_cast<double>(base::kSecondUs));
  }
  return {};
}

Result<Outcome> Jobs::Run(const Job& job, const JobControl& control) {
  Result<JobSpec> spec = DecodeJob(job.payload);
  if (!spec.has_value()) {
    LOG(kError, "blockd", "job {} is dropped: {}", job.id, spec.error().ToString());
    return Outcome{};
  }
  const Attempt attempt = {job.attempts >= options_.max_attempts, control};
  Catalog catalog = world_.catalog.ForJob(job);
  HeldStore store(world_.store, catalog);
  const World held = {catalog,        store,          world_.exports,   world_.images, world_.types,
                      world_.backups, world_.notices, world_.back_ends, world_.serving};
  Result<Outcome> outcome = RunStep(held, *spec, attempt);
  if (outcome.has_value() && outcome->done) {
    // What it may have added: the rest of the same work.
    if (spec->op == Op::kSnapshotForBackup) {
      StateOf(Lane::kBackup).queued.fetch_add(1);
      StateOf(Lane::kBackup).runner->Wake();
    }
    LaneState& state = StateOf(LaneOf(spec->op));
    state.finished->Add();
    if (state.queued.fetch_sub(1) <= 0) state.queued.fetch_add(1);
    base::MutexLock lock(mutex_);
    ended_.NotifyAll();
  }
  return outcome;
}

}  // namespace blockd
