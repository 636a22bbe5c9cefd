#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "chunkstore/jobs/turns.h"
#include "chunkstore/meta_store.h"

namespace chunkstore::jobs {

// Work that must be finished, or rolled back, whatever crashes meanwhile: a record in a MetaStore
// that stays until somebody says that the work is done.
struct Job {
  std::string id;       // sorts by time of creation
  std::string kind;     // which handler runs it: "import", "checksum"
  std::string payload;  // the handler's own; small
  std::string queue;    // whose it is, where jobs are taken by turns (ClaimByTurns); may be empty
  int64_t created_us = 0;
  int64_t not_before_us = 0;   // nobody takes it earlier
  int64_t lease_until_us = 0;  // somebody works on it until then, if owner is not empty
  std::string owner;
  // How often somebody took it, this time included; without the times that it was only put off.
  int attempts = 0;
};

constexpr size_t kMaxPayloadBytes = 64 * 1024;
// Whose fronts a claim by turns compares.
constexpr size_t kQueuesAtOnce = 64;

// Which job is next: an index into `due`, or nothing for now. `held` are those of the same kind
// that somebody works on. Both are sorted by age, the oldest first. Called by many threads, and for
// the same jobs it must choose the same one: then whoever is late finds the job taken and looks
// again, and what the choice keeps to (so many at once) holds.
using Choose =
    std::function<std::optional<size_t>(const std::vector<Job>& held, const std::vector<Job>& due)>;

constexpr size_t kMaxQueueBytes = 128;

// The records, in one partition: key "j/<id>". Those with a queue have an index entry besides,
// which changes with them: "jq/<kind>/<queue>/<when it is due><id>" while they wait,
// "jh/<kind>/<queue>/ <id>" while somebody holds them. Whoever takes a job holds it by a lease; a
// lease that runs out (its owner crashed) lets the next one take it. Every change is a
// compare-and-set, so two processes never both hold a job: but one that lost its lease without
// noticing (it was stopped, and wakes) may still be at work, so what a handler does must stand
// being done twice. What it commits to the journal's partition may expect that the job is still its
// own (KeyOf, CheckHeld): then such a one changes nothing any more.
//
// Times are the wall clock's: processes that share a store keep their clocks within a few seconds.
// Thread-safe; several processes may share the store.
class Journal {
 public:
  // Borrowed; they outlive the journal. `owner` names this process (random, new at each start).
  Journal(MetaStore& meta, const base::Clock& clock, std::string partition, std::string owner);

  // Durable when it returns. kTooLarge for a payload over the limit.
  base::Result<Job> Add(std::string_view kind, std::string_view payload);

  // Puts a job into a caller's batch for the journal's partition: it is there once that is
  // committed, together with whatever else the batch changes. kTooLarge.
  // `queue` has no slash and at most kMaxQueueBytes: kInvalidArgument.
  base::Result<Job> Prepare(std::string_view kind, std::string_view payload, MetaBatch* batch,
                            std::string_view queue = "");

  // The job of `kind` that `choose` picks of those that are due and that nobody holds, or else the
  // oldest; nothing if there is none.
  base::Result<std::optional<Job>> Claim(std::string_view kind, int64_t lease_ms,
                                         const Choose& choose = nullptr);

  // Of the jobs with a queue, the one that was due first in the queue of which the fewest are held;
  // among such queues the oldest job. Costs what the fronts of the queues cost, however many wait
  // in them; of very many queues some are looked at each time, in turn (kQueuesAtOnce). What
  // another process did may be seen a second later.
  base::Result<std::optional<Job>> ClaimByTurns(std::string_view kind, int64_t lease_ms);

  // Keeps the lease. kConflict: the job is somebody else's now; stop.
  base::Result<void> Renew(Job* job, int64_t lease_ms);

  // Lets the job go: it is due again after `delay_ms`. One that did not fail, but has to wait or
  // was stopped, has not used up an attempt. kConflict.
  base::Result<void> Postpone(const Job& job, int64_t delay_ms, bool failed = true);

  // The job is done: durable when it returns. kConflict.
  base::Result<void> Remove(const Job& job);

  // Makes every job due that another owner holds. REQUIRES: no other process is at work (an
  // embedded store admits one): a start after a crash then need not wait for leases to run out.
  base::Result<void> BreakLeases();

  // Where a job's record is, in the journal's partition.
  static std::string KeyOf(const Job& job);
  // What was read there (nothing: it is gone) still says that the job is held by this claim of it,
  // the lease over or not. kCancelled: somebody else has it, or had it and is done.
  base::Result<void> CheckHeld(const Job& job, const std::optional<std::string>& record) const;

  // All jobs of a kind, oldest first.
  base::Result<std::vector<Job>> List(std::string_view kind);

 private:
  base::Result<void> Replace(const Job& before, const Job& after);
  base::Result<void> ForEach(const std::function<bool(Job)>& visit);
  base::Result<std::optional<Job>> Find(const std::string& id);
  base::Result<std::vector<Job>> HeldInQueues(std::string_view kind);
  base::Result<std::optional<Job>> FirstDue(std::string_view kind, const Turns::Front& front,
                                            int64_t now_us);
  base::Result<std::vector<Job>> FrontJobs(std::string_view kind, int64_t now_us);
  base::Result<void> LookAtQueues(std::string_view kind);

  MetaStore& meta_;
  const base::Clock& clock_;
  const std::string partition_;
  const std::string owner_;
  Turns turns_;
};

}  // namespace chunkstore::jobs
