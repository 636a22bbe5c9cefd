#include "chunkstore/jobs/journal.h"

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
constexpr uint8_t kVersion = 1;
constexpr size_t kScanLimit = 1'000'000;

std::string KeyOf(const Job& job) { return std::string(kPrefix) + job.id; }

std::string Encode(const Job& job) {
  std::string out;
  base::PutFixed<uint8_t>(&out, kVersion);
  base::PutString(&out, job.kind);
  base::PutString(&out, job.payload);
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

Result<Job> Journal::Add(std::string_view kind, std::string_view payload) {
  MetaBatch batch;
  ASSIGN_OR_RETURN(Job job, Prepare(kind, payload, &batch));
  RETURN_IF_ERROR(CommitDurably(meta_, partition_, batch));
  return job;
}

Result<Job> Journal::Prepare(std::string_view kind, std::string_view payload, MetaBatch* batch) {
  if (payload.size() > kMaxPayloadBytes) {
    return Error(Code::kTooLarge, fmt::format("a job's payload of {} bytes; at most {} are allowed",
                                              payload.size(), kMaxPayloadBytes));
  }
  Job job;
  job.created_us = clock_.NowUs();
  job.id = fmt::format("{:016x}-{}", static_cast<uint64_t>(job.created_us), base::NewUuidHex());
  job.kind = kind;
  job.payload = payload;
  batch->ExpectAbsent(KeyOf(job)).Put(KeyOf(job), Encode(job));
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

Result<void> Journal::Renew(Job* job, int64_t lease_ms) {
  Job renewed = *job;
  renewed.lease_until_us = clock_.NowUs() + lease_ms * 1000;
  RETURN_IF_ERROR(Replace(*job, renewed));
  *job = std::move(renewed);
  return {};
}

Result<void> Journal::Postpone(const Job& job, int64_t delay_ms) {
  Job later = job;
  later.owner.clear();
  later.lease_until_us = 0;
  later.not_before_us = clock_.NowUs() + delay_ms * 1000;
  return Replace(job, later);
}

Result<void> Journal::Remove(const Job& job) {
  MetaBatch batch;
  batch.ExpectValue(KeyOf(job), Encode(job)).Delete(KeyOf(job));
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
