#include "imaged/image.h"

#include <gtest/gtest.h>

#include "imaged/quota.h"
#include "tests/support/results.h"

namespace imaged {
namespace {

using base::Code;

Image FullImage() {
  Image image;
  image.id = "55828f4d-2f3f-4b84-afe8-dce755e947a2";
  image.name = "gold \"quoted\" \xe2\x82\xac";
  image.owner = "f42dd58d67f84c28a80d6537ebc9fc3c";
  image.status = Status::kActive;
  image.visibility = Visibility::kCommunity;
  image.is_protected = true;
  image.is_hidden = true;
  image.min_disk_gb = 3;
  image.min_ram_mb = 2147483647;
  image.disk_format = "raw";
  image.container_format = "bare";
  image.size_bytes = 11;
  image.virtual_size_bytes = 1ULL << 44;
  image.checksum = "2095312189753de6ad47dfe20cbe97ec";
  image.os_hash_algo = "sha512";
  image.os_hash_value = "6aeefc";
  image.stores = {"s1", "s2"};
  image.created_at_us = 1'763'695'764'000'001;
  image.updated_at_us = 1'763'695'765'000'002;
  image.tags = {"a", "b"};
  image.properties = {{"k", "v"}, {"kernel_id", std::nullopt}, {"empty", ""}};
  image.members = {{"p1", MemberStatus::kAccepted, 5, 6}, {"p2", MemberStatus::kRejected, 7, 8}};
  image.data = StoredData{"image/x/1", {base::Sha256(base::AsBytes("data")), 11}};
  image.staged = StoredData{"image/x/2", {base::Sha256(base::AsBytes("staged")), 12}};
  image.raw = StoredData{"image-raw/x/1", {base::Sha256(base::AsBytes("raw")), 13}};
  image.upload = Upload{UploadKind::kImport, "image/x/3", 99, 1000};
  return image;
}

TEST(ImageTest, EncodeDecodeKeepsEveryField) {
  const Image image = FullImage();
  ASSERT_OK_AND_ASSIGN(const Image back, DecodeImage(EncodeImage(image)));
  EXPECT_EQ(back, image);
  EXPECT_EQ(EncodeImage(back), EncodeImage(image));
}

TEST(ImageTest, EncodeDecodeOfTheEmptiest) {
  Image image;
  image.id = "55828f4d-2f3f-4b84-afe8-dce755e947a2";
  ASSERT_OK_AND_ASSIGN(const Image back, DecodeImage(EncodeImage(image)));
  EXPECT_EQ(back, image);
}

TEST(ImageTest, DamagedRecordsAreCorruption) {
  const std::string good = EncodeImage(FullImage());
  for (size_t size = 0; size < good.size(); ++size)
    EXPECT_ERROR(DecodeImage(good.substr(0, size)), Code::kCorruption) << size;
  for (
      const char* bad :
      {"[]", "{}", R"({"version":2})",
       R"({"version":1,"id":"x","owner":"o","status":"odd","visibility":"shared","created":1,"updated":1})",
       R"({"version":1,"id":"x","owner":"o","status":"queued","visibility":"shared","created":1,"updated":1,"size":-1})",
       R"({"version":1,"id":"x","owner":"o","status":"queued","visibility":"shared","created":1,"updated":1,"members":[1]})",
       R"({"version":1,"id":"x","owner":"o","status":"queued","visibility":"shared","created":1,"updated":1,"data":{"holder":"h","root":"00"}})"})
    EXPECT_ERROR(DecodeImage(bad), Code::kCorruption) << bad;
}

TEST(ImageTest, ReservedNames) {
  EXPECT_TRUE(IsReservedProperty("os_glance_import_task"));
  EXPECT_FALSE(IsReservedProperty("os_distro"));
}

TEST(QuotaTest, UsageOfAnImage) {
  Image image;
  EXPECT_EQ(UsageOf(image), (Usage{.images = 1}));
  image.upload = Upload{UploadKind::kData, "h", 0, 100};
  EXPECT_EQ(UsageOf(image), (Usage{.images = 1, .bytes = 100, .uploads = 1}));
  image.upload->kind = UploadKind::kStage;
  EXPECT_EQ(UsageOf(image), (Usage{.images = 1, .staged_bytes = 100, .uploads = 1}));
  image.upload.reset();
  image.data = StoredData{"h", {{}, 7}};
  image.staged = StoredData{"h", {{}, 9}};
  EXPECT_EQ(UsageOf(image), (Usage{.images = 1, .bytes = 7, .staged_bytes = 9}));
}

TEST(QuotaTest, GrowthStopsAtTheLimitAndShrinkingNever) {
  QuotaLimits limits;
  limits.bytes = 100;
  const Usage used{.images = 3, .bytes = 90};
  ASSERT_OK_AND_ASSIGN(const Usage full, ChangeUsage(limits, used, {}, {.bytes = 10}));
  EXPECT_EQ(full.bytes, 100U);
  EXPECT_EQ(full.images, 3U);
  EXPECT_ERROR(ChangeUsage(limits, used, {}, {.bytes = 11}), Code::kQuotaExceeded);
  const Usage over{.bytes = 500};
  EXPECT_OK(ChangeUsage(limits, over, {.bytes = 50}, {.bytes = 40}));
  EXPECT_OK(ChangeUsage(limits, over, {.bytes = 50}, {.images = 1, .bytes = 50}));
  EXPECT_ERROR(ChangeUsage(limits, over, {.bytes = 50}, {.bytes = 51}), Code::kQuotaExceeded);
  EXPECT_ERROR(ChangeUsage({}, used, {.bytes = 91}, {}), Code::kCorruption);
  EXPECT_ERROR(ChangeUsage({}, used, {}, {.bytes = ~0ULL}), Code::kQuotaExceeded);
}

TEST(QuotaTest, EncodeDecode) {
  const Usage usage{.images = 1, .bytes = 1ULL << 63, .staged_bytes = 3, .uploads = 4};
  ASSERT_OK_AND_ASSIGN(const Usage back, DecodeUsage(EncodeUsage(usage)));
  EXPECT_EQ(back, usage);
  EXPECT_ERROR(DecodeUsage("{}"), Code::kCorruption);
  EXPECT_ERROR(DecodeUsage("nonsense"), Code::kCorruption);
}

}  // namespace
}  // namespace imaged
