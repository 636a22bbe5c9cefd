#include "tests/conformance/meta_store_suite.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <thread>
#include <utility>
#include <vector>

#include "tests/conformance/meta_store_model.h"
#include "tests/support/results.h"

namespace conformance {

using base::Code;
using chunkstore::MetaBatch;
using chunkstore::MetaStore;

namespace {

using Keys = std::vector<std::string>;

Keys ScanKeys(MetaStore& store, std::string_view partition, std::string_view from,
              std::string_view to, size_t limit = SIZE_MAX) {
  Keys keys;
  EXPECT_OK(store.Scan(partition, from, to, limit, [&](std::string_view key, std::string_view) {
    keys.emplace_back(key);
    return true;
  }));
  return keys;
}

Keys ScanKeysReverse(MetaStore& store, std::string_view partition, std::string_view from,
                     std::string_view to, size_t limit = SIZE_MAX) {
  Keys keys;
  EXPECT_OK(
      store.ScanReverse(partition, from, to, limit, [&](std::string_view key, std::string_view) {
        keys.emplace_back(key);
        return true;
      }));
  return keys;
}

const std::string kZero("\0", 1);
const std::string kHigh("\xff");

}  // namespace

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(MetaStoreSuite);

TEST_P(MetaStoreSuite, CommitsAndReads) {
  EXPECT_ERROR(store().Get("p", "k"), Code::kNotFound);
  ASSERT_OK(store().Commit("p", MetaBatch().Put("k", "1").Put("l", "2").Put("empty", "")));
  EXPECT_EQ(store().Get("p", "k").value(), "1");
  EXPECT_EQ(store().Get("p", "empty").value(), "");
  EXPECT_ERROR(store().Get("q", "k"), Code::kNotFound);
  ASSERT_OK(store().Commit("p", MetaBatch().Delete("k").Delete("never was")));
  EXPECT_ERROR(store().Get("p", "k"), Code::kNotFound);
  EXPECT_EQ(store().Get("p", "l").value(), "2");
}

TEST_P(MetaStoreSuite, ChangesOfABatchHappenInOrder) {
  ASSERT_OK(store().Commit("p", MetaBatch().Put("k", "1").Delete("k").Put("k", "2")));
  EXPECT_EQ(store().Get("p", "k").value(), "2");
  ASSERT_OK(store().Commit("p", MetaBatch().Put("k", "3").Delete("k")));
  EXPECT_ERROR(store().Get("p", "k"), Code::kNotFound);
}

TEST_P(MetaStoreSuite, AnExpectationThatFailsChangesNothing) {
  ASSERT_OK(store().Commit("p", MetaBatch().ExpectAbsent("k").Put("k", "1")));
  EXPECT_ERROR(store().Commit("p", MetaBatch().ExpectAbsent("k").Put("k", "2").Put("l", "2")),
               Code::kConflict);
  EXPECT_ERROR(store().Commit("p", MetaBatch().ExpectValue("k", "2").Delete("k")), Code::kConflict);
  EXPECT_ERROR(store().Commit("p", MetaBatch().ExpectValue("absent", "").Delete("k")),
               Code::kConflict);
  // All must hold, whatever their order.
  EXPECT_ERROR(
      store().Commit("p", MetaBatch().ExpectValue("k", "1").ExpectAbsent("k").Put("l", "")),
      Code::kConflict);
  EXPECT_EQ(store().Get("p", "k").value(), "1");
  EXPECT_ERROR(store().Get("p", "l"), Code::kNotFound);
  ASSERT_OK(store().Commit("p", MetaBatch().ExpectValue("k", "1").ExpectAbsent("l").Put("k", "2")));
  EXPECT_EQ(store().Get("p", "k").value(), "2");
  EXPECT_OK(store().Commit("p", MetaBatch().ExpectValue("k", "2")));
  EXPECT_ERROR(store().Commit("p", MetaBatch().ExpectAbsent("k")), Code::kConflict);
}

TEST_P(MetaStoreSuite, KeysAreAnyBytesInTheirOrder) {
  Keys sorted = {"",          kZero, kZero + kZero, kZero + "a", kZero + kHigh, "a",
                 "a" + kZero, "ab",  "b",           kHigh,       kHigh + kZero, kHigh + kHigh};
  MetaBatch batch;
  for (auto key = sorted.rbegin(); key != sorted.rend(); ++key) batch.Put(*key, "of " + *key);
  ASSERT_OK(store().Commit("p", batch));
  EXPECT_EQ(ScanKeys(store(), "p", "", ""), sorted);
  Keys reversed(sorted.rbegin(), sorted.rend());
  EXPECT_EQ(ScanKeysReverse(store(), "p", "", ""), reversed);
  for (const std::string& key : sorted) EXPECT_EQ(store().Get("p", key).value(), "of " + key);
}

TEST_P(MetaStoreSuite, ScansRangesWithinLimits) {
  MetaBatch batch;
  Keys all;
  for (int i = 100; i < 400; ++i) all.push_back("k" + std::to_string(i));
  for (const std::string& key : all) batch.Put(key, "");
  ASSERT_OK(store().Commit("p", batch));
  EXPECT_EQ(ScanKeys(store(), "p", "", ""), all);
  EXPECT_EQ(ScanKeys(store(), "p", "k150", "k153"), (Keys{"k150", "k151", "k152"}));
  EXPECT_EQ(ScanKeys(store(), "p", "k1505", "k153", 1), (Keys{"k151"}));
  EXPECT_EQ(ScanKeysReverse(store(), "p", "k150", "k153"), (Keys{"k152", "k151", "k150"}));
  EXPECT_EQ(ScanKeysReverse(store(), "p", "k398", "", 2), (Keys{"k399", "k398"}));
  EXPECT_TRUE(ScanKeys(store(), "p", "k2", "k2").empty());
  EXPECT_TRUE(ScanKeys(store(), "p", "k3", "k2").empty());
  EXPECT_TRUE(ScanKeysReverse(store(), "p", "k3", "k2").empty());
  EXPECT_TRUE(ScanKeys(store(), "p", "", "", 0).empty());
  EXPECT_TRUE(ScanKeysReverse(store(), "p", "", "", 0).empty());
  EXPECT_EQ(ScanKeys(store(), "p", "", "", 200).size(), 200u);
  EXPECT_EQ(ScanKeysReverse(store(), "p", "", "", 200).size(), 200u);
  EXPECT_TRUE(ScanKeys(store(), "other", "", "").empty());
  int visits = 0;
  ASSERT_OK(store().Scan("p", "", "", 100,
                         [&](std::string_view, std::string_view) { return ++visits < 3; }));
  EXPECT_EQ(visits, 3);
}

TEST_P(MetaStoreSuite, AVisitorMayCallTheStore) {
  MetaBatch batch;
  for (int i = 0; i < 200; ++i) batch.Put("k" + std::to_string(i), "v");
  ASSERT_OK(store().Commit("p", batch));
  int visits = 0;
  ASSERT_OK(store().Scan("p", "", "", SIZE_MAX, [&](std::string_view key, std::string_view) {
    ++visits;
    EXPECT_OK(store().Commit("p", MetaBatch().Delete(std::string(key))));
    return true;
  }));
  EXPECT_EQ(visits, 200);
  EXPECT_TRUE(ScanKeys(store(), "p", "", "").empty());
}

TEST_P(MetaStoreSuite, PartitionsAreApart) {
  Keys names = {"a", "a" + kZero, "a" + kZero + "b", "a/1", "a/10", "a/2", "ab", "b" + kHigh, "c"};
  std::sort(names.begin(), names.end());
  for (const std::string& name : names) {
    ASSERT_OK(store().Commit(name, MetaBatch().Put("", name).Put(kHigh, name).Put("x", name)));
  }
  EXPECT_EQ(store().Partitions("").value(), names);
  EXPECT_EQ(store().Partitions("a/").value(), (Keys{"a/1", "a/10", "a/2"}));
  EXPECT_EQ(store().Partitions("b").value(), (Keys{"b" + kHigh}));
  EXPECT_TRUE(store().Partitions("d").value().empty());
  for (const std::string& name : names) {
    EXPECT_EQ(ScanKeys(store(), name, "", ""), (Keys{"", "x", kHigh}));
    EXPECT_EQ(store().Get(name, "x").value(), name);
  }
  ASSERT_OK(store().Commit("a/10", MetaBatch().Delete("").Delete("x").Delete(kHigh)));
  EXPECT_EQ(store().Partitions("a/").value(), (Keys{"a/1", "a/2"}));
}

TEST_P(MetaStoreSuite, LimitsAreClearErrors) {
  auto commit = [&](std::string_view partition, size_t key, size_t value) {
    return store().Commit(partition,
                          MetaBatch().Put(std::string(key, 'k'), std::string(value, 'v')));
  };
  EXPECT_ERROR(commit("p", MetaStore::kMaxKeyBytes + 1, 1), Code::kTooLarge);
  EXPECT_ERROR(commit("p", 1, MetaStore::kMaxValueBytes + 1), Code::kTooLarge);
  EXPECT_ERROR(commit("", 1, 1), Code::kInvalidArgument);
  EXPECT_ERROR(commit(std::string(MetaStore::kMaxPartitionBytes + 1, 'p'), 1, 1),
               Code::kInvalidArgument);
  ASSERT_OK(commit(std::string(MetaStore::kMaxPartitionBytes, 'p'), MetaStore::kMaxKeyBytes,
                   MetaStore::kMaxValueBytes));
  EXPECT_EQ(store().Partitions("").value().size(), 1u);
}

TEST_P(MetaStoreSuite, OneOfManyWritersWinsEachRound) {
  constexpr int kThreads = 4, kRounds = 200;
  ASSERT_OK(store().Commit("p", MetaBatch().Put("counter", "0")));
  std::vector<std::thread> threads;
  std::atomic<int> conflicts = 0;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (int done = 0; done < kRounds;) {
        std::string value = store().Get("p", "counter").value();
        std::string next = std::to_string(std::stoi(value) + 1);
        auto result =
            store().Commit("p", MetaBatch().ExpectValue("counter", value).Put("counter", next));
        if (result) {
          ++done;
          if (done % 50 == 0) EXPECT_OK(store().Sync());
        } else {
          EXPECT_ERROR(result, Code::kConflict);
          ++conflicts;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(store().Get("p", "counter").value(), std::to_string(kThreads * kRounds));
}

TEST_P(MetaStoreSuite, SyncsAtOnce) {
  constexpr int kThreads = 8, kEach = 20;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        std::string key = std::to_string(t * kEach + i);
        EXPECT_OK(CommitDurably(store(), "p", MetaBatch().Put(key, key)));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  harness_->Crash(1);
  EXPECT_EQ(ScanKeys(store(), "p", "", "").size(), size_t{kThreads * kEach});
}

TEST_P(MetaStoreSuite, DoesWhatAModelDoesOverCrashes) {
  for (uint64_t seed = 0; seed < 5; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    harness_ = GetParam().make();
    MetaStoreModel model(*harness_, seed);
    for (int round = 0; round < 15 && !HasFatalFailure(); ++round) {
      model.RunSteps(60);
      model.CrashAndCompare();
    }
  }
}

TEST_P(MetaStoreSuite, SurvivesEveryFailingCall) {
  for (bool after_effect : {false, true}) {
    bool failed = true;
    uint64_t n = 1;
    for (; failed && !HasFatalFailure(); ++n) {
      SCOPED_TRACE("call " + std::to_string(n));
      harness_ = GetParam().make();
      MetaStoreModel model(*harness_, n % 7);
      harness_->FailCall(n, base::Error(Code::kIo, "injected"), after_effect);
      model.RunSteps(25);
      harness_->ClearFailures();
      failed = model.failures() > 0;
      model.CrashAndCompare();
    }
    EXPECT_GT(n, 20u) << "the injection reached nothing";
  }
}

}  // namespace conformance
