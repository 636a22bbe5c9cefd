#include <algorithm>
#include <random>

#include <gtest/gtest.h>

#include "base/uuid.h"
#include "chunkstore/memory/memory_meta_store.h"
#include "imaged/catalog.h"
#include "tests/support/results.h"

// Lists against a model: all images in a vector, filtered by Matches and sorted by ComesBefore. The
// catalog must give the same by its indexes, whatever the query, page by page.

namespace imaged {
namespace {

using base::Result;

const Catalog::Check kAnybody = [](const Image&) -> Result<void> { return {}; };

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  size_t Below(size_t bound) { return engine_() % bound; }
  bool OneIn(size_t n) { return Below(n) == 0; }
  template <typename T>
  const T& Pick(const std::vector<T>& choices) {
    return choices[Below(choices.size())];
  }

 private:
  std::mt19937_64 engine_;
};

const std::vector<std::string> kProjects = {"p1", "p2", "p3", "odd/project", std::string(90, 'x')};
const std::vector<std::optional<std::string>> kNames = {std::nullopt,
                                                        "",
                                                        "a",
                                                        "ab",
                                                        std::string("a\0b", 3),
                                                        "b",
                                                        "\xc3\xa9",
                                                        std::string(255, 'n'),
                                                        std::string(255, 'n') + "m",
                                                        "same",
                                                        "same",
                                                        "same"};
const std::vector<std::optional<std::string>> kFormats = {std::nullopt, "raw", "qcow2", "iso"};

class ListModelTest : public testing::TestWithParam<uint64_t> {
 protected:
  Image RandomImage() {
    Image image;
    image.id = base::NewUuid();
    image.name = random_.Pick(kNames);
    image.owner = random_.Pick(kProjects);
    image.visibility = static_cast<Visibility>(random_.Below(4));
    image.is_hidden = random_.OneIn(5);
    image.is_protected = random_.OneIn(3);
    image.disk_format = random_.Pick(kFormats);
    image.min_ram_mb = static_cast<int32_t>(random_.Below(3));
    for (const char* tag : {"t1", "t2", "t3"})
      if (random_.OneIn(2)) image.tags.emplace_back(tag);
    if (random_.OneIn(2)) image.properties["os"] = random_.OneIn(2) ? "debian" : "plan9";
    for (const std::string& project : kProjects)
      if (random_.OneIn(3))
        image.members.push_back({project, static_cast<MemberStatus>(random_.Below(3)), 1, 1});
    return image;
  }

