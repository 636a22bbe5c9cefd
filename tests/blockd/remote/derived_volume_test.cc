#include "blockd/remote/derived_volume.h"

#include <atomic>
#include <thread>

#include <gtest/gtest.h>

#include "tests/blockd/nbd/server_fixture.h"
#include "tests/blockd/remote/world.h"

namespace blockd::remote {
namespace {

using base::Code;
using nbd::kSizeBytes;
using nbd::MoodyVolume;

constexpr uint64_t kImageBytes = 8 * base::kMiB;

// The image of a volume on this host.
class LocalImage : public memory::MemoryVolume {
 public:
  LocalImage() : MemoryVolume(kImageBytes) {}
  base::Result<void> Read(uint64_t offset, base::MutableByteView into) override {
    if (broken) return base::Error(Code::kUnavailable, "the service is down");
    reads.fetch_add(1);
    return MemoryVolume::Read(offset, into);
  }
  base::Result<bool> TryRead(uint64_t offset, base::MutableByteView into) override {
    RETURN_IF_ERROR(Read(offset, into));
    return true;
  }
  void Prefetch(uint64_t offset, uint64_t length) override {
    prefetched.emplace_back(offset, length);
  }
  std::atomic<bool> broken = false;
  std::atomic<int> reads = 0;
  std::vector<std::pair<uint64_t, uint64_t>> prefetched;
};

class DerivedVolumeTest : public testing::Test {
 protected:
  void SetUp() override {
    const std::string bytes = BytesOf(1, kImageBytes);
    ASSERT_OK(image_->Write(0, View(bytes)));
    ASSERT_OK(behind_->Write(0, View(bytes)));
    service_->image = image_;
    service_->Start();
  }
  void TearDown() override {
    behind_->Release();
    volume_.reset();
    service_->Kill();
  }
  void Open() {
    RemoteSettings settings;
    settings.uri = service_->uri();
    settings.context = ChangedSinceImage(kImage);
    ASSERT_OK_AND_ASSIGN(const auto remote, RemoteVolume::Open(settings));
    ASSERT_OK_AND_ASSIGN(volume_, DerivedVolume::Open(image_, remote));
    image_->reads = 0;
  }
  // What is read, and how much of it came from where.
  void ExpectRead(uint64_t offset, uint64_t length, uint64_t from_origin) {
    const DerivedVolume::Counts before = volume_->counts();
    EXPECT_TRUE(ReadString(*volume_, offset, length).value() ==
                ReadString(*behind_, offset, length).value());
    EXPECT_EQ(volume_->counts().origin_bytes - before.origin_bytes, from_origin);
    EXPECT_EQ(volume_->counts().remote_bytes - before.remote_bytes, length - from_origin);
  }

