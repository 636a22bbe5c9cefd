#include <string>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "imaged/import.h"
#include "imaged/index.h"
#include "imaged/reconcile.h"
#include "tests/imaged/data/fixture.h"
#include "tests/support/results.h"

// Several services over one pair of stores, as processes beside each other are.

namespace imaged {
namespace {

using base::Result;
using support::HookedMetaStore;
using support::Puts;

constexpr size_t kChunk = chunkstore::kChunkBytes;
const Catalog::Check kAnybody = [](const Image&) -> Result<void> { return {}; };

class Processes : public testing::Test {
 protected:
  static Service::Options Shared(std::shared_ptr<Stores> stores) {
    Service::Options options = Service::Defaults();
    options.data.sole_process = false;
    options.data.import_threads = 0;  // imports run where the test says
    options.stores = std::move(stores);
    return options;
  }
  // Writes that nobody was seen to read it for a long time.
  void Age(const std::string& holder) {
    chunkstore::MetaBatch batch;
    batch.Put(ReleaseKey(holder), "1");
    ASSERT_OK(stores_->meta.Commit(kImagesPartition, batch));
  }
  size_t PendingCount() { return a_.catalog().PendingReleases(100)->size(); }

  std::shared_ptr<Stores> stores_ = std::make_shared<Stores>();
  Service a_{Shared(stores_)};
  Service b_{Shared(stores_)};
};

// The record of an image is written.
HookedMetaStore::Wanted PutsRecord() { return Puts(std::string(kImagesPartition), "i/"); }

TEST_F(Processes, ServeWhatAnyOfThemTook) {
  const std::string bytes = RandomBytes(kChunk + 777);
  const std::string id = a_.CreateImage();
  ASSERT_EQ(b_.Upload(id, bytes).status, 204);
  EXPECT_TRUE(a_.Download(id).body == bytes);
  EXPECT_EQ(a_.Call("p1", "DELETE", "/v2/images/" + id).status, 204);
  EXPECT_EQ(b_.Download(id).status, 404);
}

TEST_F(Processes, AThirdOnesStartLeavesUploadsAlone) {
  const std::string bytes = RandomBytes(2 * kChunk);
  const std::string id = a_.CreateImage();
  RawClient client(a_.address());
  client.Send(Service::Head("p1", "PUT", "/v2/images/" + id + "/file",
                            fmt::format("Content-Type: application/octet-stream\r\n"
                                        "Content-Length: {}\r\n",
                                        bytes.size())));
  client.Send(std::string_view(bytes).substr(0, kChunk));
  ASSERT_TRUE(a_.Eventually([&] { return a_.ImageOf(id).status == Status::kSaving; }));
  Service third(Shared(stores_));
  EXPECT_EQ(third.ImageOf(id).status, Status::kSaving);
  client.Send(std::string_view(bytes).substr(kChunk));
  EXPECT_EQ(client.ReadAnswer().status, 204);
  EXPECT_TRUE(third.Download(id).body == bytes);
}

// An answer that is lost must not cost the bytes of an image that is active.
TEST_F(Processes, KeepTheBytesWhereTheLastAnswerIsLost) {
  const std::string bytes = RandomBytes(kChunk);
  const std::string id = a_.CreateImage();
  a_.meta().LoseAnswer([](std::string_view partition, const chunkstore::MetaBatch& batch) {
    for (const auto& change : batch.changes())
      if (partition == kImagesPartition && change.value.has_value() &&
          change.value->find("\"active\"") != std::string::npos)
        return true;
    return false;
  });
  EXPECT_GE(a_.Upload(id, bytes).status, 500);
  ASSERT_EQ(b_.ImageOf(id).status, Status::kActive);
  ASSERT_OK(b_.store().Collect(true, nullptr));
  EXPECT_TRUE(b_.Download(id).body == bytes);
}

TEST_F(Processes, CallOffNoUploadThatIsKeptMeanwhile) {
  const std::string id = a_.CreateImage();
  const std::string holder = NewHolder(id);
  ASSERT_OK(a_.catalog().BeginUpload(id, UploadKind::kData, holder, -1, 0, kAnybody));
  b_.meta().BeforeCommit(PutsRecord(),
                         [&] { ASSERT_OK(a_.catalog().RenewUpload(id, holder, 60'000, 0)); });
  ASSERT_OK(Reconcile(b_.path(), Recovery::kRunning));
  EXPECT_EQ(b_.ImageOf(id).status, Status::kSaving);
  ASSERT_OK(Reconcile(b_.path(), Recovery::kRunning));
  EXPECT_EQ(b_.ImageOf(id).status, Status::kSaving);
}

// One that was stopped for long wakes and finishes, while recovery is about to give it up.
TEST_F(Processes, CallOffNoUploadThatEndsMeanwhile) {
  const std::string bytes = RandomBytes(kChunk);
  const std::string id = a_.CreateImage();
  const std::string holder = NewHolder(id);
  ASSERT_OK(a_.catalog().BeginUpload(id, UploadKind::kData, holder, -1, 0, kAnybody));
  ASSERT_OK_AND_ASSIGN(auto ingest, a_.store().NewIngest(holder, ""));
  ASSERT_OK(ingest->Put(0, base::AsBytes(bytes)));
  ASSERT_OK_AND_ASSIGN(const chunkstore::Root root, ingest->Finish(bytes.size()));
  b_.meta().BeforeCommit(PutsRecord(), [&] {
    ASSERT_OK(a_.path().Activate(id, holder, holder, root, std::nullopt, {{"sha256", "ab"}}));
  });
  ASSERT_OK(Reconcile(b_.path(), Recovery::kRunning));
  EXPECT_EQ(b_.ImageOf(id).status, Status::kActive);
  EXPECT_EQ(PendingCount(), 0U);
  ASSERT_OK(b_.store().Collect(true, nullptr));
  EXPECT_TRUE(b_.Download(id).body == bytes);
}

TEST_F(Processes, KeepBytesThatAnotherReads) {
  const std::string bytes = RandomBytes(kChunk);
  const std::string id = a_.CreateImage();
  ASSERT_EQ(a_.Upload(id, bytes).status, 204);
  const StoredData data = *a_.ImageOf(id).data;
  auto reading = std::make_unique<DataPath::Reading>(b_.path(), data.holder);
  ASSERT_EQ(a_.Call("p1", "DELETE", "/v2/images/" + id).status, 204);
  ASSERT_OK_AND_ASSIGN(size_t released, a_.path().ReleasePending());
  EXPECT_EQ(released, 0U) << "somebody may read it";

  // The reader is seen, for longer than anybody else waits.
  b_.path().Stop();
  a_.path().Stop();
  Age(data.holder);
  ASSERT_OK(b_.path().ReleasePending());
  ASSERT_OK_AND_ASSIGN(released, a_.path().ReleasePending());
  EXPECT_EQ(released, 0U);
  ASSERT_OK(ReleaseOrphans(a_.path(), Recovery::kAfterCrash));
  ASSERT_OK(a_.store().Collect(true, nullptr));
  ASSERT_OK_AND_ASSIGN(const auto content, b_.store().Open(data.root));
  std::string read(bytes.size(), '\0');
  ASSERT_OK(content->ReadAt(0, {reinterpret_cast<uint8_t*>(read.data()), read.size()}));
  EXPECT_TRUE(read == bytes);

  reading.reset();
  Age(data.holder);
  ASSERT_OK_AND_ASSIGN(released, a_.path().ReleasePending());
  EXPECT_EQ(released, 1U);
  EXPECT_EQ(PendingCount(), 0U);
  EXPECT_EQ(a_.BytesAfterCollect(), 0U);
}

// A process keeps the leases of what it has under way, also where the client sends nothing.
TEST_F(Processes, KeepTheLeasesOfTheirUploads) {
  class Counting : public chunkstore::Ingest {
   public:
    Result<PutInfo> Put(uint64_t, base::ByteView) override { return PutInfo{}; }
    Result<PutInfo> PutHashed(uint64_t, base::ByteView, const base::Digest256&) override {
      return PutInfo{};
    }
    Result<bool> PutKnown(uint64_t, uint32_t, const base::Digest256&) override { return true; }
    Result<void> PutHole(uint64_t) override { return {}; }
    Result<void> Renew() override {
      ++renewed;
      return {};
    }
    Result<chunkstore::Root> Finish(uint64_t) override { return chunkstore::Root{}; }
    Result<void> Abort() override { return {}; }
    std::atomic<int> renewed{0};
  };
  Service::Options options = Shared(stores_);
  options.data.lease_ms = 300;
  Service quick(options);
  const std::string id = quick.CreateImage();
  const std::string holder = NewHolder(id);
  ASSERT_OK(quick.catalog().BeginUpload(id, UploadKind::kData, holder, 1, 0, kAnybody));
  const int64_t before_us = quick.ImageOf(id).upload->lease_until_us;
  const auto ingest = std::make_shared<Counting>();
  const DataPath::Active active(quick.path(), id, holder, [] {}, ingest);
  EXPECT_TRUE(quick.Eventually(
      [&] { return ingest->renewed > 1 && quick.ImageOf(id).upload->lease_until_us > before_us; }));
}

TEST_F(Processes, EndATaskOnce) {
  ImportTask task;
  task.owner = "p1";
  ASSERT_OK_AND_ASSIGN(task, a_.path().tasks().Create(task));
  // While one is about to say that it runs, the other ends it.
  a_.meta().BeforeCommit(Puts("tasks", "t/"),
                         [&] { ASSERT_OK(b_.path().tasks().SetStatus(task.id, "success", "")); });
  ASSERT_OK_AND_ASSIGN(const ImportTask then,
                       a_.path().tasks().SetStatus(task.id, "processing", ""));
  EXPECT_EQ(then.status, "success");
  ASSERT_OK(a_.path().tasks().SetStatus(task.id, "failure", "late"));
  ASSERT_OK_AND_ASSIGN(const ImportTask ended, b_.path().tasks().Get(task.id));
  EXPECT_EQ(ended.status, "success");
  EXPECT_EQ(ended.message, "");
}

TEST_F(Processes, FailATaskThatNeverGotAJob) {
  ImportTask task;
  task.owner = "p1";
  ASSERT_OK_AND_ASSIGN(task, a_.path().tasks().Create(task));
  ASSERT_OK(FailLostTasks(b_.path(), Recovery::kRunning));
  EXPECT_EQ(a_.path().tasks().Get(task.id)->status, "pending") << "it may get one";
  ASSERT_OK(FailLostTasks(b_.path(), Recovery::kAfterCrash));
  EXPECT_EQ(a_.path().tasks().Get(task.id)->status, "failure");
}

// An import that is taken over, and whose first worker comes back, ends once, and well.
TEST_F(Processes, ImportOnceWhoeverIsFaster) {
  const std::string bytes = RandomBytes(kChunk + 5);
  const std::string id = a_.CreateImage();
  ASSERT_EQ(
      a_.Call("p1", "PUT", "/v2/images/" + id + "/stage", bytes, "application/octet-stream").status,
      204);
  ASSERT_EQ(a_.Call("p1", "POST", "/v2/images/" + id + "/import",
                    R"({"method":{"name":"glance-direct"}})")
                .status,
            202);
  ASSERT_OK_AND_ASSIGN(const auto job, a_.path().journal().Claim(kImportJob, -1));
  ASSERT_TRUE(job.has_value());
  ASSERT_OK_AND_ASSIGN(const auto taken_over, b_.path().journal().Claim(kImportJob, 60'000));
  ASSERT_TRUE(taken_over.has_value());
  const chunkstore::jobs::JobControl control;
  bool other_done = false;
  a_.meta().BeforeCommit(
      [](std::string_view partition, const chunkstore::MetaBatch& batch) {
        return partition == kImagesPartition && batch.changes().size() > 2;
      },
      [&] {
        const auto outcome = RunImport(b_.path(), *taken_over, control);
        other_done = outcome.has_value() && outcome->done;
      });
  ASSERT_OK_AND_ASSIGN(const auto outcome, RunImport(a_.path(), *job, control));
  EXPECT_TRUE(outcome.done);
  EXPECT_TRUE(other_done);
  EXPECT_ERROR(a_.path().journal().Remove(*job), base::Code::kConflict);
  EXPECT_OK(b_.path().journal().Remove(*taken_over));
  ASSERT_OK_AND_ASSIGN(const auto tasks, a_.path().tasks().OfImage(id));
  ASSERT_EQ(tasks.size(), 1U);
  EXPECT_EQ(tasks[0].status, "success") << tasks[0].message;
  ASSERT_OK(b_.path().ReleasePending());
  ASSERT_OK(b_.store().Collect(true, nullptr));
  EXPECT_TRUE(b_.Download(id).body == bytes);
  EXPECT_EQ(a_.catalog().UsageOfProject("p1")->bytes, bytes.size());
}

}  // namespace
}  // namespace imaged
