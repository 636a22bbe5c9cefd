#include <algorithm>
#include <atomic>
#include <thread>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "chunkstore/ceph/omap_format.h"
#include "tests/chunkstore/ceph/interposed.h"
#include "tests/support/results.h"

// Several processes over the same objects: they meet at every call of one, and in threads.

namespace chunkstore::ceph {
namespace {

using base::Code;

const std::string kPartition = "p";

// Adds one to a counter; how often it had to begin anew does not matter.
base::Result<void> Increment(MetaStore& store, const std::string& key) {
  for (;;) {
    base::Result<std::string> value = store.Get(kPartition, key);
    if (!value && value.error().code() != Code::kNotFound) return std::move(value).error();
    MetaBatch batch;
    value ? batch.ExpectValue(key, *value) : batch.ExpectAbsent(key);
    batch.Put(key, std::to_string((value ? std::stoi(*value) : 0) + 1));
    base::Result<void> done = store.Commit(kPartition, batch);
    if (done || done.error().code() != Code::kConflict) return done;
  }
}

void Fill(Process& process, int keys) {
  for (int i = 0; i < keys; ++i) {
    ASSERT_OK(process.store().Commit(kPartition, MetaBatch().Put("k" + std::to_string(i), "x")));
  }
}

TEST(MeetingTest, NoIncrementIsLostWhereverAnotherComesBetween) {
  for (bool in_shards : {false, true}) {
    bool met = true;
    for (int call = 1; met && !testing::Test::HasFailure(); ++call) {
      SCOPED_TRACE("call " + std::to_string(call));
      MemoryObjects objects;
      Process one(objects), other(objects);
      ASSERT_OK(Increment(one.store(), "counter"));
      Fill(one, 12);
      if (in_shards) ASSERT_OK(one.Spill(kPartition));
      ASSERT_OK(Increment(one.store(), "counter"));  // one knows the layout now
      Fill(other, 12);
      if (in_shards) ASSERT_OK(other.Spill(kPartition));
      one.objects().At(call, [&] {
        ASSERT_OK(Increment(other.store(), "counter"));
        Fill(other, 12);
        ASSERT_OK(other.Spill(kPartition));  // to the shard, at once
      });
      ASSERT_OK(Increment(one.store(), "counter"));
      met = one.objects().happened();
      EXPECT_EQ(other.store().Get(kPartition, "counter").value(), met ? "4" : "3");
    }
  }
}

// A spiller in a thread of its own that stops before its call `first`, and `more` calls later
// again.
class Stopping {
 public:
  Stopping(Objects& objects, int first, int more) : process_(objects) {
    process_.objects().At(first, [this, more] {
      stopped_ = true;
      begin_.Reach();
      process_.objects().At(more, [this] { end_.Reach(); });
    });
    thread_ = std::thread([this] {
      EXPECT_OK(process_.Spill(kPartition));
      begin_.Reach();
      end_.Reach();
    });
    begin_.Await();
  }
  ~Stopping() {
    begin_.Leave();
    end_.Leave();
    thread_.join();
  }
  // From its first stop to its second, or its end.
  void GoOn() {
    begin_.Leave();
    end_.Await();
  }
  bool stopped() const { return stopped_; }

 private:
  class Stop {
   public:
    void Reach() {
      base::MutexLock lock(mutex_);
      reached_ = true;
      changed_.NotifyAll();
      while (!left_) changed_.Wait(mutex_);
    }
    void Await() {
      base::MutexLock lock(mutex_);
      while (!reached_) changed_.Wait(mutex_);
    }
    void Leave() {
      base::MutexLock lock(mutex_);
      left_ = true;
      changed_.NotifyAll();
    }

   private:
    base::Mutex mutex_;
    base::CondVar changed_;
    bool reached_ GUARDED_BY(mutex_) = false;
    bool left_ GUARDED_BY(mutex_) = false;
  };

