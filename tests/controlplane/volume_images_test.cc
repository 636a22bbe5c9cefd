#include "controlplane/volume_images.h"

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "base/check.h"
#include "base/hash.h"
#include "base/uuid.h"
#include "imaged/holder.h"
#include "imaged/policy.h"
#include "tests/controlplane/convert/disk_images.h"
#include "tests/imaged/data/fixture.h"
#include "tests/support/results.h"

namespace controlplane {
namespace {

using base::Code;
using base::Result;
using convert::MakeImage;
using convert::ReadBack;
using convert::SampleDisk;
using imaged::Image;
using imaged::Status;

base::auth::Caller MemberOf(std::string project) {
  base::auth::Caller caller;
  caller.user_id = "u-" + project;
  caller.project_id = std::move(project);
  caller.roles = {"member", "reader"};
  return caller;
}

// The Image API, and what volumes see of it.
class VolumeImagesTest : public testing::Test {
 protected:
  VolumeImagesTest() { Open(); }

  void Open() {
    images_ = std::make_unique<VolumeImages>(options_, service_.catalog(), service_.path(),
                                             service_.metrics());
  }
  // As a crash would: nothing is told to stop but the threads.
  void Crash() {
    images_.reset();
    service_.Restart();
    Open();
  }

  std::string NewImageOf(std::string_view bytes, std::string_view format) {
    const std::string id = service_.CreateImage("p1", format);
    CHECK(service_.Upload(id, bytes).status == 204);
    return id;
  }

  // Asks as a job does, until it is no longer on its way.
  template <typename Answer>
  Answer Ask(const std::function<Answer()>& ask) {
    Answer answer = ask();
    const bool ended = service_.Eventually([&] {
      if (answer.has_value() || answer.error().code() != Code::kUnavailable) return true;
      answer = ask();
      return false;
    });
    CHECK(ended);
    return answer;
  }
  Result<std::string> RawHolder(const std::string& id) {
    return Ask<Result<std::string>>([&] { return images_->RawHolder(id); });
  }
  Result<void> Fill(const std::string& id, const std::string& holder) {
    return Ask<Result<void>>([&] { return images_->Fill({id, holder}); });
  }

  // What a sealed snapshot is to the chunk store.
  void Hold(const std::string& holder, std::string_view bytes) {
    auto ingest = service_.store().NewIngest(holder, "");
    CHECK(ingest.has_value());
    const base::ByteView all = base::AsBytes(bytes);
    for (size_t at = 0; at < all.size(); at += chunkstore::kChunkBytes) {
      const size_t length = std::min<size_t>(chunkstore::kChunkBytes, all.size() - at);
      CHECK((*ingest)->Put(at / chunkstore::kChunkBytes, all.subspan(at, length)).has_value());
    }
    CHECK((*ingest)->Finish(bytes.size()).has_value());
  }

  size_t RawHolders() {
    const auto held = service_.store().Holders(imaged::kRawHolderPrefix, "", 100);
    CHECK(held.has_value());
    return held->size();
  }
  double Converted() {
    return service_.metrics()
        .GetCounter("quarry_image_conversions_total", "", {{"outcome", "success"}})
        .value();
  }

  // For tests that convert.
  bool CanConvert() { return convert::WhyNotTested().empty(); }

