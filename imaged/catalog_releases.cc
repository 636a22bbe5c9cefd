#include <utility>

#include "base/text.h"
#include "imaged/catalog.h"
#include "imaged/index.h"

// Holders in the chunk store that no record names any more.

namespace imaged {

using base::Code;
using base::Result;
using chunkstore::MetaBatch;

Result<std::vector<Catalog::PendingRelease>> Catalog::PendingReleases(size_t limit) {
  std::vector<PendingRelease> pending;
  auto visit = [&](std::string_view key, std::string_view value) {
    pending.push_back({std::string(key.substr(kReleasePrefix.size())),
                       base::ParseNumber<int64_t>(value).value_or(0)});
    return true;
  };
  RETURN_IF_ERROR(meta_.Scan(kImagesPartition, kReleasePrefix,
                             chunkstore::PrefixEnd(kReleasePrefix), limit, visit));
  return pending;
}

Result<void> Catalog::PutOffRelease(const PendingRelease& pending) {
  std::string key = ReleaseKey(pending.holder);
  Result<std::string> present = meta_.Get(kImagesPartition, key);
  if (!present.has_value())
    return present.error().code() == Code::kNotFound ? Result<void>() : present.error();
  MetaBatch batch;
  batch.ExpectValue(key, *std::move(present)).Put(key, std::to_string(clock_.NowUs()));
  const Result<void> done = meta_.Commit(kImagesPartition, batch);
  // Another process reads it as well, or let it go.
  if (!done.has_value() && done.error().code() == Code::kConflict) return {};
  return done;
}

Result<bool> Catalog::IsReleasePending(std::string_view holder) {
  const Result<std::string> present = meta_.Get(kImagesPartition, ReleaseKey(holder));
  if (present.has_value()) return true;
  if (present.error().code() == Code::kNotFound) return false;
  return present.error();
}

Result<void> Catalog::ForgetRelease(std::string_view holder) {
  MetaBatch batch;
  batch.Delete(ReleaseKey(holder));
  return meta_.Commit(kImagesPartition, batch);
}

}  // namespace imaged
