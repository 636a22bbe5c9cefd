#include "blockd/nbd_exports.h"

#include <thread>

#include <gtest/gtest.h>

#include "blockd/memory/memory_volume.h"
#include "tests/blockd/nbd/client.h"
#include "tests/blockd/world.h"
#include "tests/support/temp_dir.h"

// Attachments as the API publishes them, against the real NBD server and a client.

namespace blockd {
namespace {

using base::Code;

// One volume for all ids.
class OneVolumeStore : public FakeVolumeStore {
 public:
  using FakeVolumeStore::FakeVolumeStore;
  base::Result<std::shared_ptr<Volume>> Open(const std::string&) override { return volume; }
  base::Result<std::shared_ptr<ChangedBlocks>> ChangedSince(
      const std::string& volume_id, const std::string& snapshot_id) override {
    return base::Error(Code::kUnavailable, volume_id + " since " + snapshot_id);
  }
  base::Result<std::shared_ptr<ChangedBlocks>> ChangedSinceContent(
      const std::string& volume_id, const std::string& holder) override {
    return base::Error(Code::kUnavailable, volume_id + " since " + holder);
  }
  std::shared_ptr<Volume> volume = std::make_shared<memory::MemoryVolume>(base::kGiB);
};

class NbdExportsTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(server_, nbd::Server::Create({}, attachments_, metrics_));
    ASSERT_OK(server_->ListenUnix(socket_));
    exports_ =
        std::make_unique<NbdExports>(NbdAddress{"127.0.0.1", 10809, false}, store_, *attachments_,
                                     *server_, NbdExports::Pace{base::SystemClock()});
  }
  void TearDown() override { server_->Stop(0); }

  ExportSpec Spec(const std::string& id, const std::string& volume_id = "v") {
    ExportSpec spec;
    spec.attachment_id = id;
    spec.secret = "secret-of-" + id;
    spec.volume_id = volume_id;
    spec.project_id = "p";
    spec.size_gb = 1;
    return spec;
  }
  bool Opens(const std::string& name) { return nbd::Client(socket_).Go(name); }

  support::FaultPlan plan_;
  OneVolumeStore store_{plan_};
  base::Metrics metrics_;
  support::TempDir dir_;
  const std::string socket_ = dir_.path() + "/nbd";
  std::shared_ptr<nbd::Attachments> attachments_ = std::make_shared<nbd::Attachments>();
  std::unique_ptr<nbd::Server> server_;
  std::unique_ptr<NbdExports> exports_;
};

TEST_F(NbdExportsTest, OnlyTheNameOpensAndOnlyUntilItIsWithdrawn) {
  const auto data = exports_->Publish(Spec("a"));
  ASSERT_OK(data);
  const std::string name = *base::FindString(*data, "export");
  EXPECT_EQ(name, "a.secret-of-a");
  EXPECT_EQ(*base::FindString(*data, "uri"), "nbd://127.0.0.1:10809/a.secret-of-a");
  EXPECT_EQ(*exports_->Publish(Spec("a")), *data) << "again is fine";
  EXPECT_FALSE(Opens("a"));
  EXPECT_FALSE(Opens("a.secret-of-b"));
  EXPECT_FALSE(exports_->IsConnected("a"));
  {
    nbd::Client client(socket_);
    ASSERT_TRUE(client.Go(name));
    EXPECT_TRUE(exports_->IsConnected("a"));
    ASSERT_OK(exports_->Withdraw("a"));
    EXPECT_FALSE(Opens(name));
  }
  EXPECT_FALSE(exports_->IsConnected("a"));
  ASSERT_OK(exports_->Withdraw("a"));
  ASSERT_OK(exports_->Publish(Spec("b")));
  EXPECT_TRUE(Opens("b.secret-of-b"));
}

TEST_F(NbdExportsTest, OneWriterUnlessDeclared) {
  ASSERT_OK(exports_->Publish(Spec("a")));
  const auto second = exports_->Publish(Spec("b"));
  ASSERT_FALSE(second.has_value());
  EXPECT_EQ(second.error().code(), Code::kConflict);
  ExportSpec shared = Spec("c", "w");
  shared.multi_attach = true;
  ASSERT_OK(exports_->Publish(shared));
  shared.attachment_id = "d";
  ASSERT_OK(exports_->Publish(shared));
}

TEST_F(NbdExportsTest, WhatChangedIsToldSinceSnapshotsOfTheProject) {
  const auto right = [](std::string_view project_id, std::string_view snapshot_id) {
    return base::Result<bool>(snapshot_id == "of-" + std::string(project_id));
  };
  NbdExports exports(NbdAddress{"127.0.0.1", 10809, false}, store_, *attachments_, *server_,
                     NbdExports::Pace{base::SystemClock()}, right);
  ASSERT_OK(exports.Publish(Spec("a")));
  ASSERT_OK_AND_ASSIGN(const auto exported, attachments_->Open("a.secret-of-a"));
  EXPECT_EQ(exported->changed_since("of-p").error().message(), "v since of-p");
  EXPECT_ERROR(exported->changed_since("of-q"), Code::kNotFound);
}

