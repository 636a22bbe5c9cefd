#include "chunkstore/jobs/journal.h"

#include <algorithm>
#include <map>
#include <utility>

#include <fmt/format.h>

#include "base/coding.h"
#include "base/uuid.h"

namespace chunkstore::jobs {

using base::Code;
using base::Error;
using base::Result;

namespace {

constexpr std::string_view kPrefix = "j/";
constexpr uint8_t kVersion = 2;
constexpr size_t kScanLimit = 1'000'000;

constexpr size_t kTimeDigits = 16;

std::string WaitingPrefix(std::string_view kind) { return fmt::format("jq/{}/", kind); }
std::string HeldPrefix(std::string_view kind) { return fmt::format("jh/{}/", kind); }

// Of a job with a queue.
std::string IndexKey(const Job& job) {
  if (!job.owner.empty()) return HeldPrefix(job.kind) + job.queue + "/" + job.id;
  const int64_t due_us = std::max(job.not_before_us, job.created_us);
  return fmt::format("{}{}/{:016x}{}", WaitingPrefix(job.kind), job.queue,
                     static_cast<uint64_t>(due_us), job.id);
}

// From "jq/<kind>/" on: the queue, and what stands behind its slash.
struct IndexEntry {
  std::string_view queue;
  std::string_view rest;
};
IndexEntry ParseIndexKey(std::string_view key, size_t prefix_bytes) {
  key.remove_prefix(std::min(prefix_bytes, key.size()));
  const size_t slash = std::min(key.find('/'), key.size());
  return {key.substr(0, slash), key.substr(std::min(slash + 1, key.size()))};
}

std::string Encode(const Job& job) {
  std::string out;
  base::PutFixed<uint8_t>(&out, kVersion);
  base::PutString(&out, job.kind);
  base::PutString(&out, job.payload);
  base::PutString(&out, job.queue);
  base::PutFixed<uint64_t>(&out, static_cast<uint64_t>(job.created_us));
  base::PutFixed<uint64_t>(&out, static_cast<uint64_t>(job.not_before_us));
  base::PutFixed<uint64_t>(&out, static_cast<uint64_t>(job.lease_until_us));
  base::PutString(&out, job.owner);
  base::PutVarint(&out, static_cast<uint64_t>(job.attempts));
  return out;
}

Result<Job> Decode(std::string_view key, std::string_view bytes) {
  Job job;
  job.id = key.substr(kPrefix.size());
  base::Decoder in(bytes);
  ASSIGN_OR_RETURN(uint8_t version, in.Fixed<uint8_t>());
  if (version != kVersion) {
    return Error(Code::kCorruption, fmt::format("job {} is of an unknown version", job.id));
  }
  ASSIGN_OR_RETURN(job.kind, in.String());
  ASSIGN_OR_RETURN(job.payload, in.String());
  ASSIGN_OR_RETURN(job.queue, in.String());
  ASSIGN_OR_RETURN(uint64_t created, in.Fixed<uint64_t>());
  ASSIGN_OR_RETURN(uint64_t not_before, in.Fixed<uint64_t>());
  ASSIGN_OR_RETURN(uint64_t lease, in.Fixed<uint64_t>());
  ASSIGN_OR_RETURN(job.owner, in.String());
  ASSIGN_OR_RETURN(uint64_t attempts, in.Varint());
  RETURN_IF_ERROR(in.ExpectEnd());
  job.created_us = static_cast<int64_t>(created);
  job.not_before_us = static_cast<int64_t>(not_before);
  job.lease_until_us = static_cast<int64_t>(lease);
  job.attempts = static_cast<int>(attempts);
  return job;
}

}  // namespace

Journal::Journal(MetaStore& meta, const base::Clock& clock, std::string partition,
                 std::string owner)
    : meta_(meta), clock_(clock), partition_(std::move(partition)), owner_(std::move(owner)) {}

std::string Journal::KeyOf(const Job& job) { return std::string(kPrefix) + job.id; }

Result<void> Journal::CheckHeld(const Job& job, const std::optional<std::string>& record) const {
  if (record.has_value()) {
    ASSIGN_OR_RETURN(const Job now, Decode(KeyOf(job), *record));
    if (now.owner == owner_ && now.attempts == job.attempts) return {};
  }
  return Error(Code::kCancelled, fmt::format("job {} was taken over meanwhile", job.id));
}

Result<Job> Journal::Add(std::string_view kind, std::string_view payload) {
  MetaBatch batch;
  ASSIGN_OR_RETURN(Job job, Prepare(kind, payload, &batch));
  RETURN_IF_ERROR(CommitDurably(meta_, partition_, batch));
  return job;
}

Result<Job> Journal::Prepare(std::string_view kind, std::string_view payload, MetaBatch* batch,
                             std::string_view queue) {
  if (queue.size() > kMaxQueueBytes || queue.find('/') != std::string_view::npos)
    return Error(Code::kInvalidArgument, "a queue's name has at most 128 bytes, and no slash");
  if (payload.size() > kMaxPayloadBytes) {
    return Error(Code::kTooLarge, fmt::format("a job's payload of {} bytes; at most {} are allowed",
                                              payload.size(), kMaxPayloadBytes));
  }
  Job job;
  job.created_us = clock_.NowUs();
  job.id = fmt::format("{:016x}-{}", static_cast<uint64_t>(job.created_us), base::NewUuidHex());
  job.kind = kind;
  job.payload = payload;
  job.queue = queue;
  batch->ExpectAbsent(KeyOf(job)).Put(KeyOf(job), Encode(job));
  if (queue.empty()) return job;
  const std::string index_key = IndexKey(job);
  turns_.Note(kind, queue, index_key, clock_.MonotonicNs());
  batch->Put(index_key, "");
  return job;
}

Result<std::optional<Job>> Journal::Claim(std::string_view kind, int64_t lease_ms,
                                          const Choose& choose) {
  for (;;) {
    int64_t now = clock_.NowUs();
    std::vector<Job> held;
    std::vector<Job> due;
    RETURN_IF_ERROR(ForEach([&](Job job) {
      bool is_held = !job.owner.empty() && job.lease_until_us > now;
      bool is_due = !is_held && job.not_before_us <= now;
      if (job.kind == kind && (is_held || is_due)) (is_held ? held : due).push_back(std::move(job));
      return true;
    }));
    std::optional<size_t> chosen;
    if (choose) {
      chosen = choose(held, due);
    } else if (!due.empty()) {
      chosen = 0;
    }
    if (!chosen.has_value()) return std::optional<Job>();
    const Job& job = due[*chosen];
    Job mine = job;
    mine.owner = owner_;
    mine.lease_until_us = now + lease_ms * 1000;
    ++mine.attempts;
    Result<void> taken = Replace(job, mine);
    if (taken.has_value()) return std::optional<Job>(std::move(mine));
    // Somebody was faster.
    if (taken.error().code() != Code::kConflict) return taken.error();
  }
}

Result<std::optional<Job>> Journal::Find(const std::string& id) {
  const std::string key = std::string(kPrefix) + id;
  const Result<std::string> bytes = meta_.Get(partition_, key);
  if (!bytes.has_value() && bytes.error().code() == Code::kNotFound) return std::optional<Job>();
  if (!bytes.has_value()) return bytes.error();
  ASSIGN_OR_RETURN(Job job, Decode(key, *bytes));
  return std::optional<Job>(std::move(job));
}

Result<std::vector<Job>> Journal::HeldInQueues(std::string_view kind) {
  const std::string prefix = HeldPrefix(kind);
  std::vector<std::string> ids;
  RETURN_IF_ERROR(meta_.Scan(partition_, prefix, PrefixEnd(prefix), kScanLimit,
                             [&](std::string_view key, std::string_view) {
                               ids.emplace_back(ParseIndexKey(key, prefix.size()).rest);
                               return true;
                             }));
  std::vector<Job> held;
  for (const std::string& id : ids) {
    ASSIGN_OR_RETURN(std::optional<Job> job, Find(id));
    if (job.has_value()) held.push_back(*std::move(job));
  }
  return held;
}

// Nothing: the queue is empty, or its first job is not due yet.
Result<std::optional<Job>> Journal::FirstDue(std::string_view kind, const Turns::Front& front,
                                             int64_t now_us) {
  const std::string prefix = WaitingPrefix(kind) + front.queue + "/";
  std::string first;
  RETURN_IF_ERROR(meta_.Scan(partition_, std::max(prefix, front.from), PrefixEnd(prefix), 1,
                             [&](std::string_view key, std::string_view) {
                               first = key;
                               return false;
                             }));
  if (first.empty()) return std::optional<Job>();
  turns_.Advance(kind, front.queue, front.from, first);
  const std::string id = first.substr(std::min(first.size(), prefix.size() + kTimeDigits));
  ASSIGN_OR_RETURN(std::optional<Job> job, Find(id));
  if (job.has_value() && (!job->owner.empty() || job->not_before_us > now_us)) job.reset();
  return job;
}

Result<std::vector<Job>> Journal::FrontJobs(std::string_view kind, int64_t now_us) {
  std::vector<Job> due;
  const size_t queues = turns_.Count(kind);
  std::string behind = turns_.Last(kind);
  for (size_t seen = 0; seen < queues && due.empty();) {
    const auto fronts = turns_.Behind(kind, behind, std::min(kQueuesAtOnce, queues - seen));
    if (fronts.empty()) break;
    for (const Turns::Front& front : fronts) {
      ASSIGN_OR_RETURN(std::optional<Job> job, FirstDue(kind, front, now_us));
      if (job.has_value()) due.push_back(*std::move(job));
    }
    seen += fronts.size();
    behind = fronts.back().queue;
  }
  return due;
}

// One step for each queue, whatever is in it.
Result<void> Journal::LookAtQueues(std::string_view kind) {
  const std::string prefix = WaitingPrefix(kind);
  const int64_t now_ns = clock_.MonotonicNs();
  std::vector<Turns::Front> fronts;
  for (std::string from = prefix;;) {
    std::string first;
    RETURN_IF_ERROR(meta_.Scan(partition_, from, PrefixEnd(prefix), 1,
                               [&](std::string_view key, std::string_view) {
                                 first = key;
                                 return false;
                               }));
    if (first.empty()) break;
    const std::string queue(ParseIndexKey(first, prefix.size()).queue);
    from = PrefixEnd(prefix + queue + "/");
    fronts.push_back({queue, std::move(first)});
  }
  ASSIGN_OR_RETURN(const std::vector<Job> jobs, HeldInQueues(kind));
  std::vector<Turns::Held> held;
  for (const Job& job : jobs)
    held.push_back({job.id, job.queue, job.lease_until_us, job.owner == owner_});
  turns_.Found(kind, fronts, std::move(held), now_ns);
  return {};
}

Result<std::optional<Job>> Journal::ClaimByTurns(std::string_view kind, int64_t lease_ms) {
  bool has_looked = turns_.IsStale(kind, clock_.MonotonicNs());
  if (has_looked) RETURN_IF_ERROR(LookAtQueues(kind));
  for (;;) {
    const int64_t now_us = clock_.NowUs();
    ASSIGN_OR_RETURN(std::vector<Job> due, FrontJobs(kind, now_us));
    std::map<std::string, size_t, std::less<>> at_work;
    for (const Turns::Held& job : turns_.OursHeld(kind)) ++at_work[job.queue];
    for (const Turns::Held& seen : turns_.FoundHeld(kind)) {
      if (seen.lease_until_us > now_us) {
        at_work[seen.queue] += seen.ours ? 0 : 1;
        continue;
      }
      ASSIGN_OR_RETURN(std::optional<Job> job, Find(seen.id));
      const bool over = job.has_value() && !job->owner.empty() && job->lease_until_us <= now_us;
      if (over) due.push_back(*std::move(job));
    }
    if (due.empty() && has_looked) return std::optional<Job>();
    if (due.empty()) {
      has_looked = true;
      RETURN_IF_ERROR(LookAtQueues(kind));
      continue;
    }
    const auto next = std::min_element(due.begin(), due.end(), [&](const Job& a, const Job& b) {
      const size_t of_a = at_work[a.queue];
      const size_t of_b = at_work[b.queue];
      return of_a != of_b ? of_a < of_b : a.id < b.id;
    });
    Job mine = *next;
    mine.owner = owner_;
    mine.lease_until_us = now_us + lease_ms * 1000;
    ++mine.attempts;
    const Result<void> taken = Replace(*next, mine);
    if (taken.has_value()) {
      turns_.HadItsTurn(kind, mine.queue);
      turns_.Took(kind, mine.id, mine.queue);
      return std::optional<Job>(std::move(mine));
    }
    // Somebody was faster.
    if (taken.error().code() != Code::kConflict) return taken.error();
  }
}

Result<void> Journal::Renew(Job* job, int64_t lease_ms) {
  Job renewed = *job;
  renewed.lease_until_us = clock_.NowUs() + lease_ms * 1000;
  RETURN_IF_ERROR(Replace(*job, renewed));
  *job = std::move(renewed);
  return {};
}

Result<void> Journal::Postpone(const Job& job, int64_t delay_ms, bool failed) {
  Job later = job;
  if (!failed && later.attempts > 0) --later.attempts;
  later.owner.clear();
  later.lease_until_us = 0;
  later.not_before_us = clock_.NowUs() + delay_ms * 1000;
  turns_.LetGo(job.kind, job.id);
  return Replace(job, later);
}

Result<void> Journal::Remove(const Job& job) {
  MetaBatch batch;
  batch.ExpectValue(KeyOf(job), Encode(job)).Delete(KeyOf(job));
  if (!job.queue.empty()) batch.Delete(IndexKey(job));
  turns_.LetGo(job.kind, job.id);
  return CommitDurably(meta_, partition_, batch);
}

Result<void> Journal::BreakLeases() {
  std::vector<Job> held;
  RETURN_IF_ERROR(ForEach([&](Job job) {
    if (!job.owner.empty() && job.owner != owner_) held.push_back(std::move(job));
    return true;
  }));
  for (const Job& job : held) {
    Job free = job;
    free.owner.clear();
    free.lease_until_us = 0;
    RETURN_IF_ERROR(Replace(job, free));
  }
  return {};
}

Result<std::vector<Job>> Journal::List(std::string_view kind) {
  std::vector<Job> jobs;
  RETURN_IF_ERROR(ForEach([&](Job job) {
    if (job.kind == kind) jobs.push_back(std::move(job));
    return true;
  }));
  return jobs;
}

Result<void> Journal::Replace(const Job& before, const Job& after) {
  MetaBatch batch;
  batch.ExpectValue(KeyOf(before), Encode(before)).Put(KeyOf(before), Encode(after));
  if (!after.queue.empty()) {
    const std::string from = IndexKey(before);
    const std::string to = IndexKey(after);
    if (from != to) batch.Delete(from).Put(to, "");
    if (from != to && after.owner.empty())
      turns_.Note(after.kind, after.queue, to, clock_.MonotonicNs());
  }
  return meta_.Commit(partition_, batch);
}

Result<void> Journal::ForEach(const std::function<bool(Job)>& visit) {
  Result<void> decoded;
  RETURN_IF_ERROR(meta_.Scan(partition_, kPrefix, PrefixEnd(kPrefix), kScanLimit,
                             [&](std::string_view key, std::string_view value) {
                               Result<Job> job = Decode(key, value);
                               if (!job.has_value()) {
                                 decoded = job.error();
                                 return false;
                               }
                               return visit(std::move(*job));
                             }));
  return decoded;
}

}  // namespace chunkstore::jobs
