#include "imaged/catalog.h"

#include <atomic>
#include <thread>

#include <gtest/gtest.h>

#include "base/uuid.h"
#include "chunkstore/memory/memory_meta_store.h"
#include "imaged/index.h"
#include "tests/support/results.h"

namespace imaged {
namespace {

using base::Code;
using base::Error;
using base::Result;

constexpr int64_t kLeaseMs = 60'000;
const Catalog::Check kAnybody = [](const Image&) -> Result<void> { return {}; };

chunkstore::Root RootOf(std::string_view text) {
  return {base::Sha256(base::AsBytes(text)), text.size()};
}

class CatalogTest : public testing::Test {
 protected:
  Image NewImage(const std::string& owner = "p1") {
    Image image;
    image.id = base::NewUuid();
    image.owner = owner;
    return image;
  }
  Image MustCreate(const std::string& owner = "p1") {
    auto created = catalog_.Create(NewImage(owner));
    EXPECT_OK(created);
    return *created;
  }
  size_t CountKeys(std::string_view prefix) {
    size_t count = 0;
    auto visit = [&](std::string_view, std::string_view) {
      ++count;
      return true;
    };
    EXPECT_OK(
        meta_.Scan(kImagesPartition, prefix, chunkstore::PrefixEnd(prefix), 1'000'000, visit));
    return count;
  }
  std::vector<std::string> Releases() {
    std::vector<std::string> holders;
    const auto pending = catalog_.PendingReleases(100);
    EXPECT_OK(pending);
    for (const Catalog::PendingRelease& one : *pending) holders.push_back(one.holder);
    return holders;
  }

