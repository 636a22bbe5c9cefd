#include "controlplane/host/image_volume.h"

#include <latch>
#include <random>
#include <thread>

#include <gtest/gtest.h>

#include "tests/controlplane/host/host_world.h"
#include "tests/controlplane/host/memory_image.h"
#include "tests/support/results.h"

namespace controlplane::host {
namespace {

using base::Code;
using base::Error;

class ImageVolumeTest : public testing::Test {
 protected:
  void Open(std::string bytes, ImageVolume::Options options = {}) {
    image = std::make_shared<MemoryImage>(std::move(bytes));
    if (options.id.empty()) options.id = "an-image";
    auto opened = ImageVolume::Open(image, world.parts(), options);
    ASSERT_OK(opened);
    volume = *std::move(opened);
  }
  std::string Read(uint64_t offset, size_t length) {
    std::string into(length, '?');
    const base::Result<void> read =
        volume->Read(offset, {reinterpret_cast<uint8_t*>(into.data()), into.size()});
    EXPECT_OK(read);
    return into;
  }
  base::Result<void> TryToRead(uint64_t offset, size_t length) {
    base::Buffer into(length);
    return volume->Read(offset, into.view());
  }

  HostWorld world;
  std::shared_ptr<MemoryImage> image;
  std::shared_ptr<ImageVolume> volume;
};

TEST_F(ImageVolumeTest, ReadsWhatTheImageHasWherever) {
  Open(SomeBytes(5, 12'345));
  const std::string& bytes = image->bytes();
  ASSERT_EQ(volume->size_bytes(), (bytes.size() + 511) / 512 * 512);
  std::mt19937 random(7);
  for (int i = 0; i < 300; ++i) {
    const uint64_t sectors = volume->size_bytes() / 512;
    const uint64_t first = random() % sectors;
    const uint64_t count = std::min<uint64_t>(1 + random() % 2000, sectors - first);
    std::string expected = bytes.substr(first * 512, count * 512);
    expected.resize(count * 512, '\0');
    ASSERT_EQ(Read(first * 512, count * 512), expected) << first << " " << count;
  }
}

TEST_F(ImageVolumeTest, EachBlockIsFetchedOnce) {
  Open(SomeBytes(3));
  for (int i = 0; i < 3; ++i) ASSERT_EQ(Read(0, image->bytes().size()), image->bytes());
  world.background.Stop();
  EXPECT_EQ(image->fetched_blocks, image->blocks());
}

TEST_F(ImageVolumeTest, AHoleAsksNobody) {
  Open(std::string(3 * chunkstore::kChunkBytes, '\0'));
  image->Fail(Error(Code::kUnavailable, "down"));
  base::Buffer into(chunkstore::kChunkBytes);
  ASSERT_OK_AND_ASSIGN(const bool at_once,
                       volume->TryRead(2 * chunkstore::kChunkBytes, into.view()));
  EXPECT_TRUE(at_once);
  EXPECT_TRUE(base::IsZero(into.view()));
  std::vector<blockd::Extent> extents;
  ASSERT_OK(volume->VisitExtents(0, volume->size_bytes(), [&](const blockd::Extent& extent) {
    extents.push_back(extent);
    return true;
  }));
  EXPECT_EQ(extents, (std::vector<blockd::Extent>{{0, volume->size_bytes(), false, true}}));
}

TEST_F(ImageVolumeTest, ExtentsAreTheMaps) {
  Open(SomeBytes(3, 100));
  std::vector<blockd::Extent> extents;
  ASSERT_OK(volume->VisitExtents(512, volume->size_bytes() - 512, [&](const auto& extent) {
    extents.push_back(extent);
    return true;
  }));
  constexpr uint64_t kChunk = chunkstore::kChunkBytes;
  EXPECT_EQ(extents, (std::vector<blockd::Extent>{{512, kChunk - 512, true, false},
                                                  {kChunk, kChunk, false, true},
                                                  {2 * kChunk, kChunk + 512, true, false}}));
}

TEST_F(ImageVolumeTest, IsReadOnlyAndKeepsToItsSectors) {
  Open(SomeBytes(1));
  const std::string sector(512, 'x');
  EXPECT_ERROR(volume->Write(0, base::AsBytes(sector)), Code::kPermissionDenied);
  EXPECT_ERROR(volume->Zero(0, 512, true), Code::kPermissionDenied);
  EXPECT_OK(volume->Flush());
  EXPECT_ERROR(TryToRead(100, 512), Code::kInvalidArgument);
  EXPECT_ERROR(TryToRead(volume->size_bytes(), 512), Code::kInvalidArgument);
  EXPECT_ERROR(TryToRead(~uint64_t{511}, 1024), Code::kInvalidArgument);
}

TEST_F(ImageVolumeTest, WhatIsHereIsReadWhileTheServiceIsDown) {
  Open(SomeBytes(4), {.patience_ms = 1});
  const std::string first = Read(0, 4096);
  image->Fail(Error(Code::kUnavailable, "down"));
  EXPECT_EQ(Read(0, 4096), first);
  EXPECT_ERROR(TryToRead(3 * chunkstore::kChunkBytes, 4096), Code::kUnavailable);
  image->Fail(std::nullopt);
  EXPECT_OK(TryToRead(3 * chunkstore::kChunkBytes, 4096));
}

TEST_F(ImageVolumeTest, ARestartOfTheServiceIsWaitedFor) {
  Open(SomeBytes(1), {.patience_ms = 600'000});
  image->Fail(Error(Code::kUnavailable, "down"));
  std::atomic<int> asked{0};
  std::latch twice(2);
  image->SetBefore([&] {
    if (++asked <= 2) twice.count_down();
  });
  std::thread reader([&] { EXPECT_EQ(Read(0, 512), image->bytes().substr(0, 512)); });
  twice.wait();
  image->Fail(std::nullopt);
  reader.join();
}

TEST_F(ImageVolumeTest, AHostThatStopsWaitsNoLonger) {
  Open(SomeBytes(1), {.patience_ms = 600'000});
  image->Fail(Error(Code::kUnavailable, "down"));
  std::latch asked(1);
  std::atomic<bool> once{false};
  image->SetBefore([&] {
    if (!once.exchange(true)) asked.count_down();
  });
  std::thread reader([&] { EXPECT_ERROR(TryToRead(0, 512), Code::kUnavailable); });
  asked.wait();
  volume->GiveUp();
  reader.join();
}

TEST_F(ImageVolumeTest, ADeletedImageGoesOnAsFarAsItIsHere) {
  Open(SomeBytes(4), {.patience_ms = 600'000});
  const std::string first = Read(0, 4096);
  image->Fail(Error(Code::kNotFound, "no such image"));
  EXPECT_EQ(Read(0, 4096), first);
  EXPECT_ERROR(TryToRead(3 * chunkstore::kChunkBytes, 4096), Code::kNotFound);
}

TEST_F(ImageVolumeTest, ManyReadersFetchOnce) {
  Open(SomeBytes(3));
  std::vector<std::thread> readers;
  for (int i = 0; i < 50; ++i)
    readers.emplace_back([&] { EXPECT_EQ(Read(0, image->bytes().size()), image->bytes()); });
  for (std::thread& reader : readers) reader.join();
  world.background.Stop();
  EXPECT_EQ(image->fetched_blocks, image->blocks());
}

TEST_F(ImageVolumeTest, WhoReadsOnFindsItHere) {
  Open(SomeBytes(1));
  Read(0, 128 * base::kKiB);
  Read(128 * base::kKiB, 128 * base::kKiB);
  world.background.Drain();
  const int before = image->fetches;
  Read(256 * base::kKiB, 128 * base::kKiB);
  world.background.Drain();
  EXPECT_GT(before, 2) << "nothing was read ahead";
  image->Fail(Error(Code::kUnavailable, "down"));
  EXPECT_OK(TryToRead(384 * base::kKiB, 64 * base::kKiB));
}

TEST_F(ImageVolumeTest, AServiceThatTellsNonsenseIsNotBelieved) {
  class Wrong : public MemoryImage {
   public:
    using MemoryImage::MemoryImage;
    base::Result<Shape> ReadShape() override {
      Shape wrong = shape();
      wrong.holes.pop_back();
      return wrong;
    }
  };
  EXPECT_ERROR(ImageVolume::Open(std::make_shared<Wrong>(SomeBytes(2)), world.parts(), {}),
               Code::kCorruption);
}

TEST_F(ImageVolumeTest, ATableThatIsOldIsAskedForAgain) {
  class Stored : public MemoryImage {
   public:
    using MemoryImage::MemoryImage;
    base::Result<std::vector<RemoteImage::Table>> Tables(
        std::span<const uint64_t> chunks) override {
      auto tables = MemoryImage::Tables(chunks);
      // The first answer is of other blocks than what is fetched then.
      if (table_calls == 1) (*tables)[0][0].hash.low ^= 1;
      return tables;
    }
  };
  image = std::make_shared<Stored>(SomeBytes(1));
  ASSERT_OK_AND_ASSIGN(volume, ImageVolume::Open(image, world.parts(), {}));
  EXPECT_EQ(Read(0, 512), image->bytes().substr(0, 512));
  EXPECT_EQ(image->table_calls, 2);
}

}  // namespace
}  // namespace controlplane::host
