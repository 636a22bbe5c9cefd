#pragma once

#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "blockd/jobs.h"

// What the steps of jobs have in common. For job_steps.cc and backup_steps.cc.

namespace blockd {

constexpr chunkstore::jobs::Outcome kDone = {};
// How long a job waits for a snapshot to be put into the chunk store before it asks again.
constexpr int64_t kSealPollMs = 500;
// How long a detach waits for other processes that serve the attachment, before it asks again.
constexpr int64_t kServedPollMs = 100;
// How long what changes a volume waits for what is still to be made of it, before it asks again.
constexpr int64_t kSourcePollMs = 200;
// How long a snapshot waits for earlier ones of its volume, before it asks again; and in all,
// before to wait counts as to fail.
constexpr int64_t kSnapshotPollMs = 1000;
constexpr int64_t kSnapshotPatienceUs = 10 * 60 * int64_t{1'000'000};

// This run of a job.
struct Attempt {
  bool last = false;  // to fail now is to give up
  const chunkstore::jobs::JobControl& control;

  // Whether to go on trying after this error. What was stopped is never given up.
  bool MayTryAgain(const base::Error& error) const;
};

// An answer that says that there is nothing left to do.
inline base::Result<void> Unless(base::Code fine, base::Result<void> result) {
  if (!result.has_value() && result.error().code() == fine) return {};
  return result;
}

// Nothing if it is not there; another error than that is in `failed`.
template <typename Record>
std::optional<Record> IfThere(base::Result<Record> record, base::Result<void>* failed) {
  if (record.has_value()) return *std::move(record);
  if (record.error().code() != base::Code::kNotFound) *failed = record.error();
  return std::nullopt;
}

// Whether something that was asked for before is still to be made of the volume as it is: a
// snapshot, or a copy. What replaces its bytes or its size waits for that. Nothing new comes
// meanwhile: it would have been refused, by the volume's status.
base::Result<bool> IsStillToBeCopied(const Jobs::World& world, const VolumeRecord& volume);

// Whether a snapshot was not taken only because the volume's last ones are still on their way into
// the chunk store. That is no failure, however often, until the patience is over.
bool ComesTooFast(const Jobs::World& world, const base::Error& error, int64_t asked_at_us);

// Changes the volume if it still is in `from`; true if so.
using StepChange = std::function<base::Result<void>(Transaction&, VolumeRecord&)>;
base::Result<bool> ChangeVolumeIn(Catalog& catalog, const std::string& id, VolumeStatus from,
                                  const StepChange& change);

// Logs that the work is given up, and why: for operators, with all that is known.
void LogGivenUp(const JobSpec& spec, const base::Error& error);
// Tells the project the same in its own terms: within the transaction that sets the status.
base::Result<void> TellGivenUp(const Jobs::World& world, Transaction& transaction,
                               const JobSpec& spec, const base::Error& error);
// The sentence of it, without what is ours: how things are kept, other projects' ids.
std::string GivenUpText(Op op, base::Code code);

// backup_steps.cc
base::Result<chunkstore::jobs::Outcome> SnapshotForBackup(const Jobs::World& world,
                                                          const JobSpec& spec,
                                                          const Attempt& attempt);
base::Result<chunkstore::jobs::Outcome> CreateBackup(const Jobs::World& world, const JobSpec& spec,
                                                     const Attempt& attempt);
base::Result<chunkstore::jobs::Outcome> DeleteBackup(const Jobs::World& world, const JobSpec& spec,
                                                     const Attempt& attempt);
base::Result<chunkstore::jobs::Outcome> RestoreBackup(const Jobs::World& world, const JobSpec& spec,
                                                      const Attempt& attempt);

}  // namespace blockd
