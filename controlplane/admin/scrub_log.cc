#include "controlplane/admin/scrub_log.h"

#include <algorithm>
#include <optional>
#include <string>

#include "base/text.h"

namespace controlplane::admin {
namespace {

constexpr char kPartition[] = "admin";
constexpr char kScrubbedAtKey[] = "scrubbed_at";
constexpr int64_t kUsPerMs = 1000;

}  // namespace

base::Result<int64_t> ScrubLog::DueInMs(int64_t interval_ms) {
  const base::Result<std::string> text = meta_.Get(kPartition, kScrubbedAtKey);
  if (!text.has_value() && text.error().code() != base::Code::kNotFound) return text.error();
  if (!text.has_value()) {
    RETURN_IF_ERROR(Ended());
    return interval_ms;
  }
  const std::optional<int64_t> scrubbed_at_us = base::ParseNumber<int64_t>(*text);
  if (!scrubbed_at_us.has_value())
    return base::Error(base::Code::kCorruption, "the time of the last scrub can't be read");
  // A clock that was wrong and set back must not put it off for years.
  const int64_t age_ms = std::max<int64_t>(0, (clock_.NowUs() - *scrubbed_at_us) / kUsPerMs);
  return std::max<int64_t>(0, interval_ms - age_ms);
}

base::Result<void> ScrubLog::Ended() {
  chunkstore::MetaBatch batch;
  batch.Put(kScrubbedAtKey, std::to_string(clock_.NowUs()));
  return chunkstore::CommitDurably(meta_, kPartition, batch);
}

}  // namespace controlplane::admin
