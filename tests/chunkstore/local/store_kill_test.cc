#include <csignal>
#include <random>

#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "chunkstore/local/local_blob_store.h"
#include "chunkstore/local/local_meta_store.h"
#include "tests/chunkstore/local/store_kill_steps.h"
#include "tests/support/results.h"
#include "tests/support/temp_dir.h"

// kill -9 at random points: what the process said is durable is there, whole; what it removed is
// gone.

namespace chunkstore::local {
namespace {

// Runs the child until it acknowledged `steps` steps and the kernel got around to killing it; the
// last that it acknowledged.
uint64_t RunAndKill(const std::string& dir, uint64_t run, uint64_t steps) {
  int ends[2];
  EXPECT_EQ(pipe(ends), 0);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  posix_spawn_file_actions_addclose(&actions, ends[0]);
  std::string path = QUARRY_KILL_CHILD, run_text = std::to_string(run), dir_text = dir;
  char* const arguments[] = {path.data(), dir_text.data(), run_text.data(), nullptr};
  pid_t child;
  EXPECT_EQ(posix_spawn(&child, path.c_str(), &actions, nullptr, arguments, environ), 0);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  uint64_t last = UINT64_MAX;
  uint64_t step;
  bool killed = false;
  while (read(ends[0], &step, sizeof(step)) == sizeof(step)) {
    last = step;
    if (step + 1 >= steps && !killed) {
      kill(child, SIGKILL);
      killed = true;  // what it wrote before it died counts
    }
  }
  close(ends[0]);
  int status;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(killed && WIFSIGNALED(status)) << "the child failed by itself";
  return last;
}

void CheckRun(BlobStore& blobs, MetaStore& meta, uint64_t run, uint64_t last) {
  std::string partition = PartitionOf(run);
  for (uint64_t step = 0; step <= last; ++step) {
    auto name = meta.Get(partition, std::to_string(step));
    bool dropped = IsDropped(step);
    if (dropped && step + 2 <= last) {
      ASSERT_ERROR(name, base::Code::kNotFound) << "what was removed is back: step " << step;
      continue;
    }
    if (dropped && step + 2 == last + 1 && !name) continue;  // the step that was cut off
    ASSERT_OK(name);
    std::string expected = ContentOf(run, step);
    std::vector<uint8_t> content(expected.size());
    ASSERT_OK(blobs.Get(*name, 0, content));
    ASSERT_TRUE(base::AsText(content) == expected);
  }
}

TEST(StoreKillTest, NothingAcknowledgedIsLost) {
  constexpr uint64_t kRuns = 20;
  support::TempDir dir;
  std::mt19937_64 random(1);
  std::vector<uint64_t> last;
  for (uint64_t run = 0; run < kRuns && !HasFailure(); ++run) {
    last.push_back(RunAndKill(dir.path(), run, 1 + random() % 60));
    ASSERT_NE(last.back(), UINT64_MAX);
    ASSERT_OK_AND_ASSIGN(auto blobs, LocalBlobStore::Open(base::SystemFiles(), dir.path()));
    ASSERT_OK_AND_ASSIGN(auto meta, OpenLocalMetaStore(dir / "meta", {}));
    for (uint64_t before = 0; before <= run; ++before) {
      CheckRun(*blobs, *meta, before, last[before]);
    }
  }
}

}  // namespace
}  // namespace chunkstore::local
