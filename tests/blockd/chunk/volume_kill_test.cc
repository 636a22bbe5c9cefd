#include <chrono>
#include <csignal>
#include <cstdlib>
#include <map>
#include <set>
#include <sstream>
#include <thread>

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "blockd/chunk/chunk_volume_store.h"
#include "chunkstore/local/local_blob_store.h"
#include "chunkstore/local/local_meta_store.h"
#include "tests/blockd/chunk/volume_model.h"
#include "tests/support/temp_dir.h"

// kill -9 at random points of writes, zeros, flushes, snapshots, clones, growth, reverts, removals
// and sealings on local stores, in several threads. After each kill: what was acknowledged is there
// and what was removed is not; a sector is as it was last acknowledged, flushed or not, or as it
// was being written; every snapshot is to the byte what it was, whatever else went. In some rounds
// the maps are in the process's own memory: then only what was flushed has to be there. In the end
// every file and every blob is given back. CRASH_ROUNDS in the environment asks for more rounds.

namespace blockd::chunk::testing {
namespace {

constexpr int kDefaultRounds = 300;
constexpr uint64_t kSizeBytes = 4 * base::kMiB + 256 * base::kKiB;  // of the child's new volumes
constexpr uint64_t kMemoryBytes = 2 * base::kGiB;

// A kill takes nothing from a file system in memory either, and ten times as many calls fit into
// the time between two kills.
void PreferMemory() {
  const auto space = base::SystemFiles().Space("/dev/shm");
  if (space && space->available_bytes >= kMemoryBytes) ::setenv("TMPDIR", "/dev/shm", 0);
}

class KillHarness {
 public:
  void RunAndKill(uint64_t seed) {
    live_ = seed % 4 != 0;
    const std::string said = Kill(seed, "work", 40, 160);
    if (::testing::Test::HasFailure()) return;
    Note(said);
    // While it puts right what the last kill left.
    if (seed % 5 == 0) Kill(seed, "idle", 5, 45);
  }

  // What the child said.
  std::string Kill(uint64_t seed, const char* what, int least_ms, int more_ms) {
    std::string said;
    StartAndKill(seed, what, least_ms, more_ms, &said);
    return said;
  }

  void StartAndKill(uint64_t seed, const char* what, int least_ms, int more_ms, std::string* said) {
    int fds[2];
    ASSERT_EQ(::pipe(fds), 0);
    const std::string seed_text = std::to_string(seed);
    const std::string live = live_ ? LiveParent() : "";
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      ::dup2(fds[1], STDOUT_FILENO);
      ::close(fds[0]);
      ::close(fds[1]);
      ::execl(KILL_CHILD, KILL_CHILD, dir_.path().c_str(), seed_text.c_str(), live.c_str(), what,
              nullptr);
      ::_exit(127);
    }
    ::close(fds[1]);
    std::thread reader([&] {
      char buffer[65536];
      for (ssize_t got; (got = ::read(fds[0], buffer, sizeof(buffer))) > 0;)
        said->append(buffer, static_cast<size_t>(got));
    });
    // The point of the kill is what varies here; nothing is waited for.
    std::mt19937_64 random(seed);
    std::this_thread::sleep_for(std::chrono::milliseconds(
        least_ms + static_cast<int>(random() % static_cast<uint64_t>(more_ms))));
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    reader.join();
    ::close(fds[0]);
    EXPECT_TRUE(WIFSIGNALED(status)) << "the child ended by itself: " << status;
  }