  void Fill(size_t count) {
    for (size_t i = 0; i < count; ++i) {
      if (random_.OneIn(2)) clock_.AdvanceUs(static_cast<int64_t>(random_.Below(900'000)));
      ASSERT_OK_AND_ASSIGN(Image image, catalog_.Create(RandomImage()));
      if (random_.OneIn(2)) {
        ASSERT_OK(
            catalog_.BeginUpload(image.id, UploadKind::kData, "h" + image.id, 1, 0, kAnybody));
        if (random_.OneIn(2)) {
          const DataFacts facts{{{}, random_.Below(5)}};
          ASSERT_OK(catalog_.FinishUpload(image.id, "h" + image.id, "h" + image.id, facts));
        }
      }
      images_.push_back(*catalog_.Get(image.id));
    }
  }

  void Churn(size_t count) {
    for (size_t i = 0; i < count; ++i) {
      const size_t at = random_.Below(images_.size());
      if (random_.OneIn(3)) {
        ASSERT_OK(catalog_.Delete(images_[at].id, kAnybody));
        images_.erase(images_.begin() + static_cast<ptrdiff_t>(at));
        continue;
      }
      const Image other = RandomImage();
      ASSERT_OK_AND_ASSIGN(images_[at],
                           catalog_.Update(images_[at].id, [&](Image& image) -> Result<void> {
                             image.name = other.name;
                             image.owner = other.owner;
                             image.visibility = other.visibility;
                             image.members = other.members;
                             return {};
                           }));
    }
  }

  ListQuery RandomQuery() {
    ListQuery query;
    if (!random_.OneIn(6)) query.viewer.project_id = random_.Pick(kProjects);
    query.viewer.is_admin = random_.OneIn(4);
    if (random_.OneIn(2))
      query.visibility = static_cast<Visibility>(random_.Below(4));
    else
      query.all_visibilities = random_.OneIn(3);
    if (random_.OneIn(2))
      query.member_status = static_cast<MemberStatus>(random_.Below(3));
    else if (random_.OneIn(2))
      query.member_status = std::nullopt;
    if (random_.OneIn(4))
      for (size_t n = random_.Below(3); n < 3; ++n)
        query.names.push_back(random_.Pick(kNames).value_or("none"));
    if (random_.OneIn(8))
      for (size_t n = 0; n < 4; ++n) query.ids.push_back(random_.Pick(images_).id);
    if (random_.OneIn(6)) query.statuses = {"active", "saving"};
    if (random_.OneIn(6)) query.disk_formats = {"raw"};
    if (random_.OneIn(6)) query.equal.emplace_back("owner", random_.Pick(kProjects));
    if (random_.OneIn(6)) query.equal.emplace_back("os", "debian");
    if (random_.OneIn(6)) query.tags = {"t1", "t3"};
    if (random_.OneIn(6)) query.size_min = 2;
    if (random_.OneIn(6)) query.is_protected = random_.OneIn(2);
    if (random_.OneIn(8))
      query.created_at.push_back(
          {static_cast<TimeOp>(random_.Below(6)), random_.Pick(images_).created_at_us});
    query.is_hidden = random_.OneIn(5);
    for (size_t n = random_.Below(4); n > 0; --n)
      query.sort.push_back({static_cast<SortKey>(random_.Below(8)), random_.OneIn(2)});
    query.tie_descending = query.sort.size() == 1 ? query.sort[0].descending : true;
    query.limit = 1 + random_.Below(12);
    return query;
  }

  std::vector<std::string> Expected(const ListQuery& query) {
    std::vector<Image> matching;
    for (const Image& image : images_)
      if (Matches(query, image)) matching.push_back(image);
    auto before = [&](const Image& a, const Image& b) { return ComesBefore(query, a, b); };
    std::sort(matching.begin(), matching.end(), before);
    std::vector<std::string> ids;
    for (const Image& image : matching) ids.push_back(image.id);
    return ids;
  }

  std::vector<std::string> Listed(ListQuery query) {
    std::vector<std::string> ids;
    while (true) {
      const auto page = catalog_.List(query);
      EXPECT_OK(page);
      if (!page.has_value() || page->empty()) return ids;
      EXPECT_LE(page->size(), query.limit);
      for (const Image& image : *page) ids.push_back(image.id);
      if (page->size() < query.limit) return ids;
      query.marker = page->back().id;
    }
  }

  Random random_{GetParam()};
  chunkstore::MemoryMetaStore meta_;
  base::ManualClock clock_;
  Catalog catalog_{meta_, clock_};
  std::vector<Image> images_;
};

TEST_P(ListModelTest, PagesAreTheModels) {
  Fill(120);
  for (int round = 0; round < 4; ++round) {
    for (int i = 0; i < 60; ++i) {
      const ListQuery query = RandomQuery();
      EXPECT_EQ(Listed(query), Expected(query));
    }
    Churn(30);
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, ListModelTest, testing::Range<uint64_t>(1, 9));

class VisibilityTest : public testing::Test {
 protected:
  std::string Add(const std::string& owner, Visibility visibility,
                  std::vector<Member> members = {}) {
    Image image;
    image.id = base::NewUuid();
    image.owner = owner;
    image.visibility = visibility;
    image.members = std::move(members);
    clock_.AdvanceUs(1);
    EXPECT_OK(catalog_.Create(image));
    return image.id;
  }
  std::vector<std::string> Listed(const ListQuery& query) {
    std::vector<std::string> ids;
    auto images = catalog_.List(query);
    EXPECT_OK(images);
    for (const Image& image : *images) ids.push_back(image.id);
    std::reverse(ids.begin(), ids.end());  // oldest first: as they were added
    return ids;
  }

  chunkstore::MemoryMetaStore meta_;
  base::ManualClock clock_;
  Catalog catalog_{meta_, clock_};
};

// The rules spelled out, since the model above shares Matches with the catalog.
TEST_F(VisibilityTest, WhoListsWhat) {
  using Ids = std::vector<std::string>;
  const std::string own_private = Add("me", Visibility::kPrivate);
  const std::string own_community = Add("me", Visibility::kCommunity);
  const std::string own_shared = Add("me", Visibility::kShared);
  const std::string others_private = Add("you", Visibility::kPrivate);
  const std::string others_public = Add("you", Visibility::kPublic);
  const std::string others_community = Add("you", Visibility::kCommunity);
  const std::string accepted =
      Add("you", Visibility::kShared, {{"me", MemberStatus::kAccepted, 1, 1}});
  const std::string pending =
      Add("you", Visibility::kShared, {{"me", MemberStatus::kPending, 1, 1}});
  const std::string unshared =
      Add("you", Visibility::kPrivate, {{"me", MemberStatus::kAccepted, 1, 1}});

  ListQuery query;
  query.viewer.project_id = "me";
  EXPECT_EQ(Listed(query), (Ids{own_private, own_community, own_shared, others_public, accepted}));
  query.all_visibilities = true;
  EXPECT_EQ(Listed(query), (Ids{own_private, own_community, own_shared, others_public,
                                others_community, accepted}));
  query.all_visibilities = false;
  query.visibility = Visibility::kCommunity;
  EXPECT_EQ(Listed(query), (Ids{own_community, others_community}));
  query.visibility = Visibility::kPrivate;
  EXPECT_EQ(Listed(query), Ids{own_private});
  query.visibility = Visibility::kPublic;
  EXPECT_EQ(Listed(query), Ids{others_public});
  query.visibility = Visibility::kShared;
  EXPECT_EQ(Listed(query), (Ids{own_shared, accepted}));
  query.member_status = MemberStatus::kPending;
  EXPECT_EQ(Listed(query), (Ids{own_shared, pending}));
  query.member_status = std::nullopt;
  EXPECT_EQ(Listed(query), (Ids{own_shared, accepted, pending}));

  ListQuery nobody;
  EXPECT_EQ(Listed(nobody), Ids{others_public});

  ListQuery admin;
  admin.viewer = {"me", true};
  EXPECT_EQ(Listed(admin), (Ids{own_private, own_community, own_shared, others_private,
                                others_public, accepted, pending, unshared}));
  admin.visibility = Visibility::kPrivate;
  EXPECT_EQ(Listed(admin), (Ids{own_private, others_private, unshared}));
}

TEST_F(VisibilityTest, UnknownMarkerIsTheClientsMistake) {
  ListQuery query;
  query.marker = "x";
  const auto listed = catalog_.List(query);
  ASSERT_ERROR(listed, base::Code::kInvalidArgument);
  EXPECT_EQ(listed.error().message(), "No image found with ID x");
}

// Counts what a page costs, whatever the number of images.
class CountingMeta : public chunkstore::MemoryMetaStore {
 public:
  Result<std::string> Get(std::string_view partition, std::string_view key) override {
    ++gets;
    return MemoryMetaStore::Get(partition, key);
  }
  int gets = 0;
};

TEST(ListCostTest, APageReadsAPage) {
  CountingMeta meta;
  base::ManualClock clock;
  Catalog catalog(meta, clock);
  for (int i = 0; i < 3000; ++i) {
    Image image;
    image.id = base::NewUuid();
    image.owner = i % 2 == 0 ? "me" : "you";
    image.visibility = i % 4 == 1 ? Visibility::kPublic : Visibility::kPrivate;
    image.name = "image-" + std::to_string(i);
    clock.AdvanceUs(1);
    ASSERT_OK(catalog.Create(image));
  }
  ListQuery query;
  query.viewer.project_id = "me";
  query.limit = 10;
  auto cost = [&](const ListQuery& asked) {
    meta.gets = 0;
    EXPECT_OK(catalog.List(asked));
    return meta.gets;
  };
  EXPECT_EQ(cost(query), 10);
  query.marker = catalog.List(query)->back().id;
  EXPECT_EQ(cost(query), 11) << "the marker as well";
  query.marker.clear();
  query.sort = {{SortKey::kName, false}};
  query.tie_descending = false;
  EXPECT_EQ(cost(query), 10);
  query.names = {"image-100"};
  EXPECT_EQ(cost(query), 1);
  query = {};
  query.viewer = {"admin", true};
  EXPECT_EQ(cost(query), 25);
}

}  // namespace
}  // namespace imaged
