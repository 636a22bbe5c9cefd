#include <chrono>
#include <csignal>
#include <set>
#include <sstream>
#include <thread>

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "chunkstore/local/local_blob_store.h"
#include "chunkstore/local/local_meta_store.h"
#include "tests/chunkstore/chunk_store_world.h"
#include "tests/support/temp_dir.h"

// kill -9 at random points of uploads, holds, releases and collections on local stores. After each
// kill: what was acknowledged reads back right, what was released is gone, nothing partial is seen,
// and scrub finds nothing wrong once the collector came by. In the end every byte is given back.
// CRASH_ROUNDS in the environment asks for more rounds.

namespace chunkstore::testing {
namespace {

constexpr int kDefaultRounds = 100;
constexpr size_t kKept = 8;  // holders that live on to the next round

class CrashHarness {
 public:
  // Runs the child for a while and kills it; notes what it said.
  void RunAndKill(uint64_t seed) {
    int fds[2];
    ASSERT_EQ(::pipe(fds), 0);
    const std::string seed_text = std::to_string(seed);
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      ::dup2(fds[1], STDOUT_FILENO);
      ::close(fds[0]);
      ::close(fds[1]);
      ::execl(CRASH_CHILD, CRASH_CHILD, dir_.path().c_str(), seed_text.c_str(), nullptr);
      ::_exit(127);
    }
    ::close(fds[1]);
    std::string said;
    std::thread reader([&] {
      char buffer[65536];
      for (ssize_t got; (got = ::read(fds[0], buffer, sizeof(buffer))) > 0;)
        said.append(buffer, static_cast<size_t>(got));
    });
    // The point of the kill is what varies here; nothing is waited for.
    std::mt19937_64 random(seed);
    std::this_thread::sleep_for(std::chrono::milliseconds(30 + random() % 200));
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    reader.join();
    ::close(fds[0]);
    EXPECT_TRUE(WIFSIGNALED(status)) << "the child ended by itself: " << status << "\n" << said;
    Note(said);
  }

  void Check() {
    Open();
    ASSERT_OK_AND_ASSIGN(const auto all, store_->Holders("", "", SIZE_MAX));
    std::set<std::string> seen;
    for (const auto& held : all) {
      if (!held.root) continue;
      seen.insert(held.holder);
      const bool may = held_.contains(held.holder) || tried_.contains(held.holder);
      ASSERT_TRUE(may) << held.holder << " was released, or never asked for";
      if (tried_.contains(held.holder)) held_[held.holder] = tried_[held.holder];
      const uint32_t which = held_[held.holder];
      ASSERT_OK_AND_ASSIGN(const std::string bytes, ReadBack(*store_, *held.root));
      ASSERT_TRUE(bytes == CrashSpec(which).Bytes()) << held.holder;
    }
    for (const auto& [holder, which] : held_) EXPECT_TRUE(seen.contains(holder)) << holder;
    tried_.clear();
    while (held_.size() > kKept) {
      ASSERT_OK(store_->Release(held_.begin()->first));
      held_.erase(held_.begin());
    }
    ASSERT_OK_AND_ASSIGN(const CollectReport collected, store_->Collect(true, nullptr));
    recovered_ += collected.abandoned_ingests;
    ExpectClean(*store_);
    Close();
  }

  void End() {
    Open();
    for (const auto& [holder, which] : held_) ASSERT_OK(store_->Release(holder));
    ASSERT_OK(store_->Collect(true, nullptr));
    ExpectEmpty(*blobs_, *meta_);
    Close();
    std::printf("acknowledged %d, abandoned uploads taken back %llu\n", acknowledged_,
                static_cast<unsigned long long>(recovered_));
    EXPECT_GT(acknowledged_, 0);
  }

 private:
  void Open() {
    auto blobs = local::LocalBlobStore::Open(base::SystemFiles(), dir_.path());
    ASSERT_OK(blobs);
    blobs_ = *std::move(blobs);
    auto meta = local::OpenLocalMetaStore(dir_ / "meta", {});
    ASSERT_OK(meta);
    meta_ = *std::move(meta);
    ChunkStoreOptions options;
    options.lease_ms = 0;
    options.background_bytes_per_s = 0;
    auto store = ChunkStore::Open(options, *blobs_, *meta_, base::SystemClock(), metrics_);
    ASSERT_OK(store);
    store_ = *std::move(store);
  }
  void Close() {
    store_.reset();
    meta_.reset();
    blobs_.reset();
  }

  void Note(const std::string& said) {
    std::istringstream lines(said);
    std::string line;
    while (std::getline(lines, line) && !lines.eof()) {
      std::istringstream words(line);
      std::string verb, holder;
      uint32_t which = 0;
      words >> verb >> holder >> which;
      EXPECT_NE(verb, "failed");
      if (verb == "try") tried_[holder] = which;
      if (verb == "held") {
        ++acknowledged_;
        held_[holder] = which;
        tried_.erase(holder);
      }
      if (verb == "release") tried_.insert(held_.extract(holder));
      if (verb == "released") tried_.erase(holder);
    }
  }

  support::TempDir dir_;
  base::Metrics metrics_;
  std::unique_ptr<BlobStore> blobs_;
  std::unique_ptr<MetaStore> meta_;
  std::unique_ptr<ChunkStore> store_;
  std::map<std::string, uint32_t> held_;
  std::map<std::string, uint32_t> tried_;
  int acknowledged_ = 0;
  uint64_t recovered_ = 0;
};

TEST(ChunkStoreCrash, KilledAtAnyPointNothingIsLostAndNothingIsLeft) {
  ASSERT_TRUE(base::SetLogLevel("error"));
  const char* wanted = std::getenv("CRASH_ROUNDS");
  const int rounds = wanted ? std::atoi(wanted) : kDefaultRounds;
  CrashHarness harness;
  for (int round = 1; round <= rounds && !::testing::Test::HasFailure(); ++round) {
    SCOPED_TRACE("round " + std::to_string(round));
    harness.RunAndKill(static_cast<uint64_t>(round));
    harness.Check();
  }
  if (!::testing::Test::HasFailure()) harness.End();
}

}  // namespace
}  // namespace chunkstore::testing