  imaged::Service service_;
  VolumeImagesOptions options_;
  std::unique_ptr<VolumeImages> images_;
  const base::auth::Caller me_ = MemberOf("p1");
};

TEST_F(VolumeImagesTest, FindTellsWhatCinderKeepsWithAVolume) {
  const std::string id = NewImageOf(std::string(base::kMiB, 'x'), "raw");
  ASSERT_OK(service_.catalog().Update(id, [](Image& image) -> Result<void> {
    image.name = "debian";
    image.min_disk_gb = 3;
    image.min_ram_mb = 512;
    image.checksum = "abc";
    image.properties["hw_disk_bus"] = "scsi";
    image.properties["os_glance_failed_import"] = "x";
    image.properties["nothing"] = std::nullopt;
    return {};
  }));
  ASSERT_OK_AND_ASSIGN(const blockd::ImageFacts facts, images_->Find(me_, id));
  EXPECT_EQ(facts.id, id);
  EXPECT_EQ(facts.name, "debian");
  EXPECT_EQ(facts.size_bytes, base::kMiB);
  EXPECT_EQ(facts.min_disk_gb, 3u);
  const std::map<std::string, std::string> metadata = {
      {"image_id", id},       {"image_name", "debian"}, {"checksum", "abc"},
      {"min_disk", "3"},      {"min_ram", "512"},       {"container_format", "bare"},
      {"disk_format", "raw"}, {"size", "1048576"},      {"hw_disk_bus", "scsi"}};
  EXPECT_EQ(facts.metadata, metadata);
}

TEST_F(VolumeImagesTest, FindsWhatTheCallerMaySeeAndVolumesCanBeMadeOf) {
  const std::string id = NewImageOf("x", "raw");
  EXPECT_ERROR(images_->Find(MemberOf("p2"), id), Code::kNotFound);
  EXPECT_ERROR(images_->Find(me_, base::NewUuid()), Code::kNotFound);
  EXPECT_ERROR(images_->Find(me_, "no-uuid"), Code::kNotFound);
  const auto queued = images_->Find(me_, service_.CreateImage("p1"));
  ASSERT_ERROR(queued, Code::kInvalidArgument);
  EXPECT_NE(queued.error().message().find("is not active"), std::string::npos);
  for (const auto& [disk, container] :
       {std::pair<std::string, std::string>{"ami", "ami"}, {"raw", "ova"}, {"ploop", "bare"}}) {
    const std::string other = service_.CreateImage("p1", disk, container);
    ASSERT_OK(service_.catalog().BeginUpload(other, imaged::UploadKind::kData,
                                             "image/" + other + "/1", 60'000, 0,
                                             [](const Image&) -> Result<void> { return {}; }));
    imaged::DataFacts facts;
    facts.virtual_size_bytes = 1;
    ASSERT_OK(service_.catalog().FinishUpload(other, "image/" + other + "/1",
                                              "image/" + other + "/1", facts));
    EXPECT_ERROR(images_->Find(me_, other), Code::kInvalidArgument) << disk << container;
  }
}

TEST_F(VolumeImagesTest, ARawImagesHolderIsItsOwn) {
  const std::string id = NewImageOf("some bytes", "raw");
  ASSERT_OK_AND_ASSIGN(const std::string holder, images_->RawHolder(id));
  EXPECT_EQ(holder, service_.ImageOf(id).data->holder);
  EXPECT_ERROR(images_->RawHolder(base::NewUuid()), Code::kNotFound);
  EXPECT_ERROR(images_->RawHolder(service_.CreateImage("p1")), Code::kNotFound);
}

TEST_F(VolumeImagesTest, OthersAreConvertedOnceAndKeptUntilTheyGo) {
  if (!CanConvert()) GTEST_SKIP() << convert::WhyNotTested();
  const std::string disk = SampleDisk();
  const std::string id = NewImageOf(MakeImage(disk, "qcow2"), "qcow2");
  ASSERT_OK_AND_ASSIGN(const blockd::ImageFacts facts, images_->Find(me_, id));
  EXPECT_EQ(facts.size_bytes, disk.size());
  EXPECT_EQ(RawHolders(), 0u);

  std::vector<std::thread> jobs;
  std::vector<std::string> holders(8);
  for (std::string& holder : holders)
    jobs.emplace_back([&] { holder = RawHolder(id).value_or("failed"); });
  for (std::thread& job : jobs) job.join();
  for (const std::string& holder : holders) EXPECT_EQ(holder, holders[0]);
  EXPECT_TRUE(ReadBack(service_.store(), holders[0]) == disk);
  EXPECT_EQ(Converted(), 1);
  EXPECT_EQ(RawHolders(), 1u);

  // It is there after a restart, and no sweep takes it.
  Crash();
  ASSERT_OK_AND_ASSIGN(const std::string again, images_->RawHolder(id));
  EXPECT_EQ(again, holders[0]);
  EXPECT_TRUE(ReadBack(service_.store(), again) == disk);

  EXPECT_EQ(service_.Call("p1", "DELETE", "/v2/images/" + id).status, 204);
  EXPECT_EQ(service_.BytesAfterCollect(), 0u);
  EXPECT_EQ(RawHolders(), 0u);
}

TEST_F(VolumeImagesTest, AVolumeMadeOfItOutlivesTheImage) {
  if (!CanConvert()) GTEST_SKIP() << convert::WhyNotTested();
  const std::string disk = SampleDisk();
  const std::string id = NewImageOf(MakeImage(disk, "vmdk"), "vmdk");
  ASSERT_OK_AND_ASSIGN(const std::string holder, RawHolder(id));
  ASSERT_OK(service_.store().HoldAgain(holder, "layer/volume", ""));
  EXPECT_EQ(service_.Call("p1", "DELETE", "/v2/images/" + id).status, 204);
  EXPECT_GT(service_.BytesAfterCollect(), 0u);
  EXPECT_TRUE(ReadBack(service_.store(), "layer/volume") == disk);
}

// Between the conversion and the record, and with a record that a rebuild made again.
TEST_F(VolumeImagesTest, ARawFormThatNoRecordNamesGoes) {
  if (!CanConvert()) GTEST_SKIP() << convert::WhyNotTested();
  const std::string disk = SampleDisk();
  const std::string id = NewImageOf(MakeImage(disk, "qcow2"), "qcow2");
  Hold(imaged::NewRawHolder(id), "left by a crash");
  Hold(imaged::NewRawHolder(base::NewUuid()), "of an image that is gone");
  {
    // What a kill in the middle leaves is the collector's.
    auto unfinished = service_.store().NewIngest(imaged::NewRawHolder(id), "");
    ASSERT_OK(unfinished);
    ASSERT_OK((*unfinished)->Put(0, base::AsBytes(std::string_view("half"))));
  }
  Crash();
  EXPECT_EQ(RawHolders(), 0u);
  ASSERT_OK_AND_ASSIGN(const std::string holder, RawHolder(id));
  EXPECT_TRUE(ReadBack(service_.store(), holder) == disk);
}

TEST_F(VolumeImagesTest, WhatCantBeConvertedIsAnErrorAndLeavesNothing) {
  if (!CanConvert()) GTEST_SKIP() << convert::WhyNotTested();
  // Sound enough for the inspector; the table that maps its clusters is not.
  std::string image = MakeImage(SampleDisk(), "qcow2");
  std::fill(image.begin() + 0x30000, image.begin() + 0x30008, '\xff');
  const std::string id = NewImageOf(image, "qcow2");
  const auto failed = RawHolder(id);
  ASSERT_ERROR(failed, Code::kInvalidArgument);
  EXPECT_EQ(RawHolders(), 0u);
  EXPECT_FALSE(service_.ImageOf(id).raw.has_value());
  // The image is as it was.
  EXPECT_TRUE(service_.Download(id).body == image);
}

// What the store says is told, not what qemu-img makes of it.
TEST_F(VolumeImagesTest, AFullDiskIsAFullDisk) {
  if (!CanConvert()) GTEST_SKIP() << convert::WhyNotTested();
  const std::string disk = SampleDisk();
  const std::string id = NewImageOf(MakeImage(disk, "qcow2"), "qcow2");
  service_.blobs().FailPutsFrom(1);
  EXPECT_ERROR(RawHolder(id), Code::kOutOfSpace);
  EXPECT_EQ(RawHolders(), 0u);
  service_.blobs().FailPutsFrom(-1);
  Crash();  // which forgets that it failed
  ASSERT_OK_AND_ASSIGN(const std::string holder, RawHolder(id));
  EXPECT_TRUE(ReadBack(service_.store(), holder) == disk);
}

TEST_F(VolumeImagesTest, AnImageThatIsDeletedMeanwhileCallsItsConversionOff) {
  if (!CanConvert()) GTEST_SKIP() << convert::WhyNotTested();
  const std::string id = NewImageOf(MakeImage(SampleDisk(), "qcow2"), "qcow2");
  ASSERT_ERROR(images_->RawHolder(id), Code::kUnavailable);
  EXPECT_EQ(service_.Call("p1", "DELETE", "/v2/images/" + id).status, 204);
  EXPECT_ERROR(RawHolder(id), Code::kNotFound);
  images_->Stop();
  EXPECT_EQ(service_.BytesAfterCollect(), 0u);
}

TEST_F(VolumeImagesTest, WithoutTheProgramsRawImagesWorkAndOthersSayWhatToInstall) {
  options_.programs.bwrap = "/usr/bin/no-such-bwrap";
  Open();
  const std::string raw = NewImageOf("some bytes", "raw");
  EXPECT_OK(images_->Find(me_, raw));
  EXPECT_OK(images_->RawHolder(raw));
  if (!CanConvert()) GTEST_SKIP() << convert::WhyNotTested();
  const std::string id = NewImageOf(MakeImage(SampleDisk(), "qcow2"), "qcow2");
  const auto found = images_->Find(me_, id);
  ASSERT_ERROR(found, Code::kUnavailable);
  EXPECT_NE(found.error().message().find("install the package bubblewrap"), std::string::npos);
  // A job that finds the programs gone does not wait for ever.
  EXPECT_ERROR(RawHolder(id), Code::kIo);
}

TEST_F(VolumeImagesTest, AVolumeBecomesAnImageWithoutACopy) {
  const std::string disk = SampleDisk();
  Hold("snapshot/1", disk);
  ASSERT_OK_AND_ASSIGN(const auto before, service_.store().Stats());
  ASSERT_OK_AND_ASSIGN(const std::string id,
                       images_->NewImage(me_, "made", "raw", "bare", "private", true));
  EXPECT_EQ(service_.ImageOf(id).status, Status::kQueued);
  ASSERT_OK(Fill(id, "snapshot/1"));
  const Image image = service_.ImageOf(id);
  EXPECT_EQ(image.status, Status::kActive);
  EXPECT_EQ(image.name, "made");
  EXPECT_EQ(image.owner, "p1");
  EXPECT_TRUE(image.is_protected);
  EXPECT_EQ(image.visibility, imaged::Visibility::kPrivate);
  EXPECT_EQ(image.size_bytes, disk.size());
  EXPECT_EQ(image.os_hash_value, base::Sha256(base::AsBytes(disk)).hex());
  ASSERT_OK_AND_ASSIGN(const auto after, service_.store().Stats());
  EXPECT_EQ(after.chunks, before.chunks);
  // The snapshot goes, the image stays; and once filled, filling it again is fine.
  ASSERT_OK(service_.store().Release("snapshot/1"));
  EXPECT_OK(images_->Fill({id, "snapshot/1"}));
  EXPECT_TRUE(service_.Download(id).body == disk);
  // A rebuild finds its record in the manifest.
  ASSERT_OK_AND_ASSIGN(const auto held, service_.store().FindHolder(image.data->holder));
  ASSERT_OK_AND_ASSIGN(const Image recorded, imaged::DecodeImage(held.attributes));
  EXPECT_EQ(recorded.name, "made");
}

TEST_F(VolumeImagesTest, AVolumeBecomesAQcow2) {
  if (!CanConvert()) GTEST_SKIP() << convert::WhyNotTested();
  const std::string disk = SampleDisk();
  Hold("snapshot/1", disk);
  ASSERT_OK_AND_ASSIGN(const std::string id,
                       images_->NewImage(me_, "made", "qcow2", "bare", "shared", false));
  ASSERT_OK(Fill(id, "snapshot/1"));
  EXPECT_EQ(service_.ImageOf(id).virtual_size_bytes, disk.size());
  // And a volume of it again.
  ASSERT_OK_AND_ASSIGN(const std::string holder, RawHolder(id));
  EXPECT_TRUE(ReadBack(service_.store(), holder) == disk);
}

TEST_F(VolumeImagesTest, NewImagesKeepToTheRulesOfTheImageApi) {
  EXPECT_ERROR(images_->NewImage(me_, "x", "raw", "bare", "public", false),
               Code::kPermissionDenied);
  EXPECT_ERROR(images_->NewImage(me_, "x", "raw", "bare", "nobody", false), Code::kInvalidArgument);
  EXPECT_ERROR(images_->NewImage(me_, "x", "vmdk", "bare", "private", false),
               Code::kInvalidArgument);
  EXPECT_ERROR(images_->NewImage(me_, "x", "raw", "ova", "private", false), Code::kInvalidArgument);
  EXPECT_ERROR(images_->NewImage(me_, std::string(300, 'x'), "raw", "bare", "private", false),
               Code::kInvalidArgument);
  base::auth::Caller reader = me_;
  reader.roles = {"reader"};
  EXPECT_ERROR(images_->NewImage(reader, "x", "raw", "bare", "private", false),
               Code::kPermissionDenied);
}

// A guest wrote that: as an image, something might open it as what it looks like.
TEST_F(VolumeImagesTest, AVolumeThatLooksLikeAQcow2IsNoRawImage) {
  if (!CanConvert()) GTEST_SKIP() << convert::WhyNotTested();
  Hold("snapshot/1", MakeImage(SampleDisk(), "qcow2"));
  ASSERT_OK_AND_ASSIGN(const std::string id,
                       images_->NewImage(me_, "made", "raw", "bare", "private", false));
  EXPECT_ERROR(Fill(id, "snapshot/1"), Code::kInvalidArgument);
  EXPECT_EQ(service_.ImageOf(id).status, Status::kQueued);
}

TEST_F(VolumeImagesTest, WhatIsAbandonedGoesUnlessItIsFilled) {
  Hold("snapshot/1", SampleDisk());
  ASSERT_OK_AND_ASSIGN(const std::string id,
                       images_->NewImage(me_, "made", "raw", "bare", "private", true));
  (void)images_->Fill({id, "snapshot/1"});
  ASSERT_OK(images_->Abandon(id));
  const auto left = service_.catalog().Get(id);
  // Whichever was first.
  if (left.has_value()) {
    EXPECT_EQ(left->status, Status::kActive);
  } else {
    EXPECT_ERROR(images_->Abandon(id), Code::kNotFound);
    EXPECT_ERROR(images_->Fill({id, "snapshot/1"}), Code::kNotFound);
  }
  ASSERT_OK_AND_ASSIGN(const std::string queued,
                       images_->NewImage(me_, "made", "raw", "bare", "private", true));
  ASSERT_OK(images_->Abandon(queued));
  EXPECT_ERROR(service_.catalog().Get(queued), Code::kNotFound);
  ASSERT_OK_AND_ASSIGN(const std::string filled,
                       images_->NewImage(me_, "made", "raw", "bare", "private", false));
  ASSERT_OK(Fill(filled, "snapshot/1"));
  ASSERT_OK(images_->Abandon(filled));
  EXPECT_EQ(service_.ImageOf(filled).status, Status::kActive);
}

TEST_F(VolumeImagesTest, AFillThatACrashCutsOffIsBegunAgain) {
  const std::string disk = SampleDisk();
  Hold("snapshot/1", disk);
  ASSERT_OK_AND_ASSIGN(const std::string id,
                       images_->NewImage(me_, "made", "raw", "bare", "private", false));
  // Up to where the digests are computed.
  const std::string holder = imaged::NewHolder(id);
  ASSERT_OK(service_.catalog().BeginUpload(id, imaged::UploadKind::kData, holder, 60'000, 0,
                                           [](const Image&) -> Result<void> { return {}; }));
  ASSERT_OK(service_.store().HoldAgain("snapshot/1", holder, ""));
  Crash();
  ASSERT_OK(Fill(id, "snapshot/1"));
  EXPECT_TRUE(service_.Download(id).body == disk);
  EXPECT_ERROR(service_.store().FindHolder(holder), Code::kNotFound);
}

TEST(VolumeImagesQuotaTest, AnImageOfAVolumeCountsAgainstTheQuota) {
  imaged::Service::Options limited = imaged::Service::Defaults();
  limited.quota.bytes = 1000;
  imaged::Service service(limited);
  VolumeImages images({}, service.catalog(), service.path(), service.metrics());
  auto ingest = service.store().NewIngest("snapshot/1", "");
  ASSERT_OK(ingest);
  ASSERT_OK((*ingest)->Finish(1001));
  ASSERT_OK_AND_ASSIGN(const std::string id,
                       images.NewImage(MemberOf("p1"), "x", "raw", "bare", "private", false));
  Result<void> filled = images.Fill({id, "snapshot/1"});
  EXPECT_TRUE(service.Eventually([&] {
    filled = images.Fill({id, "snapshot/1"});
    return filled.has_value() || filled.error().code() != Code::kUnavailable;
  }));
  EXPECT_ERROR(filled, Code::kQuotaExceeded);
}

// The disk may be thousands of times as large as the image that describes it.
TEST(VolumeImagesQuotaTest, TheDiskThatAnImageIsConvertedToCountsAgainstTheQuota) {
  if (!convert::WhyNotTested().empty()) GTEST_SKIP() << convert::WhyNotTested();
  const std::string image = MakeImage(SampleDisk(), "qcow2");
  imaged::Service::Options limited = imaged::Service::Defaults();
  limited.quota.bytes = image.size() + base::kMiB;
  imaged::Service service(limited);
  VolumeImages images({}, service.catalog(), service.path(), service.metrics());
  const std::string id = service.CreateImage("p1", "qcow2");
  ASSERT_EQ(service.Upload(id, image).status, 204);
  Result<std::string> holder = images.RawHolder(id);
  EXPECT_TRUE(service.Eventually([&] {
    holder = images.RawHolder(id);
    return holder.has_value() || holder.error().code() != Code::kUnavailable;
  }));
  EXPECT_ERROR(holder, Code::kQuotaExceeded);
  ASSERT_OK_AND_ASSIGN(const auto held, service.store().Holders(imaged::kRawHolderPrefix, "", 100));
  EXPECT_TRUE(held.empty());
  EXPECT_EQ(service.catalog().UsageOfProject("p1")->bytes, image.size());
}

}  // namespace
}  // namespace controlplane
