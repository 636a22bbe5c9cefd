#include "blockd/catalog.h"

#include <atomic>
#include <thread>

#include <gtest/gtest.h>

#include "base/uuid.h"
#include "chunkstore/memory/memory_meta_store.h"
#include "tests/support/results.h"

namespace blockd {
namespace {

using base::Code;
using base::Result;

constexpr std::string_view kProject = "11111111111111111111111111111111";

class CatalogTest : public testing::Test {
 protected:
  VolumeRecord NewVolume(uint64_t size_gb = 1, std::string_view project = kProject) {
    VolumeRecord volume;
    volume.id = base::NewUuid();
    volume.project_id = project;
    volume.size_gb = size_gb;
    volume.type_id = "type";
    volume.status = VolumeStatus::kAvailable;
    return volume;
  }
  Result<void> Put(const VolumeRecord& volume) {
    return catalog_.Transact([&](Transaction& transaction) { return transaction.Put(volume); });
  }
  // A record that is there, changed.
  Result<void> Change(const std::string& id, const std::function<void(VolumeRecord&)>& change) {
    return catalog_.Transact([&](Transaction& transaction) -> Result<void> {
      ASSIGN_OR_RETURN(VolumeRecord volume, transaction.GetVolume(id));
      change(volume);
      return transaction.Put(volume);
    });
  }
  int64_t Used(std::string_view resource, std::string_view project = kProject) {
    const auto usage = catalog_.UsageOf(project);
    EXPECT_OK(usage);
    const auto found = usage->find(resource);
    return found == usage->end() ? 0 : found->second;
  }

