#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/json.h"
#include "base/result.h"
#include "chunkstore/meta_store.h"

namespace controlplane::admin {

// What processes that share a store know of each other's operations: any of them answers for all,
// and one of a kind runs at a time. Partition "admin":
//   o/<id>     the state as its process wrote it last, as Operations::Describe gives it, with
//              "seen_at_us"; a running one that is older than kOperationLeaseUs is dead
//   k/<kind>   the id of the one that runs
//   c/<id>     it is to end
// Not synced: an operation does not outlive its process. Thread-safe.
class SharedOperations {
 public:
  static constexpr int64_t kOperationLeaseUs = 30 * base::kSecondUs;
  static constexpr int64_t kReportUs = base::kSecondUs;  // how often the state is written
  static constexpr size_t kMaxKept = 64;                 // then the oldest that ended goes

  // Both are borrowed and outlive it.
  SharedOperations(chunkstore::MetaStore& meta, const base::Clock& clock)
      : meta_(meta), clock_(clock) {}

  // kConflict, naming the one that runs.
  base::Result<void> Begin(const std::string& kind, const std::string& id, const base::Json& state);
  // Of one that runs here. False: it is to end, or was held for dead.
  base::Result<bool> Report(const std::string& kind, const std::string& id,
                            const base::Json& state);
  base::Result<void> End(const std::string& kind, const std::string& id, const base::Json& state);

  // kNotFound.
  base::Result<base::Json> Describe(std::string_view id);
  base::Result<std::vector<base::Json>> DescribeAll();
  // kNotFound; fine if it has ended.
  base::Result<void> Cancel(std::string_view id);

 private:
  std::string Encode(const base::Json& state) const;
  base::Result<base::Json> Decode(std::string_view bytes) const;
  base::Result<void> ForgetOld();

  chunkstore::MetaStore& meta_;
  const base::Clock& clock_;
};

// Something that one of several processes does now and then. Thread-safe.
class SharedTurn {
 public:
  // `meta` may be null: there are no others. Both are borrowed and outlive it.
  SharedTurn(chunkstore::MetaStore* meta, const base::Clock& clock, std::string what)
      : meta_(meta), clock_(clock), key_("t/" + std::move(what)) {}

  // True: nobody had it within `for_ms`, and now we have. Partition "admin", key "t/<what>".
  base::Result<bool> Take(int64_t for_ms);

 private:
  chunkstore::MetaStore* const meta_;
  const base::Clock& clock_;
  const std::string key_;
};

}  // namespace controlplane::admin