TEST_F(NbdExportsTest, WhatChangedIsToldSinceImagesThatTheProjectReads) {
  const auto holder = [](std::string_view project_id,
                         std::string_view image_id) -> base::Result<std::string> {
    if (image_id != "of-" + std::string(project_id)) return base::Error(Code::kNotFound, "no");
    return "holder of " + std::string(image_id);
  };
  NbdExports exports(NbdAddress{"127.0.0.1", 10809, false}, store_, *attachments_, *server_,
                     NbdExports::Pace{base::SystemClock()}, nullptr, holder);
  ASSERT_OK(exports.Publish(Spec("a")));
  ASSERT_OK_AND_ASSIGN(const auto exported, attachments_->Open("a.secret-of-a"));
  EXPECT_EQ(exported->changed_since_image("of-p").error().message(), "v since holder of of-p");
  EXPECT_ERROR(exported->changed_since_image("of-q"), Code::kNotFound);
  ASSERT_OK(exports_->Publish(Spec("b", "w")));
  ASSERT_OK_AND_ASSIGN(const auto without, attachments_->Open("b.secret-of-b"));
  EXPECT_ERROR(without->changed_since_image("of-p"), Code::kNotFound);
}

// The clock stands still: what waits for a limit goes when the limit does.
TEST_F(NbdExportsTest, AProjectsLimitHoldsForAllItsVolumesAndAtOnce) {
  base::ManualClock clock;
  NbdExports exports(NbdAddress{"127.0.0.1", 10809, false, ""}, store_, *attachments_, *server_,
                     NbdExports::Pace{clock, nullptr, &metrics_});
  ASSERT_OK(exports.SetProjectLimits("p", {{"total_iops_sec", "1"}}));
  ASSERT_OK(exports.Publish(Spec("a", "v")));
  ASSERT_OK(exports.Publish(Spec("b", "w")));
  ExportSpec others = Spec("c", "x");
  others.project_id = "another";
  ASSERT_OK(exports.Publish(others));
  nbd::Client first(socket_);
  nbd::Client second(socket_);
  nbd::Client stranger(socket_);
  ASSERT_TRUE(first.Go("a.secret-of-a"));
  ASSERT_TRUE(second.Go("b.secret-of-b"));
  ASSERT_TRUE(stranger.Go("c.secret-of-c"));
  const nbd::Request read = {nbd::Command::kRead, 0, 7, 0, 512};
  EXPECT_EQ(first.Call(read).error, nbd::WireError::kOk) << "the one of this second";
  ASSERT_TRUE(second.Send(nbd::Client::Encode(read)));
  EXPECT_EQ(stranger.Call(read).error, nbd::WireError::kOk);
  EXPECT_EQ(stranger.Call(read).error, nbd::WireError::kOk) << "no limit of another project's";
  // The other volume's request waits, and goes when the limit is taken off.
  const std::string waited = "quarry_qos_waited_requests_total{volume=\"w\"} 1\n";
  while (metrics_.Render().find(waited) == std::string::npos) std::this_thread::yield();
  ASSERT_OK(exports.SetProjectLimits("p", {}));
  EXPECT_EQ(second.ReceiveAnswer(512).error, nbd::WireError::kOk);
  EXPECT_EQ(first.Call(read).error, nbd::WireError::kOk);
  EXPECT_ERROR(exports.SetProjectLimits("p", {{"total_iops_sec", "-1"}}), Code::kInvalidArgument);
  for (const char* id : {"a", "b", "c"}) ASSERT_OK(exports.Withdraw(id));
}

TEST_F(NbdExportsTest, AVolumeThatIsForgottenLeavesTheMetrics) {
  NbdExports exports(NbdAddress{"127.0.0.1", 10809, false, ""}, store_, *attachments_, *server_,
                     NbdExports::Pace{base::SystemClock(), nullptr, &metrics_});
  const auto shown = [&] { return metrics_.Render().find("volume=\"v\"") != std::string::npos; };
  ASSERT_OK(exports.Publish(Spec("a")));
  ASSERT_OK(exports.Withdraw("a"));
  EXPECT_TRUE(shown()) << "counters stay from one attachment to the next";
  ExportSpec given_away = Spec("b");
  given_away.project_id = "another";
  ASSERT_OK(exports.Publish(given_away));
  ASSERT_OK(exports.Withdraw("b"));
  exports.Forget("v");
  EXPECT_FALSE(shown()) << metrics_.Render();
}

TEST_F(NbdExportsTest, LimitsThatAreNoneAreRefused) {
  ExportSpec spec = Spec("a");
  spec.qos = {{"total_iops_sec", "many"}};
  EXPECT_FALSE(exports_->Publish(spec).has_value());
  EXPECT_FALSE(exports_->SetLimits("v", 1, {{"total_iops_sec", "-1"}}).has_value());
  ASSERT_OK(exports_->SetLimits("v", 1, {{"total_iops_sec", "100"}}));
}

}  // namespace
}  // namespace blockd