  Process process_;
  Stop begin_, end_;
  std::atomic<bool> stopped_ = false;
  std::thread thread_;
};

// Three: while a spiller is at work, one looks for a key; another changes it, and the spiller
// carries that to the shard, all before the first one writes.
TEST(MeetingTest, NoIncrementIsLostThoughTheSpillerWasThereBefore) {
  bool stopped = true;
  int step = 1;
  for (; stopped && !testing::Test::HasFailure(); ++step) {
    for (int more = 1; more < 8; ++more) {
      for (int call = 1; call < 8; ++call) {
        SCOPED_TRACE(fmt::format("{} {} {}", step, more, call));
        MemoryObjects objects;
        Process one(objects), other(objects);
        ASSERT_OK(Increment(one.store(), "counter"));
        ASSERT_OK(
            one.store().Commit(kPartition, MetaBatch().Put("a", "").Put("b", "").Put("d", "")));
        ASSERT_OK(one.Spill(kPartition));
        ASSERT_OK(
            one.store().Commit(kPartition, MetaBatch().Put("a", "").Put("b", "").Put("x", "")));
        ASSERT_OK(one.store().Commit(kPartition, MetaBatch().Put("y", "")));
        Stopping mover(objects, step, more);
        stopped = mover.stopped();
        one.objects().At(call, [&] {
          ASSERT_OK(Increment(other.store(), "counter"));
          mover.GoOn();
        });
        ASSERT_OK(Increment(one.store(), "counter"));
        const bool met = one.objects().happened();
        one.objects().At(0, nullptr);
        EXPECT_EQ(other.store().Get(kPartition, "counter").value(), met ? "3" : "2");
      }
    }
  }
  EXPECT_GT(step, 10);
}

TEST(MeetingTest, AScanSeesWhatWasThereAllTheTime) {
  for (bool reverse : {false, true}) {
    bool met = true;
    int call = 1;
    for (; met && !testing::Test::HasFailure(); ++call) {
      SCOPED_TRACE("call " + std::to_string(call));
      MemoryObjects objects;
      Process one(objects), other(objects);
      Fill(other, 30);
      ASSERT_OK(other.Spill(kPartition));
      for (int i = 0; i < 30; i += 3) {
        ASSERT_OK(other.store().Commit(kPartition,
                                       MetaBatch().Put("k" + std::to_string(i) + "a", "new")));
      }
      State stays = ReadAll(other.store(), kPartition);
      one.objects().At(call, [&] {
        Fill(other, 50);
        ASSERT_OK(other.Spill(kPartition));
      });
      std::vector<std::string> seen;
      auto visit = [&](std::string_view key, std::string_view) {
        seen.emplace_back(key);
        return true;
      };
      ASSERT_OK(reverse ? one.store().ScanReverse(kPartition, "", "", SIZE_MAX, visit)
                        : one.store().Scan(kPartition, "", "", SIZE_MAX, visit));
      met = one.objects().happened();
      if (reverse) std::reverse(seen.begin(), seen.end());
      EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
      EXPECT_EQ(std::adjacent_find(seen.begin(), seen.end()), seen.end());
      for (const auto& [key, value] : stays) {
        EXPECT_TRUE(std::binary_search(seen.begin(), seen.end(), key)) << key;
      }
    }
    EXPECT_GT(call, 10);
  }
}

TEST(MeetingTest, AGetFindsWhatIsThereAllTheTime) {
  for (int key = 0; key < 12; ++key) {
    bool met = true;
    for (int call = 1; met && !testing::Test::HasFailure(); ++call) {
      SCOPED_TRACE(fmt::format("key {} call {}", key, call));
      MemoryObjects objects;
      Process one(objects), other(objects);
      Fill(other, 12);
      ASSERT_OK(other.Spill(kPartition));
      one.objects().At(call, [&] {
        Fill(other, 99);  // splits every shard
        ASSERT_OK(other.Spill(kPartition));
      });
      EXPECT_OK(one.store().Get(kPartition, "k" + std::to_string(key)));
      met = one.objects().happened();
    }
  }
}

TEST(MeetingTest, WhoRetiresAPartitionMeetsWhoUsesIt) {
  bool met = true;
  int call = 1;
  for (; met && !testing::Test::HasFailure(); ++call) {
    SCOPED_TRACE("call " + std::to_string(call));
    MemoryObjects objects;
    Process one(objects), other(objects);
    ASSERT_OK(other.store().Commit(kPartition, MetaBatch().Put("k", "1")));
    ASSERT_OK(other.store().Commit(kPartition, MetaBatch().Delete("k")));
    one.objects().At(call, [&] {
      ASSERT_OK(other.store().Commit(kPartition, MetaBatch().ExpectAbsent("k").Put("k", "2")));
    });
    ASSERT_OK(one.store().Partitions(""));
    met = one.objects().happened();
    one.objects().At(0, nullptr);
    if (!met) ASSERT_OK(other.store().Commit(kPartition, MetaBatch().Put("k", "2")));
    EXPECT_EQ(one.store().Get(kPartition, "k").value(), "2");
    EXPECT_EQ(other.store().Partitions("").value(), std::vector<std::string>{kPartition});
  }
  EXPECT_GT(call, 5);
}

TEST(MeetingTest, WhoOpensAPartitionMeetsWhoRetiresIt) {
  for (bool was_there : {false, true}) {
    bool met = true;
    int call = 1;
    for (; met && !testing::Test::HasFailure(); ++call) {
      SCOPED_TRACE("call " + std::to_string(call));
      MemoryObjects objects;
      Process one(objects), other(objects);
      if (was_there) {
        ASSERT_OK(one.store().Commit(kPartition, MetaBatch().Put("k", "1")));
        ASSERT_OK(one.store().Commit(kPartition, MetaBatch().Delete("k")));
        ASSERT_OK(other.store().Partitions(""));
      }
      one.objects().At(call, [&] { ASSERT_OK(other.store().Partitions("")); });
      ASSERT_OK(one.store().Commit(kPartition, MetaBatch().ExpectAbsent("k").Put("k", "2")));
      met = one.objects().happened();
      EXPECT_EQ(other.store().Get(kPartition, "k").value(), "2");
      EXPECT_EQ(other.store().Partitions("").value(), std::vector<std::string>{kPartition});
    }
    EXPECT_GT(call, 4);
  }
}

// The same with one who retires it and dies on the way.
TEST(MeetingTest, WhoOpensAPartitionMeetsWhoDiesRetiringIt) {
  for (int death = 1; death < 8; ++death) {
    bool met = true;
    for (int call = 1; met && !testing::Test::HasFailure(); ++call) {
      SCOPED_TRACE(std::to_string(death) + " " + std::to_string(call));
      MemoryObjects objects;
      Process one(objects), dying(objects), other(objects);
      one.objects().At(call, [&] {
        dying.objects().DieAt(death);
        (void)dying.store().Partitions("").has_value();
      });
      ASSERT_OK(one.store().Commit(kPartition, MetaBatch().ExpectAbsent("k").Put("k", "2")));
      met = one.objects().happened();
      EXPECT_EQ(other.store().Get(kPartition, "k").value(), "2");
      EXPECT_EQ(other.store().Partitions("").value(), std::vector<std::string>{kPartition});
    }
  }
}

TEST(MeetingTest, WhoDiesRetiringOrOpeningLeavesItToTheNext) {
  for (bool retires : {false, true}) {
    bool died = true;
    for (int call = 1; died && !testing::Test::HasFailure(); ++call) {
      SCOPED_TRACE("call " + std::to_string(call));
      MemoryObjects objects;
      Process one(objects), other(objects);
      if (retires) {
        ASSERT_OK(other.store().Commit(kPartition, MetaBatch().Put("k", "1")));
        ASSERT_OK(other.store().Commit(kPartition, MetaBatch().Delete("k")));
      }
      one.objects().DieAt(call);
      MetaBatch batch = std::move(MetaBatch().Put("k", "2"));
      died = retires ? !one.store().Partitions("") : !one.store().Commit(kPartition, batch);
      ASSERT_OK(other.store().Partitions(""));
      ASSERT_OK(other.store().Commit(kPartition, batch));
      EXPECT_EQ(other.store().Partitions("").value(), std::vector<std::string>{kPartition});
      EXPECT_EQ(other.store().Get(kPartition, "k").value(), "2");
    }
  }
}

// Processes with threads and spillers of their own, all at once.
TEST(MeetingTest, ManyAtOnceLoseNothing) {
  constexpr int kProcesses = 4, kRounds = 150, kCounters = 12;
  MemoryObjects objects;
  support::FaultPlan none;
  std::atomic<bool> done = false;
  std::vector<std::thread> threads;
  std::atomic<int> taken = 0;
  for (int p = 0; p < kProcesses; ++p) {
    threads.emplace_back([&, p] {
      auto store = NewOmapMetaStore(std::make_unique<FaultyObjects>(objects, none), TinyOptions());
      for (int round = 0; round < kRounds; ++round) {
        ASSERT_OK(Increment(*store, "counter" + std::to_string((round * 7 + p) % kCounters)));
        // Each name is to be had once.
        auto take = store->Commit(kPartition, MetaBatch()
                                                  .ExpectAbsent("n" + std::to_string(round))
                                                  .Put("n" + std::to_string(round), "x"));
        if (take) ++taken;
        if (!take) ASSERT_ERROR(take, Code::kConflict);
        const std::string own = "own" + std::to_string(p) + "." + std::to_string(round);
        ASSERT_OK(store->Commit(kPartition, MetaBatch().Put(own, "x")));
        if (round % 3 == 0) ASSERT_OK(store->Commit(kPartition, MetaBatch().Delete(own)));
      }
    });
  }
  std::thread scanner([&] {
    auto store = NewOmapMetaStore(std::make_unique<FaultyObjects>(objects, none), TinyOptions());
    size_t names = 0;
    while (!done) {
      size_t now = 0;
      std::string last;
      ASSERT_OK(
          store->Scan(kPartition, "n", "o", SIZE_MAX, [&](std::string_view key, std::string_view) {
            EXPECT_LT(last, key);
            last = key;
            ++now;
            return true;
          }));
      EXPECT_GE(now, names);  // none of these is ever deleted
      names = now;
    }
  });
  for (std::thread& thread : threads) thread.join();
  done = true;
  scanner.join();
  EXPECT_EQ(taken, kRounds);
  Process reader(objects);
  State state = ReadAll(reader.store(), kPartition);
  int sum = 0, own = 0;
  for (const auto& [key, value] : state) {
    if (key.starts_with("counter")) sum += std::stoi(value);
    if (key.starts_with("own")) ++own;
  }
  EXPECT_EQ(sum, kProcesses * kRounds);
  EXPECT_EQ(own, kProcesses * kRounds * 2 / 3);
}

}  // namespace
}  // namespace chunkstore::ceph