  void Check() {
    Open();
    if (::testing::Test::HasFailure()) return;
    ASSERT_OK_AND_ASSIGN(const auto volumes, store_->Volumes());
    ASSERT_OK_AND_ASSIGN(const auto snapshots, store_->Snapshots());
    std::set<std::string> seen;
    for (const SnapshotInfo& info : snapshots) {
      seen.insert(info.id);
      if (!snapshots_.contains(info.id)) DropUnacknowledged(info.id, /*snapshot=*/true);
    }
    for (const VolumeInfo& info : volumes) {
      seen.insert(info.id);
      if (!volumes_.contains(info.id)) DropUnacknowledged(info.id, /*snapshot=*/false);
    }
    for (auto& [id, model] : volumes_) {
      SCOPED_TRACE(id);
      ASSERT_TRUE(seen.contains(id)) << "is lost";
      ASSERT_OK_AND_ASSIGN(const auto volume, store_->Open(id));
      const uint64_t size_bytes = volume->size_bytes();
      ASSERT_TRUE(sizes_[id].contains(size_bytes)) << size_bytes << " bytes";
      sizes_[id] = {size_bytes};
      model.Settle(ReadAll(*volume));
      kept_unflushed_ += unflushed_[id].size();
    }
    unflushed_.clear();
    for (const auto& [id, sectors] : snapshots_) {
      SCOPED_TRACE(id);
      ASSERT_TRUE(seen.contains(id)) << "is lost";
      const uint64_t size_bytes = store_->FindSnapshot(id)->size_bytes;
      ASSERT_TRUE(sizes_[id].contains(size_bytes)) << size_bytes << " bytes";
      ASSERT_OK(store_->Create(
          {.id = "look", .size_bytes = size_bytes, .source = {VolumeSource::Kind::kSnapshot, id}}));
      ExpectSectors(ReadAll(**store_->Open("look")), sectors);
      ASSERT_OK(store_->Remove("look"));
    }
    maybe_.clear();
    Close();
  }

  void End() {
    Open();
    for (const auto& [id, sectors] : snapshots_) ASSERT_OK(store_->RemoveSnapshot(id));
    for (const auto& [id, model] : volumes_) ASSERT_OK(store_->Remove(id));
    Close();
    Open();  // removes the spares of the one before
    ASSERT_OK_AND_ASSIGN(const auto files, base::SystemFiles().List(dir_ / "layers"));
    EXPECT_EQ(files, std::vector<std::string>());
    EXPECT_EQ(base::SystemFiles().List(LiveParent()).value(), std::vector<std::string>());
    ASSERT_OK(chunks_->Collect(true, nullptr));
    EXPECT_EQ(chunkstore::testing::BlobNames(*blobs_), std::vector<std::string>());
    EXPECT_EQ(chunkstore::testing::AllKeys(*meta_), std::vector<std::string>());
    Close();
    std::printf("acknowledged: %d writes, %d flushes, %d snapshots, %d growths\n", writes_,
                flushes_, taken_, grown_);
    std::printf("of the writes, %zu sectors were not flushed, and there\n", kept_unflushed_);
    EXPECT_GT(kept_unflushed_, 0u);
    EXPECT_GT(taken_, 0);
    EXPECT_GT(grown_, 0);
  }

 private:
  std::string LiveParent() const {
    const std::string parent = dir_ / "live";
    EXPECT_OK(base::SystemFiles().CreateDirs(parent));
    return parent;
  }

  void Open() {
    auto blobs = chunkstore::local::LocalBlobStore::Open(base::SystemFiles(), dir_.path());
    ASSERT_OK(blobs);
    blobs_ = *std::move(blobs);
    auto meta = chunkstore::local::OpenLocalMetaStore(dir_ / "meta", {});
    ASSERT_OK(meta);
    meta_ = *std::move(meta);
    chunkstore::ChunkStoreOptions options;
    options.lease_ms = 0;
    options.background_bytes_per_s = 0;
    auto chunks =
        chunkstore::ChunkStore::Open(options, *blobs_, *meta_, base::SystemClock(), metrics_);
    ASSERT_OK(chunks);
    chunks_ = *std::move(chunks);
    // Without being told where: what is left says it.
    auto store = chunk::ChunkVolumeStore::Open({.dir = dir_ / "layers", .background = false},
                                               base::SystemFiles(), *chunks_, *meta_, metrics_);
    ASSERT_OK(store);
    store_ = *std::move(store);
  }
  void Close() {
    store_.reset();
    chunks_.reset();
    meta_.reset();
    blobs_.reset();
  }

  // Only what was being made or removed when the kill came may be there.
  void DropUnacknowledged(const std::string& id, bool snapshot) {
    EXPECT_TRUE(maybe_.contains(id)) << id << " was removed, or never asked for";
    EXPECT_OK(snapshot ? store_->RemoveSnapshot(id) : store_->Remove(id));
  }

  using Words = std::vector<std::string>;

  void Note(const std::string& said) {
    std::map<std::string, Words> pending;  // by thread
    std::istringstream lines(said);
    std::string line;
    while (std::getline(lines, line) && !lines.eof()) {
      std::istringstream split(line);
      Words words;
      for (std::string word; split >> word;) words.push_back(word);
      ASSERT_NE(words[0], "failed") << line;
      Words& doing = pending[words[0]];
      if (words[1] == "ok") Acknowledge(doing);
      if (words[1] != "ok" && words[1] != "no") {
        words.erase(words.begin());
        doing = words;
        if (doing[0] == "rm") volumes_.erase(doing[1]);
        if (doing[0] == "unsnap") snapshots_.erase(doing[1]);
      } else {
        doing.clear();
      }
    }
    for (const auto& [thread, doing] : pending) {
      if (!doing.empty()) Doubt(doing);
    }
  }

