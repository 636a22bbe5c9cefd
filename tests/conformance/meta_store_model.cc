#include "tests/conformance/meta_store_model.h"

#include <algorithm>
#include <utility>

#include "tests/support/results.h"

namespace conformance {

using base::Code;
using chunkstore::MetaBatch;

std::string MetaStoreModel::RandomKey() {
  std::string key(random_() % 3, '\0');
  for (char& c : key)
    c = "\x00\x01"
        "ab\xff"[random_() % 5];
  return key;
}

MetaStoreModel::State MetaStoreModel::ReadAll(const std::string& name) {
  State state;
  base::Result<void> result;
  // An injected failure strikes once.
  for (int attempt = 0; attempt < 2; ++attempt) {
    state.clear();
    result = harness_.store().Scan(name, "", "", SIZE_MAX,
                                   [&](std::string_view key, std::string_view value) {
                                     EXPECT_TRUE(state.emplace(key, value).second);
                                     return true;
                                   });
    if (result) break;
    ++failures_;
  }
  EXPECT_OK(result);
  return state;
}

void MetaStoreModel::CommitSomething(const std::string& name, Partition& partition) {
  const State& now = partition.since_sync.back();
  State after = now;
  MetaBatch batch;
  bool holds = true;
  for (uint64_t i = random_() % 3; i > 0; --i) {
    std::string key = RandomKey();
    auto found = now.find(key);
    bool lie = random_() % 8 == 0;
    if (found == now.end()) {
      lie ? batch.ExpectValue(key, "x") : batch.ExpectAbsent(key);
    } else {
      lie ? batch.ExpectAbsent(key) : batch.ExpectValue(key, found->second);
    }
    holds = holds && !lie;
  }
  for (uint64_t i = 1 + random_() % 3; i > 0; --i) {
    std::string key = RandomKey();
    if (random_() % 3 == 0) {
      batch.Delete(key);
      after.erase(key);
    } else {
      std::string value(random_() % 2000, 'v');
      value += std::to_string(next_value_++);
      batch.Put(key, value);
      after[key] = value;
    }
  }
  auto result = harness_.store().Commit(name, batch);
  if (!holds) {
    if (!result && result.error().code() != Code::kConflict) {
      ++failures_;
    } else {
      EXPECT_ERROR(result, Code::kConflict);
    }
    return;
  }
  if (!result) {
    ++failures_;
    State found = ReadAll(name);
    EXPECT_TRUE(found == now || found == after) << "a commit that failed did a part";
    if (found == now) return;
  }
  partition.since_sync.push_back(std::move(after));
}

void MetaStoreModel::ReadSomething(const std::string& name, const State& now) {
  std::string key = RandomKey();
  auto result = harness_.store().Get(name, key);
  auto expected = now.find(key);
  if (result) {
    ASSERT_TRUE(expected != now.end()) << "a key that is not there was read";
    EXPECT_EQ(*result, expected->second);
  } else if (result.error().code() == Code::kNotFound) {
    EXPECT_TRUE(expected == now.end()) << "a key that is there was not found";
  } else {
    ++failures_;
  }
}

void MetaStoreModel::ScanSomething(const std::string& name, const State& now) {
  std::string from = RandomKey();
  std::string to = RandomKey();
  size_t limit = 1 + random_() % 6;
  bool reverse = random_() % 2 == 0;
  std::vector<std::pair<std::string, std::string>> expected;
  for (const auto& entry : now) {
    if (entry.first >= from && (to.empty() || entry.first < to)) expected.push_back(entry);
  }
  if (reverse) std::reverse(expected.begin(), expected.end());
  if (expected.size() > limit) expected.resize(limit);

  std::vector<std::pair<std::string, std::string>> found;
  auto visit = [&](std::string_view key, std::string_view value) {
    found.emplace_back(key, value);
    return true;
  };
  auto result = reverse ? harness_.store().ScanReverse(name, from, to, limit, visit)
                        : harness_.store().Scan(name, from, to, limit, visit);
  if (!result) {
    ++failures_;
    return;
  }
  EXPECT_EQ(found, expected);
}

void MetaStoreModel::SyncAll() {
  if (!harness_.store().Sync()) {
    ++failures_;
    return;
  }
  for (auto& [name, partition] : partitions_) {
    partition.since_sync.erase(partition.since_sync.begin(), partition.since_sync.end() - 1);
  }
}

void MetaStoreModel::RunSteps(int count) {
  const std::string kNames[] = {"p", "p/1", std::string("p\0", 2), "q"};
  for (int i = 0; i < count; ++i) {
    const std::string& name = kNames[random_() % 4];
    Partition& partition = partitions_[name];
    uint64_t dice = random_() % 10;
    if (dice < 5) {
      CommitSomething(name, partition);
    } else if (dice < 7) {
      ReadSomething(name, partition.since_sync.back());
    } else if (dice < 9) {
      ScanSomething(name, partition.since_sync.back());
    } else {
      SyncAll();
    }
  }
}

void MetaStoreModel::CrashAndCompare() {
  harness_.Crash(random_());
  std::vector<std::string> names;
  for (auto& [name, partition] : partitions_) {
    State found = ReadAll(name);
    auto& states = partition.since_sync;
    ASSERT_TRUE(std::find(states.begin(), states.end(), found) != states.end())
        << "after a crash a partition is as it never was, or as it was before a sync";
    if (!found.empty()) names.push_back(name);
    states = {std::move(found)};
  }
  EXPECT_EQ(harness_.store().Partitions("").value(), names);
}

}  // namespace conformance