  chunkstore::MemoryMetaStore meta_;
  base::ManualClock clock_;
  Catalog catalog_{meta_, clock_};
};

TEST_F(CatalogTest, CreateGetDelete) {
  const Image created = MustCreate();
  EXPECT_EQ(created.created_at_us, clock_.NowUs());
  EXPECT_EQ(created.updated_at_us, created.created_at_us);
  ASSERT_OK_AND_ASSIGN(const Image got, catalog_.Get(created.id));
  EXPECT_EQ(got, created);
  ASSERT_OK(catalog_.Delete(created.id, kAnybody));
  const auto gone = catalog_.Get(created.id);
  ASSERT_ERROR(gone, Code::kNotFound);
  EXPECT_EQ(gone.error().message(), "No image found with ID " + created.id);
  EXPECT_EQ(CountKeys("d/"), 1U);
  EXPECT_EQ(CountKeys(""), 1U) << "nothing stays of a deleted image but that it was";
  Image again = NewImage();
  again.id = created.id;
  ASSERT_ERROR(catalog_.Create(again), Code::kAlreadyExists);
}

TEST_F(CatalogTest, IdsCompareWithoutCase) {
  Image image = NewImage();
  image.id = "AAAAAAAA-bbbb-CCCC-8888-0123456789aB";
  ASSERT_OK(catalog_.Create(image));
  ASSERT_OK_AND_ASSIGN(const Image got, catalog_.Get("aaaaaaaa-BBBB-cccc-8888-0123456789ab"));
  EXPECT_EQ(got.id, "aaaaaaaa-bbbb-cccc-8888-0123456789ab");
}

TEST_F(CatalogTest, OddIdsAreNotFound) {
  for (const std::string& id :
       {std::string(), std::string("x"), std::string("../i/x"), std::string(4000, 'a'),
        std::string("55828f4d2f3f4b84afe8dce755e947a2"), std::string(36, '\0')})
    EXPECT_ERROR(catalog_.Get(id), Code::kNotFound) << id;
}

TEST_F(CatalogTest, SameIdTwiceIsRefused) {
  const Image image = MustCreate();
  EXPECT_ERROR(catalog_.Create(image), Code::kAlreadyExists);
}

TEST_F(CatalogTest, SameIdRacingIsMadeOnce) {
  const Image image = NewImage();
  std::atomic<int> made = 0;
  std::atomic<int> refused = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      Image mine = image;
      mine.owner = "p" + std::to_string(i);  // other stripes
      const auto created = catalog_.Create(mine);
      if (created.has_value())
        ++made;
      else if (created.error().code() == Code::kAlreadyExists)
        ++refused;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(made, 1);
  EXPECT_EQ(refused, 7);
}

TEST_F(CatalogTest, UpdateMovesIndexEntriesAndTime) {
  const Image before = MustCreate();
  const size_t keys = CountKeys("");
  clock_.AdvanceUs(5);
  ASSERT_OK_AND_ASSIGN(const Image after, catalog_.Update(before.id, [](Image& image) {
    image.name = "new";
    image.visibility = Visibility::kPublic;
    return Result<void>();
  }));
  EXPECT_EQ(after.updated_at_us, clock_.NowUs());
  EXPECT_EQ(after.created_at_us, before.created_at_us);
  EXPECT_EQ(CountKeys(""), keys + 2) << "two entries more: public by creation and by name";
  EXPECT_EQ(*catalog_.Get(before.id), after);
}

TEST_F(CatalogTest, RefusedAndEmptyUpdatesWriteNothing) {
  const Image before = MustCreate();
  clock_.AdvanceUs(5);
  EXPECT_ERROR(catalog_.Update(before.id,
                               [](Image& image) -> Result<void> {
                                 image.name = "x";
                                 return Error(Code::kPermissionDenied, "no");
                               }),
               Code::kPermissionDenied);
  ASSERT_OK(catalog_.Update(before.id, [](Image&) { return Result<void>(); }));
  EXPECT_EQ(*catalog_.Get(before.id), before);
}

TEST_F(CatalogTest, RacingUpdatesAllCount) {
  const Image image = MustCreate();
  Catalog other(meta_, clock_);  // as another process: shares no mutex
  constexpr int kEach = 50;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      Catalog& mine = i % 2 == 0 ? catalog_ : other;
      for (int n = 0; n < kEach; ++n) {
        EXPECT_OK(mine.Update(image.id, [&](Image& changed) -> Result<void> {
          ++changed.min_ram_mb;
          changed.properties["t" + std::to_string(i)] = std::to_string(n);
          return {};
        }));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(catalog_.Get(image.id)->min_ram_mb, 4 * kEach);
  EXPECT_EQ(catalog_.Get(image.id)->properties.size(), 4U);
}

TEST_F(CatalogTest, UploadFromQueuedToActive) {
  const Image image = MustCreate();
  ASSERT_OK_AND_ASSIGN(const Image saving, catalog_.BeginUpload(image.id, UploadKind::kData, "h1",
                                                                kLeaseMs, 100, kAnybody));
  EXPECT_EQ(saving.status, Status::kSaving);
  EXPECT_EQ(catalog_.UsageOfProject("p1")->bytes, 100U);
  EXPECT_EQ(catalog_.UsageOfProject("p1")->uploads, 1U);
  EXPECT_ERROR(catalog_.BeginUpload(image.id, UploadKind::kData, "h2", kLeaseMs, 0, kAnybody),
               Code::kConflict);

  const DataFacts facts{RootOf("hello"), 5, "md5", "sha512", "ff", {"s"}};
  ASSERT_OK_AND_ASSIGN(const Image active, catalog_.FinishUpload(image.id, "h1", "h1", facts));
  EXPECT_EQ(active.status, Status::kActive);
  EXPECT_EQ(active.size_bytes, 5U);
  EXPECT_EQ(active.checksum, "md5");
  EXPECT_EQ(active.data->holder, "h1");
  EXPECT_EQ(active.data->root, RootOf("hello"));
  EXPECT_FALSE(active.upload.has_value());
  EXPECT_EQ(*catalog_.UsageOfProject("p1"), (Usage{.images = 1, .bytes = 5}));
  EXPECT_TRUE(Releases().empty());
  EXPECT_EQ(CountKeys(kUploadPrefix), 0U);

  // A late failure of the same upload must not touch what is visible now.
  ASSERT_OK_AND_ASSIGN(const bool failed, catalog_.FailUpload(image.id, "h1", nullptr));
  EXPECT_FALSE(failed);
  EXPECT_EQ(catalog_.Get(image.id)->status, Status::kActive);
  EXPECT_TRUE(Releases().empty()) << "the data's own holder";
}

TEST_F(CatalogTest, FailedUploadLeavesAQueuedImageAndAHolderToRelease) {
  const Image image = MustCreate();
  ASSERT_OK(catalog_.BeginUpload(image.id, UploadKind::kData, "h1", kLeaseMs, 100, kAnybody));
  ASSERT_OK_AND_ASSIGN(const bool failed, catalog_.FailUpload(image.id, "h1", nullptr));
  EXPECT_TRUE(failed);
  ASSERT_OK_AND_ASSIGN(Image after, catalog_.Get(image.id));
  after.updated_at_us = image.updated_at_us;
  EXPECT_EQ(after, image);
  EXPECT_EQ(Releases(), std::vector<std::string>{"h1"});
  EXPECT_EQ(*catalog_.UsageOfProject("p1"), Usage{.images = 1});
  ASSERT_OK(catalog_.ForgetRelease("h1"));
  EXPECT_TRUE(Releases().empty());
  EXPECT_ERROR(catalog_.FinishUpload(image.id, "h1", "h1", {RootOf("x")}), Code::kNotFound);
  EXPECT_OK(catalog_.BeginUpload(image.id, UploadKind::kData, "h2", kLeaseMs, 0, kAnybody));
}

TEST_F(CatalogTest, DeleteDuringUpload) {
  const Image image = MustCreate();
  ASSERT_OK(catalog_.BeginUpload(image.id, UploadKind::kData, "h1", kLeaseMs, 100, kAnybody));
  ASSERT_OK(catalog_.Delete(image.id, kAnybody));
  EXPECT_EQ(*catalog_.UsageOfProject("p1"), Usage());
  EXPECT_TRUE(Releases().empty()) << "the uploader still works on it";
  EXPECT_ERROR(catalog_.RenewUpload(image.id, "h1", kLeaseMs, 0), Code::kNotFound);
  EXPECT_ERROR(catalog_.FinishUpload(image.id, "h1", "h1", {RootOf("x")}), Code::kNotFound);

  // Recovery finds it once the lease ran out, even though the image is gone.
  EXPECT_TRUE(catalog_.ExpiredUploads(clock_.NowUs(), "", 10)->empty());
  clock_.AdvanceUs(kLeaseMs * 1000 + 1);
  ASSERT_OK_AND_ASSIGN(const auto expired, catalog_.ExpiredUploads(clock_.NowUs(), "", 10));
  ASSERT_EQ(expired.size(), 1U);
  EXPECT_EQ(expired[0].image_id, image.id);
  ASSERT_OK_AND_ASSIGN(const bool failed, catalog_.FailUpload(image.id, "h1", nullptr));
  EXPECT_FALSE(failed);
  EXPECT_EQ(Releases(), std::vector<std::string>{"h1"});
  EXPECT_EQ(CountKeys(kUploadPrefix), 0U);
}

TEST_F(CatalogTest, RenewKeepsTheLeaseAndRaisesTheReservation) {
  const Image image = MustCreate();
  ASSERT_OK(catalog_.BeginUpload(image.id, UploadKind::kData, "h1", kLeaseMs, 10, kAnybody));
  clock_.AdvanceUs(kLeaseMs * 1000 - 1);
  ASSERT_OK(catalog_.RenewUpload(image.id, "h1", kLeaseMs, 500));
  clock_.AdvanceUs(kLeaseMs * 1000 - 1);
  EXPECT_TRUE(catalog_.ExpiredUploads(clock_.NowUs(), "", 10)->empty());
  EXPECT_EQ(catalog_.UsageOfProject("p1")->bytes, 500U);
  ASSERT_OK(catalog_.RenewUpload(image.id, "h1", kLeaseMs, 20));
  EXPECT_EQ(catalog_.UsageOfProject("p1")->bytes, 500U) << "never lowers";
  EXPECT_ERROR(catalog_.RenewUpload(image.id, "h2", kLeaseMs, 0), Code::kNotFound);
}

TEST_F(CatalogTest, StageThenImport) {
  const Image image = MustCreate();
  ASSERT_OK(catalog_.BeginUpload(image.id, UploadKind::kStage, "s1", kLeaseMs, 5, kAnybody));
  EXPECT_ERROR(catalog_.BeginUpload(image.id, UploadKind::kImport, "i1", kLeaseMs, 0, kAnybody),
               Code::kConflict)
      << "still staging";
  ASSERT_OK_AND_ASSIGN(const Image staged, catalog_.FinishStage(image.id, "s1", RootOf("hello")));
  EXPECT_EQ(staged.status, Status::kUploading);
  EXPECT_EQ(staged.size_bytes, std::nullopt);
  EXPECT_EQ(catalog_.UsageOfProject("p1")->staged_bytes, 5U);
  ASSERT_OK(catalog_.BeginUpload(image.id, UploadKind::kImport, "i1", kLeaseMs, 0, kAnybody));
  ASSERT_OK_AND_ASSIGN(const Image active,
                       catalog_.FinishUpload(image.id, "i1", "s1", {RootOf("hello")}));
  EXPECT_EQ(active.status, Status::kActive);
  EXPECT_EQ(active.data->holder, "s1");
  EXPECT_FALSE(active.staged.has_value());
  EXPECT_EQ(Releases(), std::vector<std::string>{"i1"});
  EXPECT_EQ(*catalog_.UsageOfProject("p1"), (Usage{.images = 1, .bytes = 5}));
}

TEST_F(CatalogTest, FailedImportGivesUpWhatWasStaged) {
  const Image image = MustCreate();
  ASSERT_OK(catalog_.BeginUpload(image.id, UploadKind::kStage, "s1", kLeaseMs, 5, kAnybody));
  ASSERT_OK(catalog_.FinishStage(image.id, "s1", RootOf("hello")));
  ASSERT_OK(catalog_.BeginUpload(image.id, UploadKind::kImport, "i1", kLeaseMs, 0, kAnybody));
  ASSERT_OK(catalog_.FailUpload(image.id, "i1", [](Image& failed) -> Result<void> {
    failed.properties["os_glance_failed_import"] = "store";
    return {};
  }));
  ASSERT_OK_AND_ASSIGN(const Image after, catalog_.Get(image.id));
  EXPECT_EQ(after.status, Status::kQueued);
  EXPECT_EQ(after.properties.at("os_glance_failed_import"), "store");
  EXPECT_EQ(Releases(), (std::vector<std::string>{"i1", "s1"}));
}

TEST_F(CatalogTest, DeletedDataWaitsForRelease) {
  const Image image = MustCreate();
  ASSERT_OK(catalog_.BeginUpload(image.id, UploadKind::kData, "h1", kLeaseMs, 0, kAnybody));
  ASSERT_OK(catalog_.FinishUpload(image.id, "h1", "h1", {RootOf("x")}));
  ASSERT_OK(catalog_.Delete(image.id, kAnybody));
  EXPECT_EQ(Releases(), std::vector<std::string>{"h1"});
}

TEST_F(CatalogTest, TheRawFormIsSetOnceAndGoesWithTheImage) {
  const Image image = MustCreate();
  const StoredData raw{"image-raw/x/1", RootOf("raw")};
  ASSERT_OK_AND_ASSIGN(bool kept, catalog_.SetRaw(image.id, RootOf("x"), raw, 100));
  EXPECT_FALSE(kept) << "no data yet";
  ASSERT_OK(catalog_.BeginUpload(image.id, UploadKind::kData, "h1", kLeaseMs, 0, kAnybody));
  ASSERT_OK(catalog_.FinishUpload(image.id, "h1", "h1", {RootOf("x")}));
  ASSERT_OK_AND_ASSIGN(kept, catalog_.SetRaw(image.id, RootOf("y"), raw, 100));
  EXPECT_FALSE(kept) << "made of other data";
  ASSERT_OK_AND_ASSIGN(const Usage before, catalog_.UsageOfProject("p1"));
  ASSERT_OK_AND_ASSIGN(kept, catalog_.SetRaw(image.id, RootOf("x"), raw, 100));
  EXPECT_TRUE(kept);
  ASSERT_OK_AND_ASSIGN(const Usage with_raw, catalog_.UsageOfProject("p1"));
  EXPECT_EQ(with_raw.bytes, before.bytes + 100);
  ASSERT_OK_AND_ASSIGN(
      kept, catalog_.SetRaw(image.id, RootOf("x"), {"image-raw/x/2", RootOf("raw")}, 100));
  EXPECT_FALSE(kept) << "another was first";
  ASSERT_OK_AND_ASSIGN(const Image after, catalog_.Get(image.id));
  EXPECT_EQ(after.raw, raw);
  ASSERT_OK(catalog_.Delete(image.id, kAnybody));
  EXPECT_EQ(Releases(), (std::vector<std::string>{"h1", "image-raw/x/1"}));
  EXPECT_EQ(catalog_.UsageOfProject("p1")->bytes, 0u);
  ASSERT_OK_AND_ASSIGN(kept, catalog_.SetRaw(image.id, RootOf("x"), raw, 100));
  EXPECT_FALSE(kept) << "gone";
}

TEST_F(CatalogTest, DigestsOnlyForTheSameContent) {
  const Image image = MustCreate();
  ASSERT_OK(catalog_.BeginUpload(image.id, UploadKind::kData, "h1", kLeaseMs, 0, kAnybody));
  ASSERT_OK_AND_ASSIGN(const Image active,
                       catalog_.FinishUpload(image.id, "h1", "h1", {RootOf("x")}));
  DataFacts facts;
  facts.checksum = "abc";
  ASSERT_OK_AND_ASSIGN(const bool other, catalog_.SetDigests(image.id, RootOf("y"), facts));
  EXPECT_FALSE(other);
  EXPECT_EQ(catalog_.Get(image.id)->checksum, std::nullopt);
  ASSERT_OK_AND_ASSIGN(const bool same, catalog_.SetDigests(image.id, RootOf("x"), facts));
  EXPECT_TRUE(same);
  EXPECT_EQ(catalog_.Get(image.id)->checksum, "abc");
  EXPECT_EQ(catalog_.Get(image.id)->updated_at_us, active.updated_at_us);
}

TEST_F(CatalogTest, CountQuotaHoldsExactlyUnderRaces) {
  Catalog first(meta_, clock_, {.images = 20});
  Catalog second(meta_, clock_, {.images = 20});
  std::atomic<int> made = 0;
  std::atomic<int> refused = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 50; ++i) {
    threads.emplace_back([&, i] {
      const auto created = (i % 2 == 0 ? first : second).Create(NewImage());
      if (created.has_value())
        ++made;
      else if (created.error().code() == Code::kQuotaExceeded)
        ++refused;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(made, 20);
  EXPECT_EQ(refused, 30);
  EXPECT_EQ(first.UsageOfProject("p1")->images, 20U);
  EXPECT_OK(first.Create(NewImage("p2"))) << "each project has its own";
}

TEST_F(CatalogTest, ByteQuotaHoldsExactlyUnderRaces) {
  Catalog limited(meta_, clock_, {.bytes = 1000});
  std::vector<Image> images;
  for (int i = 0; i < 30; ++i) images.push_back(MustCreate());
  std::atomic<int> begun = 0;
  std::vector<std::thread> threads;
  for (const Image& image : images) {
    threads.emplace_back([&] {
      if (limited.BeginUpload(image.id, UploadKind::kData, "h" + image.id, kLeaseMs, 100, kAnybody)
              .has_value())
        ++begun;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(begun, 10);
  EXPECT_EQ(limited.UsageOfProject("p1")->bytes, 1000U);
}

TEST_F(CatalogTest, UsageFollowsTheOwner) {
  const Image image = MustCreate("p1");
  ASSERT_OK(catalog_.Update(image.id, [](Image& changed) -> Result<void> {
    changed.owner = "p2";
    return {};
  }));
  EXPECT_EQ(*catalog_.UsageOfProject("p1"), Usage());
  EXPECT_EQ(*catalog_.UsageOfProject("p2"), Usage{.images = 1});
}

// Everything acknowledged must be there after a crash that loses what was not synced.
TEST_F(CatalogTest, AcknowledgedSurvivesACrash) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const Image image = MustCreate();
    ASSERT_OK(catalog_.BeginUpload(image.id, UploadKind::kData, "h", kLeaseMs, 9, kAnybody));
    ASSERT_OK_AND_ASSIGN(const Image active,
                         catalog_.FinishUpload(image.id, "h", "h", {RootOf("x")}));
    meta_.Crash(seed);
    Catalog reopened(meta_, clock_);
    EXPECT_EQ(*reopened.Get(image.id), active);
    ASSERT_OK(reopened.Delete(image.id, kAnybody));
    meta_.Crash(seed + 100);
    EXPECT_ERROR(reopened.Get(image.id), Code::kNotFound);
    EXPECT_EQ(reopened.UsageOfProject("p1")->images, 0U);
  }
}

}  // namespace
}  // namespace imaged
