#pragma once

#include <string>

#include "base/json.h"
#include "chunkstore/chunk_store.h"

// What the store's maintenance answers, as JSON (for the admin API and --json) and as lines for a
// person. One form serves both: a command prints the same summary whether a running service or the
// command itself did the work.

namespace controlplane::admin {

base::Json ToJson(const chunkstore::CollectReport& report);
base::Json ToJson(const chunkstore::ScrubReport& report);
base::Json ToJson(const chunkstore::RebuildReport& report);
base::Json ToJson(const chunkstore::StoreStats& stats);
base::Json ToJson(const chunkstore::HolderStats& stats);

// Lines, each ended by a newline. Each takes the JSON that its ToJson made.
std::string DescribeCollect(const base::Json& report);
std::string DescribeScrub(const base::Json& report);
std::string DescribeRebuild(const base::Json& report);
std::string DescribeStats(const base::Json& stats);
std::string DescribeHolderStats(const base::Json& stats);

}  // namespace controlplane::admin