  chunkstore::MemoryMetaStore meta_;
  base::ManualClock clock_;
  chunkstore::jobs::Journal journal_{meta_, clock_, std::string(kPartition), "test"};
  Catalog catalog_{meta_, clock_, journal_};
};

TEST(RecordsTest, EveryFieldComesBack) {
  VolumeRecord volume;
  volume.id = "v";
  volume.project_id = "p";
  volume.user_id = "u";
  volume.name = "";
  volume.description = "d";
  volume.size_gb = 5;
  volume.reserved_size_gb = 7;
  volume.status = VolumeStatus::kErrorRestoring;
  volume.previous_status = VolumeStatus::kInUse;
  volume.lease_until_us = 9;
  volume.type_id = "t";
  volume.availability_zone = "nova";
  volume.source_kind = SourceKind::kBackup;
  volume.source_id = "b";
  volume.bootable = volume.read_only = volume.multi_attach = volume.thick = true;
  volume.metadata = {{"a", "b"}};
  volume.image_metadata = {{"c", "d"}};
  volume.created_at_us = 1;
  volume.updated_at_us = 2;
  volume.attachment_ids = {"x", "y"};
  volume.snapshots = 3;
  auto back = DecodeVolume(Encode(volume));
  ASSERT_OK(back);
  EXPECT_EQ(*back, volume);

  SnapshotRecord snapshot{.id = "s", .volume_id = "v", .project_id = "p", .user_id = "u"};
  snapshot.name = "n";
  snapshot.size_gb = 1;
  snapshot.status = SnapshotStatus::kErrorDeleting;
  snapshot.progress_percent = 50;
  EXPECT_EQ(*DecodeSnapshot(Encode(snapshot)), snapshot);

  AttachmentRecord attachment;
  attachment.id = "a";
  attachment.secret = "s";
  attachment.status = AttachStatus::kDetaching;
  attachment.legacy = attachment.read_only = true;
  attachment.attached_at_us = 7;
  EXPECT_EQ(*DecodeAttachment(Encode(attachment)), attachment);
}

TEST(RecordsTest, SpoiledRecordsAreCorruption) {
  for (const char* bytes :
       {"", "{", "[]", R"({"version":2,"id":"v"})", R"({"version":1})",
        R"({"version":1,"id":"v","status":"odd"})", R"({"version":1,"id":"v","size_gb":-1})",
        R"({"version":1,"id":"v","metadata":{"a":1}})"}) {
    const auto decoded = DecodeVolume(bytes);
    ASSERT_FALSE(decoded.has_value()) << bytes;
    EXPECT_EQ(decoded.error().code(), Code::kCorruption);
  }
}

TEST_F(CatalogTest, UsageFollowsVolumesAndSnapshots) {
  VolumeRecord volume = NewVolume(5);
  ASSERT_OK(Put(volume));
  SnapshotRecord snapshot;
  snapshot.id = base::NewUuid();
  snapshot.volume_id = volume.id;
  snapshot.project_id = kProject;
  snapshot.size_gb = 5;
  snapshot.type_id = "type";
  ASSERT_OK(catalog_.Transact([&](Transaction& t) { return t.Put(snapshot); }));
  EXPECT_EQ(Used("gigabytes"), 10);
  EXPECT_EQ(Used("gigabytes:type"), 10);
  EXPECT_EQ(Used("volumes"), 1);
  EXPECT_EQ(Used("snapshots"), 1);
  EXPECT_EQ(catalog_.GetVolume(volume.id)->snapshots, 1u);
  EXPECT_EQ(catalog_.SnapshotsOf(volume.id)->size(), 1u);

  ASSERT_OK(Change(volume.id, [](VolumeRecord& v) { v.reserved_size_gb = 8; }));
  EXPECT_EQ(Used("gigabytes"), 13);
  // Moved with what it takes; the snapshot stays behind.
  ASSERT_OK(Change(volume.id, [](VolumeRecord& v) {
    v.reserved_size_gb = 0;
    v.project_id = "other";
  }));
  EXPECT_EQ(Used("gigabytes"), 5);
  EXPECT_EQ(Used("volumes"), 0);
  EXPECT_EQ(Used("gigabytes", "other"), 5);

  ASSERT_OK(catalog_.Transact([&](Transaction& t) { return t.Remove(snapshot); }));
  EXPECT_EQ(catalog_.GetVolume(volume.id)->snapshots, 0u);
  EXPECT_EQ(*catalog_.UsageOf(kProject), Amounts());
}

TEST_F(CatalogTest, WhatIsNotReadMustBeNew) {
  const VolumeRecord volume = NewVolume();
  ASSERT_OK(Put(volume));
  const auto again = Put(volume);
  ASSERT_FALSE(again.has_value());
  EXPECT_EQ(again.error().code(), Code::kAlreadyExists);
}

TEST_F(CatalogTest, ARefusedTransactionWritesNothing) {
  const VolumeRecord volume = NewVolume();
  const auto refused = catalog_.Transact([&](Transaction& transaction) -> Result<void> {
    RETURN_IF_ERROR(transaction.Put(volume));
    RETURN_IF_ERROR(transaction.AddJob("kind", "payload", "p"));
    return base::Error(Code::kInvalidArgument, "no");
  });
  EXPECT_FALSE(refused.has_value());
  EXPECT_FALSE(catalog_.GetVolume(volume.id).has_value());
  EXPECT_TRUE(journal_.List("kind")->empty());
}

TEST_F(CatalogTest, AnUnchangedPutTouchesNothing) {
  const VolumeRecord volume = NewVolume();
  ASSERT_OK(Put(volume));
  ASSERT_OK(Change(volume.id, [](VolumeRecord&) {}));
  EXPECT_EQ(catalog_.GetVolume(volume.id)->updated_at_us, 0);
}

TEST_F(CatalogTest, LimitsOfProjectClassAndBuiltIn) {
  EXPECT_EQ(*catalog_.LimitOf(kProject, "volumes"), 10);
  EXPECT_EQ(*catalog_.LimitOf(kProject, "volumes:type"), kUnlimited);
  ASSERT_OK(catalog_.SetClassLimits({{"volumes", 3}}));
  EXPECT_EQ(*catalog_.LimitOf(kProject, "volumes"), 3);
  ASSERT_OK(catalog_.SetLimits(kProject, {{"volumes", 2}, {"volumes:type", 1}}));
  EXPECT_EQ(*catalog_.LimitOf(kProject, "volumes"), 2);
  ASSERT_OK(Put(NewVolume()));
  const auto over = Put(NewVolume());
  ASSERT_FALSE(over.has_value());
  EXPECT_EQ(over.error().code(), Code::kQuotaExceeded);
  ASSERT_OK(catalog_.ForgetLimits(kProject));
  EXPECT_EQ(*catalog_.LimitOf(kProject, "volumes"), 3);
}

TEST_F(CatalogTest, AQuotaHoldsExactlyWhateverRaces) {
  constexpr int kThreads = 8;
  constexpr int kEach = 5;
  std::atomic<int> made{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < kEach; ++j)
        if (Put(NewVolume()).has_value()) ++made;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(made, 10);
  EXPECT_EQ(Used("volumes"), 10);
  EXPECT_EQ(catalog_.ListVolumes({})->size(), 10u);
}

TEST_F(CatalogTest, PagesInBothWaysOfSorting) {
  std::vector<std::string> ids;
  for (int i = 0; i < 5; ++i) {
    VolumeRecord volume = NewVolume();
    volume.name = "name-" + std::to_string(i % 2);
    ids.push_back(volume.id);
    ASSERT_OK(Put(volume));
    clock_.AdvanceUs(1);
  }
  ASSERT_OK(Put(NewVolume(1, "other")));
  ListQuery query;
  query.project_id = std::string(kProject);
  query.limit = 2;
  auto page = catalog_.ListVolumes(query);
  ASSERT_OK(page);
  ASSERT_EQ(page->size(), 2u);
  EXPECT_EQ(page->front().id, ids[4]);
  query.marker = page->back().id;
  query.offset = 1;
  page = catalog_.ListVolumes(query);
  ASSERT_EQ(page->size(), 2u);
  EXPECT_EQ(page->front().id, ids[1]);

  ListQuery by_name;
  by_name.project_id = std::string(kProject);
  by_name.sort = {{ListQuery::Key::kName, false}, {ListQuery::Key::kCreated, true}};
  auto sorted = catalog_.ListVolumes(by_name);
  ASSERT_EQ(sorted->size(), 5u);
  EXPECT_EQ(sorted->front().id, ids[4]);
  EXPECT_EQ(sorted->back().id, ids[1]);
  by_name.marker = ids[0];
  EXPECT_EQ(catalog_.ListVolumes(by_name)->front().id, ids[3]);

  query.marker = base::NewUuid();
  const auto lost = catalog_.ListVolumes(query);
  ASSERT_FALSE(lost.has_value());
  EXPECT_EQ(lost.error().code(), Code::kNotFound);
}

}  // namespace
}  // namespace blockd
