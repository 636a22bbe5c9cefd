#include <chrono>
#include <cstdio>
#include <map>
#include <set>
#include <string>
#include <thread>

#include <gtest/gtest.h>

#include "base/uuid.h"
#include "chunkstore/jobs/journal.h"
#include "chunkstore/memory/memory_meta_store.h"
#include "tests/support/faulty_stores.h"
#include "tests/support/results.h"

// Claims by turns between queues.

namespace chunkstore::jobs {
namespace {

using base::Code;

constexpr int64_t kLeaseMs = 1000;

class TurnsTest : public testing::Test {
 protected:
  void Add(Journal& journal, const std::string& queue, const std::string& payload,
           const std::string& kind = "k") {
    MetaBatch batch;
    ASSERT_OK(journal.Prepare(kind, payload, &batch, queue));
    ASSERT_OK(meta_.Commit("jobs", batch));
    clock_.AdvanceUs(1);
  }
  // The payload of the job that is next; empty: none.
  std::string Take(Journal& journal, std::optional<Job>* taken = nullptr) {
    const auto job = journal.ClaimByTurns("k", kLeaseMs);
    EXPECT_OK(job);
    if (!job.has_value() || !job->has_value()) return "";
    if (taken != nullptr) *taken = **job;
    return (*job)->payload;
  }