  support::TempDir dir_;
  std::shared_ptr<LocalImage> image_ = std::make_shared<LocalImage>();
  std::shared_ptr<MoodyVolume> behind_ = std::make_shared<MoodyVolume>();
  std::shared_ptr<Service> service_ = std::make_shared<Service>(behind_, dir_ / "s");
  std::shared_ptr<DerivedVolume> volume_;
};

TEST_F(DerivedVolumeTest, ReadsHereWhatIsAsInTheImage) {
  ASSERT_OK(behind_->Write(base::kMiB + 512, View(BytesOf(2, 512))));
  ASSERT_OK(behind_->Write(2 * base::kMiB, View(BytesOf(3, base::kMiB))));
  Open();
  EXPECT_EQ(volume_->size_bytes(), kSizeBytes);
  EXPECT_EQ(volume_->changed_bytes(), base::kMiB + kBlockBytes);
  ExpectRead(0, base::kMiB, base::kMiB);
  ExpectRead(base::kMiB, kBlockBytes, 0);
  ExpectRead(base::kMiB - kBlockBytes, 3 * kBlockBytes, 2 * kBlockBytes);
  ExpectRead(base::kMiB, 4 * base::kMiB, 3 * base::kMiB - kBlockBytes);
  ExpectRead(kImageBytes - 512, 1024, 512);
  ExpectRead(kImageBytes, base::kMiB, 0);

  // Little between two that changed is read with them.
  ASSERT_OK(volume_->Write(5 * base::kMiB, View(BytesOf(5, 512))));
  ASSERT_OK(volume_->Write(5 * base::kMiB + 32 * base::kKiB, View(BytesOf(6, 512))));
  ExpectRead(5 * base::kMiB, 36 * base::kKiB, 0);
  ExpectRead(5 * base::kMiB, 64 * base::kKiB, 28 * base::kKiB);

  std::string bytes(kBlockBytes, '?');
  const base::MutableByteView into(reinterpret_cast<uint8_t*>(bytes.data()), bytes.size());
  EXPECT_TRUE(volume_->TryRead(0, into).value());
  EXPECT_FALSE(volume_->TryRead(base::kMiB, into).value());
  EXPECT_FALSE(volume_->TryRead(base::kMiB - 512, into).value());
  EXPECT_ERROR(volume_->Read(kSizeBytes, into), Code::kInvalidArgument);
  EXPECT_ERROR(volume_->TryRead(1, into), Code::kInvalidArgument);

  volume_->Prefetch(base::kMiB - kBlockBytes, 3 * kBlockBytes);
  const std::vector<std::pair<uint64_t, uint64_t>> expected = {
      {base::kMiB - kBlockBytes, kBlockBytes}, {base::kMiB + kBlockBytes, kBlockBytes}};
  EXPECT_EQ(image_->prefetched, expected);
}

TEST_F(DerivedVolumeTest, WritesAndZeroesGoToTheServerAndAreReadThere) {
  Open();
  EXPECT_EQ(volume_->changed_bytes(), 0u);
  ASSERT_OK(volume_->Write(4096, View(BytesOf(7, 512))));
  ASSERT_OK(volume_->Zero(base::kMiB, 8192, true));
  ASSERT_OK(volume_->Zero(2 * base::kMiB + 512, 512, false));
  ASSERT_OK(volume_->Write(kImageBytes - 512, View(BytesOf(8, 1024))));
  EXPECT_EQ(volume_->changed_bytes(), 5 * kBlockBytes);
  for (const uint64_t offset : {uint64_t{4096}, base::kMiB, 2 * base::kMiB})
    ExpectRead(offset, kBlockBytes, 0);
  ExpectRead(kImageBytes - 8192, 16384, 4096);
  const uint64_t flushes = behind_->flushes();
  ASSERT_OK(volume_->Flush());
  EXPECT_EQ(behind_->flushes(), flushes + 1);
  // As it is seen by who comes next.
  volume_.reset();
  Open();
  EXPECT_EQ(volume_->changed_bytes(), 5 * kBlockBytes);
  ExpectRead(0, 3 * base::kMiB, 3 * base::kMiB - 4 * kBlockBytes);
}

// A read beside a write may see new bytes; then none that begins later may see old ones. So the
// block counts as changed before the write is anywhere.
TEST_F(DerivedVolumeTest, ABlockIsMarkedBeforeItsWriteLeaves) {
  Open();
  behind_->Hold();
  std::thread writer([&] { EXPECT_OK(volume_->Write(512, View(BytesOf(9, 512)))); });
  behind_->AwaitHeld(1);
  EXPECT_EQ(volume_->changed_bytes(), kBlockBytes);
  std::string bytes(512, '?');
  EXPECT_FALSE(
      volume_->TryRead(512, {reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()}).value());
  behind_->Release();
  writer.join();
  // One that failed may have reached the disk as well.
  behind_->failure = Code::kIo;
  EXPECT_ERROR(volume_->Write(base::kMiB + 512, View(BytesOf(9, 512))), Code::kIo);
  behind_->failure = Code::kNotFound;
  ExpectRead(base::kMiB, kBlockBytes, 0);
}

TEST_F(DerivedVolumeTest, WhatTheImageCannotGiveTheServerDoes) {
  Open();
  image_->broken = true;
  ExpectRead(0, base::kMiB, 0);
  EXPECT_EQ(volume_->counts().failed_over, 1u);
  std::string bytes(512, '?');
  EXPECT_FALSE(
      volume_->TryRead(0, {reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()}).value());
  image_->broken = false;
  ExpectRead(0, base::kMiB, base::kMiB);
}

TEST_F(DerivedVolumeTest, NotWithoutWordOfTheImage) {
  RemoteSettings settings;
  settings.uri = service_->uri();
  settings.context = ChangedSinceImage("another");
  ASSERT_OK_AND_ASSIGN(const auto remote, RemoteVolume::Open(settings));
  EXPECT_ERROR(DerivedVolume::Open(image_, remote), Code::kNotFound);
}

}  // namespace
}  // namespace blockd::remote
