#pragma once

#include <map>
#include <random>
#include <string>
#include <vector>

#include "tests/conformance/meta_store_suite.h"

namespace conformance {

// Runs random operations against a MetaStore and a std::map, and compares. Knows what a crash may
// do: each partition comes back as it was after some commit, none older than the last Sync. One
// thread.
class MetaStoreModel {
 public:
  // Borrows the harness.
  MetaStoreModel(MetaStoreHarness& harness, uint64_t seed) : harness_(harness), random_(seed) {}

  // Commits, conflicts, reads, scans and syncs. An operation that fails by injection may or may not
  // have happened.
  void RunSteps(int count);
  // Crashes the store, checks that each partition is in a state that it may be in, and goes on from
  // there.
  void CrashAndCompare();
  // Operations that failed other than by what the model expects.
  int failures() const { return failures_; }

 private:
  using State = std::map<std::string, std::string>;
  struct Partition {
    std::vector<State> since_sync = {State()};  // the last is now
  };

  void CommitSomething(const std::string& name, Partition& partition);
  void ReadSomething(const std::string& name, const State& now);
  void ScanSomething(const std::string& name, const State& now);
  void SyncAll();
  std::string RandomKey();
  State ReadAll(const std::string& name);

  MetaStoreHarness& harness_;
  std::mt19937_64 random_;
  std::map<std::string, Partition> partitions_;
  int failures_ = 0;
  uint64_t next_value_ = 0;
};

}  // namespace conformance