  MemoryMetaStore meta_;
  base::ManualClock clock_;
  Journal journal_{meta_, clock_, "jobs", "a"};
  Journal other_{meta_, clock_, "jobs", "b"};
};

TEST_F(TurnsTest, WhoHasLeastAtWorkComesNext) {
  for (int i = 0; i < 3; ++i) Add(journal_, "yours", "yours" + std::to_string(i));
  Add(journal_, "mine", "mine");
  Add(journal_, "mine", "of another kind", "other");
  std::optional<Job> first;
  EXPECT_EQ(Take(journal_, &first), "yours0") << "the oldest";
  EXPECT_EQ(Take(journal_), "mine") << "whatever waits before it";
  EXPECT_EQ(Take(journal_), "yours1");
  ASSERT_OK(journal_.Remove(*first));
  EXPECT_EQ(Take(journal_), "yours2");
  EXPECT_EQ(Take(journal_), "");
}

TEST_F(TurnsTest, WhatIsPutOffComesWhenItIsDue) {
  Add(journal_, "q", "1");
  Add(journal_, "q", "2");
  std::optional<Job> job;
  EXPECT_EQ(Take(journal_, &job), "1");
  ASSERT_OK(journal_.Postpone(*job, 5000));
  EXPECT_EQ(Take(journal_, &job), "2");
  ASSERT_OK(journal_.Postpone(*job, 1000));
  EXPECT_EQ(Take(journal_), "");
  clock_.AdvanceUs(1'000'000);
  EXPECT_EQ(Take(journal_), "2") << "it is due first";
  EXPECT_EQ(Take(journal_), "");
  clock_.AdvanceUs(4'000'000);
  EXPECT_EQ(Take(journal_), "1");
}

TEST_F(TurnsTest, OtherProcessesAreSeen) {
  EXPECT_EQ(Take(other_), "");
  Add(journal_, "q", "1");
  EXPECT_EQ(Take(other_), "1") << "before it says that there is nothing, it looks";
  Add(journal_, "p", "2");
  Add(journal_, "q", "3");
  clock_.AdvanceUs(500'000);
  EXPECT_EQ(Take(journal_), "2") << "another holds one of q";
  EXPECT_EQ(Take(journal_), "3");
  // Whoever held it is gone.
  clock_.AdvanceUs(kLeaseMs * 1000);
  std::set<std::string> again = {Take(journal_), Take(journal_), Take(journal_)};
  EXPECT_EQ(again, (std::set<std::string>{"1", "2", "3"}));
}

TEST_F(TurnsTest, AStartTakesWhatTheLastOneHeld) {
  Add(journal_, "q", "1");
  EXPECT_EQ(Take(journal_), "1");
  ASSERT_OK(other_.BreakLeases());
  EXPECT_EQ(Take(other_), "1");
  EXPECT_EQ(Take(other_), "");
}

TEST_F(TurnsTest, AQueuesNameIsBounded) {
  MetaBatch batch;
  EXPECT_ERROR(journal_.Prepare("k", "", &batch, "a/b"), Code::kInvalidArgument);
  EXPECT_ERROR(journal_.Prepare("k", "", &batch, std::string(kMaxQueueBytes + 1, 'q')),
               Code::kInvalidArgument);
}

TEST_F(TurnsTest, ManyQueuesAllHaveTheirTurn) {
  constexpr int kQueues = 300;
  for (int round = 0; round < 2; ++round)
    for (int i = 0; i < kQueues; ++i) Add(journal_, "q" + std::to_string(i), std::to_string(i));
  std::map<std::string, int> turns;
  std::optional<Job> job;
  for (int i = 0; i < kQueues; ++i) {
    ++turns[Take(journal_, &job)];
    ASSERT_OK(journal_.Remove(*job));
  }
  for (int i = 0; i < kQueues; ++i) ++turns[Take(journal_)];
  EXPECT_EQ(turns.size(), size_t{kQueues});
  for (const auto& [queue, count] : turns) EXPECT_EQ(count, 2) << queue;
  EXPECT_EQ(Take(journal_), "");
}

// Each job is held by one at a time and is taken in the end, whoever claims beside whom.
TEST_F(TurnsTest, NothingIsTakenTwiceOrForgotten) {
  constexpr int kJobs = 400;
  std::atomic<int> added{0};
  std::atomic<int> done{0};
  base::Mutex mutex;
  std::set<std::string> held;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      while (done < kJobs) {
        if (const int n = added++; n < kJobs) {
          MetaBatch batch;
          ASSERT_OK(journal_.Prepare("k", std::to_string(n), &batch, "q" + std::to_string(n % 7)));
          ASSERT_OK(meta_.Commit("jobs", batch));
        }
        Journal& journal = i % 2 == 0 ? journal_ : other_;
        auto job = journal.ClaimByTurns("k", 1'000'000);
        ASSERT_OK(job);
        if (!job->has_value()) {
          clock_.AdvanceUs(100'000);
          continue;
        }
        {
          base::MutexLock lock(mutex);
          EXPECT_TRUE(held.insert((*job)->payload).second);
        }
        ASSERT_OK(journal.Remove(**job));
        ++done;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(held.size(), size_t{kJobs});
  size_t keys = 0;
  ASSERT_OK(meta_.Scan("jobs", "", "", SIZE_MAX, [&](std::string_view, std::string_view) {
    ++keys;
    return true;
  }));
  EXPECT_EQ(keys, 0u) << "no index entry is left";
}

// What a claim reads does not grow with what waits.
TEST_F(TurnsTest, AClaimCostsTheSameHoweverManyWait) {
  const auto cost = [](int waiting) {
    support::FaultPlan plan;
    MemoryMetaStore memory;
    support::FaultyMetaStore counted(memory, plan);
    base::ManualClock clock;
    Journal journal(counted, clock, "jobs", "a");
    for (int i = 0; i < waiting; ++i) {
      MetaBatch batch;
      EXPECT_OK(journal.Prepare("k", "x", &batch, "q" + std::to_string(i % 10)));
      EXPECT_OK(memory.Commit("jobs", batch));
    }
    EXPECT_OK(journal.ClaimByTurns("k", kLeaseMs));
    const uint64_t before = plan.operations();
    EXPECT_OK(journal.ClaimByTurns("k", kLeaseMs));
    return plan.operations() - before;
  };
  const uint64_t few = cost(20);
  const uint64_t many = cost(20'000);
  EXPECT_EQ(few, many);
  EXPECT_LT(many, 30u);
}

}  // namespace
}  // namespace chunkstore::jobs
