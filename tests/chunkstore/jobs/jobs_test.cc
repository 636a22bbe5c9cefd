#include <atomic>
#include <semaphore>
#include <string>
#include <thread>

#include <gtest/gtest.h>

#include "chunkstore/jobs/journal.h"
#include "chunkstore/jobs/runner.h"
#include "chunkstore/memory/memory_meta_store.h"
#include "tests/support/results.h"

namespace chunkstore::jobs {
namespace {

using base::Code;
using base::Error;
using base::Result;

constexpr int64_t kLeaseMs = 1000;

class JournalTest : public testing::Test {
 protected:
  MemoryMetaStore meta_;
  base::ManualClock clock_;
  Journal journal_{meta_, clock_, "jobs", "a"};
  Journal other_{meta_, clock_, "jobs", "b"};
};

TEST_F(JournalTest, GivesEachJobToOneAtATime) {
  ASSERT_OK_AND_ASSIGN(Job first, journal_.Add("k", "1"));
  clock_.AdvanceUs(1);
  ASSERT_OK(journal_.Add("k", "2"));
  ASSERT_OK(journal_.Add("other", "3"));
  ASSERT_OK_AND_ASSIGN(auto mine, journal_.Claim("k", kLeaseMs));
  ASSERT_OK_AND_ASSIGN(auto theirs, other_.Claim("k", kLeaseMs));
  ASSERT_OK_AND_ASSIGN(auto none, other_.Claim("k", kLeaseMs));
  EXPECT_EQ(mine->id, first.id);
  EXPECT_EQ(mine->payload, "1");
  EXPECT_EQ(mine->attempts, 1);
  EXPECT_EQ(theirs->payload, "2");
  EXPECT_FALSE(none.has_value());
  EXPECT_OK(journal_.Remove(*mine));
  EXPECT_ERROR(journal_.Remove(*mine), Code::kConflict);
  ASSERT_OK_AND_ASSIGN(auto left, journal_.List("k"));
  EXPECT_EQ(left.size(), 1u);
}

// What a transaction beside the job may expect: the claim that began the work still has it.
TEST_F(JournalTest, KnowsWhichClaimHoldsAJob) {
  const auto record = [&](const Job& job) -> std::optional<std::string> {
    const auto bytes = meta_.Get("jobs", Journal::KeyOf(job));
    return bytes.has_value() ? std::optional(*bytes) : std::nullopt;
  };
  ASSERT_OK(journal_.Add("k", "1"));
  ASSERT_OK_AND_ASSIGN(auto first, journal_.Claim("k", kLeaseMs));
  ASSERT_TRUE(first.has_value());
  EXPECT_OK(journal_.CheckHeld(*first, record(*first)));
  EXPECT_ERROR(other_.CheckHeld(*first, record(*first)), Code::kCancelled);
  ASSERT_OK(journal_.Renew(&*first, kLeaseMs));
  EXPECT_OK(journal_.CheckHeld(*first, record(*first)));
  clock_.AdvanceUs((kLeaseMs + 1) * 1000);
  EXPECT_OK(journal_.CheckHeld(*first, record(*first))) << "nobody took it over";
  // The same process does, with another thread.
  ASSERT_OK_AND_ASSIGN(auto second, journal_.Claim("k", kLeaseMs));
  ASSERT_TRUE(second.has_value());
  EXPECT_ERROR(journal_.CheckHeld(*first, record(*first)), Code::kCancelled);
  EXPECT_OK(journal_.CheckHeld(*second, record(*second)));
  ASSERT_OK(journal_.Remove(*second));
  EXPECT_ERROR(journal_.CheckHeld(*second, record(*second)), Code::kCancelled);
}

// At most one at a time by way of the choice, however many threads claim at once.
TEST_F(JournalTest, KeepsToAChoiceUnderRaces) {
  constexpr int kJobs = 100;
  for (int i = 0; i < kJobs; ++i) {
    ASSERT_OK(journal_.Add("k", std::to_string(i)));
    clock_.AdvanceUs(1);
  }
  const Choose newest_alone = [](const std::vector<Job>& held, const std::vector<Job>& due) {
    return held.empty() && !due.empty() ? std::optional<size_t>(due.size() - 1) : std::nullopt;
  };
  ASSERT_OK_AND_ASSIGN(auto newest, journal_.Claim("k", kLeaseMs, newest_alone));
  EXPECT_EQ(newest->payload, std::to_string(kJobs - 1));
  ASSERT_OK(journal_.Remove(*newest));
  std::atomic<int> at_work{0};
  std::atomic<int> done{1};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      Journal journal(meta_, clock_, "jobs", "t" + std::to_string(i));
      while (done < kJobs) {
        auto job = journal.Claim("k", kLeaseMs, newest_alone);
        ASSERT_OK(job);
        if (!job->has_value()) continue;
        EXPECT_EQ(++at_work, 1);
        --at_work;
        ASSERT_OK(journal.Remove(**job));
        ++done;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(JournalTest, TakesAJobAgainWhenItsLeaseRanOut) {
  ASSERT_OK(journal_.Add("k", ""));
  ASSERT_OK_AND_ASSIGN(auto mine, journal_.Claim("k", kLeaseMs));
  clock_.AdvanceUs(kLeaseMs * 1000 - 1);
  ASSERT_OK_AND_ASSIGN(auto none, other_.Claim("k", kLeaseMs));
  EXPECT_FALSE(none.has_value());
  EXPECT_OK(journal_.Renew(&*mine, kLeaseMs));
  clock_.AdvanceUs(kLeaseMs * 1000 - 1);
  ASSERT_OK_AND_ASSIGN(none, other_.Claim("k", kLeaseMs));
  EXPECT_FALSE(none.has_value());
  clock_.AdvanceUs(1);
  ASSERT_OK_AND_ASSIGN(auto theirs, other_.Claim("k", kLeaseMs));
  ASSERT_TRUE(theirs.has_value());
  EXPECT_EQ(theirs->attempts, 2);
  // Who lost it can do nothing with it any more.
  EXPECT_ERROR(journal_.Renew(&*mine, kLeaseMs), Code::kConflict);
  EXPECT_ERROR(journal_.Postpone(*mine, 0), Code::kConflict);
  EXPECT_ERROR(journal_.Remove(*mine), Code::kConflict);
}

TEST_F(JournalTest, WhatIsPutOffHasNotFailed) {
  ASSERT_OK(journal_.Add("k", ""));
  for (const bool failed : {false, false, true, false}) {
    ASSERT_OK_AND_ASSIGN(auto mine, journal_.Claim("k", kLeaseMs));
    ASSERT_OK(journal_.Postpone(*mine, 0, failed));
  }
  ASSERT_OK_AND_ASSIGN(auto last, journal_.Claim("k", kLeaseMs));
  EXPECT_EQ(last->attempts, 2);
}

TEST_F(JournalTest, PostponesAndBreaksLeases) {
  ASSERT_OK(journal_.Add("k", ""));
  ASSERT_OK_AND_ASSIGN(auto mine, journal_.Claim("k", kLeaseMs));
  ASSERT_OK(journal_.Postpone(*mine, 50));
  ASSERT_OK_AND_ASSIGN(auto none, journal_.Claim("k", kLeaseMs));
  EXPECT_FALSE(none.has_value());
  clock_.AdvanceUs(50'000);
  ASSERT_OK_AND_ASSIGN(mine, journal_.Claim("k", kLeaseMs));
  ASSERT_TRUE(mine.has_value());
  // The owner keeps its own; another process that is alone takes it at once.
  ASSERT_OK(journal_.BreakLeases());
  ASSERT_OK_AND_ASSIGN(none, journal_.Claim("k", kLeaseMs));
  EXPECT_FALSE(none.has_value());
  ASSERT_OK(other_.BreakLeases());
  ASSERT_OK_AND_ASSIGN(auto theirs, other_.Claim("k", kLeaseMs));
  EXPECT_TRUE(theirs.has_value());
}

TEST_F(JournalTest, PutsAJobIntoACallersBatch) {
  MetaBatch refused;
  refused.ExpectValue("key", "that is not there").Put("key", "value");
  ASSERT_OK(journal_.Prepare("k", "1", &refused));
  EXPECT_ERROR(meta_.Commit("jobs", refused), Code::kConflict);
  EXPECT_TRUE(journal_.List("k")->empty());
  MetaBatch batch;
  batch.Put("key", "value");
  ASSERT_OK(journal_.Prepare("k", "2", &batch));
  ASSERT_OK(meta_.Commit("jobs", batch));
  ASSERT_OK_AND_ASSIGN(auto mine, journal_.Claim("k", kLeaseMs));
  ASSERT_TRUE(mine.has_value());
  EXPECT_EQ(mine->payload, "2");
  EXPECT_ERROR(journal_.Prepare("k", std::string(kMaxPayloadBytes + 1, 'x'), &batch),
               Code::kTooLarge);
}

TEST_F(JournalTest, RefusesLargePayloadsAndForeignRecords) {
  EXPECT_ERROR(journal_.Add("k", std::string(kMaxPayloadBytes + 1, 'x')), Code::kTooLarge);
  MetaBatch batch;
  batch.Put("j/x", "\x09");
  ASSERT_OK(meta_.Commit("jobs", batch));
  EXPECT_ERROR(journal_.List("k"), Code::kCorruption);
}

TEST_F(JournalTest, GivesNoJobTwiceToManyThreads) {
  constexpr int kJobs = 200;
  for (int i = 0; i < kJobs; ++i) ASSERT_OK(journal_.Add("k", std::to_string(i)));
  std::atomic<int> taken{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      Journal journal(meta_, clock_, "jobs", "t" + std::to_string(i));
      for (;;) {
        auto job = journal.Claim("k", kLeaseMs);
        ASSERT_OK(job);
        if (!job->has_value()) {
          // Others may have been faster with all that were free.
          auto left = journal.List("k");
          ASSERT_OK(left);
          if (left->empty()) return;
          std::this_thread::yield();
          continue;
        }
        ASSERT_OK(journal.Remove(**job));
        ++taken;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(taken, kJobs);
}

TEST(Runner, RunsJobsAndTriesAgain) {
  MemoryMetaStore meta;
  Journal journal(meta, base::SystemClock(), "jobs", "a");
  std::counting_semaphore<> ran(0);
  std::atomic<int> attempts{0};
  Runner runner(journal, "k", {.poll_ms = 5},
                [&](const Job& job, const JobControl&) -> Result<Outcome> {
                  EXPECT_EQ(job.payload, "work");
                  if (++attempts == 1) return Outcome{.done = false, .delay_ms = 1};
                  ran.release();
                  return Outcome{};
                });
  ASSERT_OK(journal.Add("k", "work"));
  runner.Start();
  ran.acquire();
  runner.Stop();
  EXPECT_EQ(attempts, 2);
  ASSERT_OK_AND_ASSIGN(auto left, journal.List("k"));
  EXPECT_TRUE(left.empty());
}

TEST(Runner, TellsAJobThatItStopsAndLeavesItToTheNext) {
  MemoryMetaStore meta;
  Journal journal(meta, base::SystemClock(), "jobs", "a");
  std::binary_semaphore begun(0);
  auto handler = [&](const Job&, const JobControl& control) -> Result<Outcome> {
    begun.release();
    while (!control.cancelled()) std::this_thread::yield();
    return Error(Code::kCancelled, "stopped");
  };
  ASSERT_OK(journal.Add("k", ""));
  Runner runner(journal, "k", {}, handler);
  runner.Start();
  runner.Wake();
  begun.acquire();
  runner.Stop();
  // At once, and not after the pause that a failure brings.
  Journal next(meta, base::SystemClock(), "jobs", "b");
  ASSERT_OK_AND_ASSIGN(auto job, next.Claim("k", kLeaseMs));
  EXPECT_TRUE(job.has_value());
}

TEST(Runner, KeepsItsLeaseWhileTheHandlerWorks) {
  MemoryMetaStore meta;
  Journal journal(meta, base::SystemClock(), "jobs", "a");
  Journal other(meta, base::SystemClock(), "jobs", "b");
  std::binary_semaphore begun(0), end(0);
  ASSERT_OK(journal.Add("k", ""));
  Runner runner(journal, "k", {.lease_ms = 30'000}, [&](const Job&, const JobControl&) {
    begun.release();
    end.acquire();
    return Result<Outcome>(Outcome{});
  });
  runner.Start();
  begun.acquire();
  ASSERT_OK_AND_ASSIGN(auto none, other.Claim("k", kLeaseMs));
  EXPECT_FALSE(none.has_value());
  end.release();
  runner.Stop();
  ASSERT_OK_AND_ASSIGN(auto left, journal.List("k"));
  EXPECT_TRUE(left.empty());
}

}  // namespace
}  // namespace chunkstore::jobs
