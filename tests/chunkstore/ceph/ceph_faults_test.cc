#include <atomic>
#include <chrono>
#include <csignal>
#include <thread>
#include <vector>

#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include "chunkstore/ceph/ceph_blob_store.h"
#include "chunkstore/ceph/ceph_meta_store.h"
#include "tests/chunkstore/ceph/cluster_fixture.h"
#include "tests/chunkstore/ceph/meta_harness.h"

// What happens to both stores when the cluster under them breaks. Three OSDs, two copies.

namespace chunkstore::ceph {
namespace {

using base::Code;

std::string Bytes(int seed, size_t size) {
  std::string bytes(size, '\0');
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>((i * 31 + i / 4096) ^ seed);
  return bytes;
}

base::Result<void> Put(BlobStore& store, const std::string& name, const std::string& text) {
  base::ByteView piece = base::AsBytes(text);
  return store.Put(name, {&piece, 1});
}

base::Result<std::string> GetAll(BlobStore& store, const std::string& name, size_t size) {
  std::string text(size, '\0');
  RETURN_IF_ERROR(store.Get(name, 0, {reinterpret_cast<uint8_t*>(text.data()), size}));
  return text;
}

// Adds one to a counter; how often it begins anew does not matter.
base::Result<void> Increment(MetaStore& store, const std::string& key) {
  for (;;) {
    base::Result<std::string> value = store.Get("p", key);
    if (!value && value.error().code() != Code::kNotFound) return std::move(value).error();
    MetaBatch batch;
    value ? batch.ExpectValue(key, *value) : batch.ExpectAbsent(key);
    batch.Put(key, std::to_string((value ? std::stoi(*value) : 0) + 1));
    base::Result<void> done = store.Commit("p", batch);
    if (done || done.error().code() != Code::kConflict) return done;
  }
}

int SumOfCounters(MetaStore& store) {
  int sum = 0;
  EXPECT_OK(store.Scan("p", "", "", SIZE_MAX, [&](std::string_view, std::string_view value) {
    sum += std::stoi(std::string(value));
    return true;
  }));
  return sum;
}

TEST(CephFaultsTest, AnOsdAndTheMonitorDieWhileAllIsInUse) {
  const std::string space = base::NewUuidHex();
  std::atomic<bool> done = false;
  std::atomic<int> increments = 0, puts = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      auto cluster = ConnectForTest(space);
      auto meta = NewOmapMetaStore(OpenRadosObjects(cluster), TinyOptions());
      auto blobs = OpenCephBlobStore(cluster);
      for (int i = 0; !done; ++i) {
        ASSERT_OK(Increment(*meta, "counter" + std::to_string(i % 9)));
        ++increments;
        const int number = t * 100'000 + i;
        ASSERT_OK(Put(*blobs, fmt::format("{:x}", number), Bytes(number, 20'000)));
        ++puts;
      }
    });
  }
  // Each step waits until work goes on after it.
  auto wait_for_work = [&] {
    for (int until = increments + 40; increments < until && !::testing::Test::HasFailure();) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  };
  wait_for_work();
  // Always the same OSD: another may have the only copy of what this one missed.
  for (const char* words :
       {"kill osd.0", "start osd.0", "kill mon.a", "start mon.a", "kill osd.0", "start osd.0"}) {
    Tool(words);
    wait_for_work();
  }
  done = true;
  for (std::thread& thread : threads) thread.join();
  auto cluster = ConnectForTest(space);
  auto meta = NewOmapMetaStore(OpenRadosObjects(cluster), TinyOptions());
  EXPECT_EQ(SumOfCounters(*meta), increments);
  auto blobs = OpenCephBlobStore(cluster);
  int found = 0;
  ASSERT_OK(blobs->List([&](std::string_view name, uint64_t size) {
    const int number = std::stoi(std::string(name), nullptr, 16);
    auto text = GetAll(*blobs, std::string(name), size);
    EXPECT_OK(text);
    EXPECT_TRUE(text && *text == Bytes(number, 20'000)) << name;
    ++found;
    return true;
  }));
  EXPECT_EQ(found, puts);
}

// A process that commits and moves keys, told apart by its id; killed whenever.
TEST(CephFaultsTest, KilledProcessesLoseNothing) {
  const std::string space = base::NewUuidHex();
  int acknowledged = 0;
  for (int round = 0; round < 12; ++round) {
    int pipe_ends[2];
    ASSERT_EQ(pipe(pipe_ends), 0);
    const pid_t child = fork();
    if (child == 0) {
      close(pipe_ends[0]);
      auto cluster = Cluster::Connect(OptionsOfTest(space));
      if (!cluster) _exit(1);
      auto meta = NewOmapMetaStore(OpenRadosObjects(*cluster), TinyOptions());
      for (int i = 0;; ++i) {
        if (!Increment(*meta, "counter" + std::to_string(i % 17))) _exit(1);
        if (write(pipe_ends[1], "x", 1) != 1) _exit(1);
      }
    }
    close(pipe_ends[1]);
    char byte;
    int seen = 0;
    while (seen < 30 + round * 3 && read(pipe_ends[0], &byte, 1) == 1) ++seen;
    kill(child, SIGKILL);
    while (read(pipe_ends[0], &byte, 1) == 1) ++seen;
    close(pipe_ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status)) << "it ended by itself";
    acknowledged += seen;
    auto meta = NewOmapMetaStore(OpenRadosObjects(ConnectForTest(space)), TinyOptions());
    const int sum = SumOfCounters(*meta);
    // One more may have happened without its acknowledgement having been seen.
    EXPECT_GE(sum, acknowledged);
    EXPECT_LE(sum, acknowledged + 1);
    acknowledged = sum;
  }
}

TEST(CephFaultsTest, AFullPoolIsAnErrorAndDeletesWork) {
  auto cluster = ConnectForTest();
  auto blobs = OpenCephBlobStore(cluster);
  auto meta = OpenCephMetaStore(cluster).value();
  ASSERT_OK(meta->Commit("p", MetaBatch().Put("k", "1")));
  const std::string text = Bytes(1, 4 << 20);
  for (int i = 0; i < 12; ++i) ASSERT_OK(Put(*blobs, fmt::format("{:x}", i), text));
  // Much less than what is used by now.
  Shell(
      "ceph osd set-nearfull-ratio 0.0001; ceph osd set-backfillfull-ratio 0.00015;"
      "ceph osd set-full-ratio 0.0002");
  base::Result<void> put;
  for (int i = 100; i < 1000 && put; ++i) put = Put(*blobs, fmt::format("{:x}", i), text);
  EXPECT_ERROR(put, Code::kOutOfSpace);
  EXPECT_EQ(GetAll(*blobs, "1", text.size()).value(), text);
  ASSERT_OK(blobs->Remove("1"));
  EXPECT_ERROR(blobs->Size("1"), Code::kNotFound);
  EXPECT_OK(meta->Commit("p", MetaBatch().Delete("k")));
  Shell(
      "ceph osd set-full-ratio 0.95; ceph osd set-backfillfull-ratio 0.94;"
      "ceph osd set-nearfull-ratio 0.93");
  put = base::Error(Code::kOutOfSpace, "not yet");
  for (int i = 2000; i < 3000 && !put; ++i) put = Put(*blobs, fmt::format("{:x}", i), text);
  EXPECT_OK(put);
}

TEST(CephFaultsTest, DamageIsFound) {
  const std::string space = base::NewUuidHex();
  auto cluster = ConnectForTest(space);
  auto blobs = OpenCephBlobStore(cluster);
  ASSERT_OK(Put(*blobs, "aa", Bytes(1, 10'000)));
  Shell("rados -p chunks -N " + space + " truncate blob.aa 5000");
  EXPECT_ERROR(GetAll(*blobs, "aa", 10'000), Code::kCorruption);

  CephMetaOptions options = TinyOptions();
  auto meta = NewOmapMetaStore(OpenRadosObjects(cluster), options);
  ASSERT_OK(meta->Commit("p", MetaBatch().Put("k", "1")));
  Shell("printf nonsense | rados -p meta -N " + space + " setomapval meta.head.p D");
  auto other = NewOmapMetaStore(OpenRadosObjects(cluster), options);
  EXPECT_ERROR(other->Get("p", "k"), Code::kCorruption);
  EXPECT_ERROR(other->Commit("p", MetaBatch().Put("k", "2")), Code::kCorruption);
}

TEST(CephFaultsTest, WhoIsShutOutIsTold) {
  auto cluster = ConnectForTest();
  auto blobs = OpenCephBlobStore(cluster);
  ASSERT_OK(Put(*blobs, "aa", "x"));
  ASSERT_OK_AND_ASSIGN(const std::string address, cluster->Address());
  Shell("ceph osd blocklist add " + address + " 60");
  // Until the OSDs have heard of it.
  base::Result<void> put;
  for (int i = 0; i < 10'000 && put; ++i) put = Put(*blobs, fmt::format("b{:x}", i), "x");
  EXPECT_ERROR(put, Code::kUnavailable);
  EXPECT_NE(put.error().message().find("restart"), std::string::npos) << put.error().message();
  EXPECT_EQ(GetAll(*OpenCephBlobStore(ConnectForTest()), "aa", 1).error().code(), Code::kNotFound);
}

TEST(CephFaultsTest, NoOsdAnswers) {
  ClusterOptions options = OptionsOfTest();
  options.operation_timeout_ms = 1000;
  ASSERT_OK_AND_ASSIGN(auto cluster, Cluster::Connect(options));
  auto blobs = OpenCephBlobStore(cluster);
  auto meta = OpenCephMetaStore(cluster).value();
  ASSERT_OK(Put(*blobs, "aa", "x"));
  ASSERT_OK(meta->Commit("p", MetaBatch().Put("k", "1")));
  for (int osd = 0; osd < 3; ++osd) Tool("kill osd." + std::to_string(osd));
  EXPECT_ERROR(Put(*blobs, "ab", "x"), Code::kUnavailable);
  EXPECT_ERROR(GetAll(*blobs, "aa", 1), Code::kUnavailable);
  EXPECT_ERROR(meta->Commit("p", MetaBatch().Put("k", "2")), Code::kUnavailable);
  EXPECT_ERROR(meta->Get("p", "k"), Code::kUnavailable);
  for (int osd = 0; osd < 3; ++osd) Tool("start osd." + std::to_string(osd));
  base::Result<std::string> read = base::Error(Code::kUnavailable, "not yet");
  for (int i = 0; i < 60 && !read; ++i) read = meta->Get("p", "k");
  ASSERT_OK(read);
  EXPECT_EQ(*read, "1");
}

TEST(CephFaultsTest, ConnectSaysWhatIsWrong) {
  ClusterOptions options = OptionsOfTest();
  options.pool = "nonesuch";
  auto connected = Cluster::Connect(options);
  ASSERT_ERROR(connected, Code::kNotFound);
  EXPECT_NE(connected.error().message().find("ceph osd pool create nonesuch"), std::string::npos)
      << connected.error().message();
  options = OptionsOfTest();
  options.user = "nobody";
  EXPECT_ERROR(Cluster::Connect(options), Code::kPermissionDenied);
  options = OptionsOfTest();
  options.conf_path = "/nonesuch/ceph.conf";
  EXPECT_ERROR(Cluster::Connect(options), Code::kInvalidArgument);
  Tool("kill mon.a");
  options = OptionsOfTest();
  options.connect_timeout_ms = 1000;
  EXPECT_ERROR(Cluster::Connect(options), Code::kUnavailable);
  Tool("start mon.a");
}

// The caps that the README gives are enough, and keep a user to its namespace.
TEST(CephFaultsTest, AUserNeedsNoMoreThanTheReadmeSays) {
  Shell(
      "ceph auth get-or-create client.quarry mon 'allow r' osd 'allow rw pool=chunks "
      "namespace=quarry, allow rw pool=meta namespace=quarry' >> $(dirname $CEPH_CONF)/keyring");
  ClusterOptions options = OptionsOfTest("quarry");
  options.user = "quarry";
  ASSERT_OK_AND_ASSIGN(auto cluster, Cluster::Connect(options));
  auto blobs = OpenCephBlobStore(cluster);
  ASSERT_OK(Put(*blobs, "aa", "x"));
  int listed = 0;
  ASSERT_OK(blobs->List([&](std::string_view, uint64_t) { return ++listed > 0; }));
  EXPECT_EQ(listed, 1);
  EXPECT_OK(blobs->Space());
  ASSERT_OK(blobs->Remove("aa"));
  auto meta = NewOmapMetaStore(OpenRadosObjects(cluster), TinyOptions());
  for (int i = 0; i < 40; ++i) ASSERT_OK(Increment(*meta, "counter" + std::to_string(i % 20)));
  EXPECT_EQ(SumOfCounters(*meta), 40);
  EXPECT_EQ(meta->Partitions("").value(), std::vector<std::string>{"p"});
  options.space = "other";
  ASSERT_OK_AND_ASSIGN(auto elsewhere, Cluster::Connect(options));
  EXPECT_ERROR(Put(*OpenCephBlobStore(elsewhere), "aa", "x"), Code::kPermissionDenied);
}

}  // namespace
}  // namespace chunkstore::ceph