  void Acknowledge(const Words& did) {
    const std::string& verb = did[0];
    if (verb == "new") sizes_[did[1]] = {kSizeBytes};
    if (verb == "of" || verb == "copy") sizes_[did[1]] = sizes_[did[2]];
    if (verb == "snap") sizes_[did[2]] = sizes_[did[1]];
    if (verb == "grow") {
      ++grown_;
      sizes_[did[1]] = {std::stoull(did[2])};
    }
    if (verb == "new") volumes_[did[1]] = {};
    if (verb == "of") volumes_[did[1]].now = snapshots_[did[2]];
    if (verb == "copy") volumes_[did[1]].now = volumes_[did[2]].now;
    if (verb == "copy") volumes_[did[2]].may.clear();
    if (verb == "snap") {
      ++taken_;
      volumes_[did[1]].may.clear();
      snapshots_[did[2]] = volumes_[did[1]].now;
    }
    if (verb == "revert") volumes_[did[1]] = {snapshots_[did[2]], {}};
    if (verb == "flush") {
      ++flushes_;
      volumes_[did[1]].may.clear();
      unflushed_[did[1]].clear();
    }
    if (verb == "put") {
      ++writes_;
      Put(did, true);
    }
  }

  // The kill came before it was acknowledged.
  void Doubt(const Words& did) {
    const std::string& verb = did[0];
    if (verb == "put") Put(did, false);
    if (verb == "grow") sizes_[did[1]].insert(std::stoull(did[2]));
    if (verb == "revert") volumes_[did[1]].MayBe(snapshots_[did[2]]);
    if (verb == "new" || verb == "of" || verb == "copy" || verb == "rm" || verb == "unsnap")
      maybe_.insert(did[1]);
    if (verb == "snap") maybe_.insert(did[2]);
  }

  void Put(const Words& did, bool acknowledged) {
    const uint64_t first = std::stoull(did[2]);
    const uint64_t count = std::stoull(did[3]);
    const uint64_t stamp = std::stoull(did[4]);
    VolumeModel& volume = volumes_[did[1]];
    for (uint64_t sector = first; sector < first + count; ++sector) {
      if (!live_ || !acknowledged) volume.Write(sector, stamp, acknowledged);
      if (!live_ || !acknowledged) continue;
      volume.Keep(sector, stamp);
      unflushed_[did[1]].insert(sector);
    }
  }

  support::TempDir dir_;
  bool live_ = true;  // the child's maps outlive it
  std::map<std::string, std::set<uint64_t>> unflushed_;
  size_t kept_unflushed_ = 0;
  base::Metrics metrics_;
  std::unique_ptr<chunkstore::BlobStore> blobs_;
  std::unique_ptr<chunkstore::MetaStore> meta_;
  std::unique_ptr<chunkstore::ChunkStore> chunks_;
  std::unique_ptr<VolumeStore> store_;
  std::map<std::string, VolumeModel> volumes_;
  std::map<std::string, Sectors> snapshots_;
  std::map<std::string, std::set<uint64_t>> sizes_;  // that a volume or snapshot may have
  std::set<std::string> maybe_;
  int writes_ = 0;
  int flushes_ = 0;
  int taken_ = 0;
  int grown_ = 0;
};

TEST(VolumeKill, KilledAtAnyPointVolumesAndSnapshotsAreWhatWasAcknowledged) {
  ASSERT_TRUE(base::SetLogLevel("error"));
  const char* wanted = std::getenv("CRASH_ROUNDS");
  const int rounds = wanted ? std::atoi(wanted) : kDefaultRounds;
  PreferMemory();
  KillHarness harness;
  for (int round = 1; round <= rounds && !::testing::Test::HasFailure(); ++round) {
    SCOPED_TRACE("round " + std::to_string(round));
    harness.RunAndKill(static_cast<uint64_t>(round));
    if (!::testing::Test::HasFailure()) harness.Check();
  }
  if (!::testing::Test::HasFailure()) harness.End();
}

}  // namespace
}  // namespace blockd::chunk::testing
