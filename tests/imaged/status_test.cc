#include "imaged/status.h"

#include <set>
#include <string>

#include <gtest/gtest.h>

namespace imaged {
namespace {

// The whole table, written down a second time as pairs: a bit turned in either place shows.
const std::set<std::string> kAllowed = {
    "queued>saving",    "queued>uploading",       "queued>importing",   "queued>active",
    "queued>deleted",   "saving>active",          "saving>killed",      "saving>deleted",
    "saving>queued",    "uploading>importing",    "uploading>queued",   "uploading>deleted",
    "importing>active", "importing>deleted",      "importing>queued",   "active>pending_delete",
    "active>deleted",   "active>deactivated",     "deactivated>active", "deactivated>deleted",
    "killed>deleted",   "pending_delete>deleted",
};

TEST(StatusTest, TableIsGlances) {
  for (size_t from = 0; from < kStatusCount; ++from) {
    for (size_t to = 0; to < kStatusCount; ++to) {
      const auto a = static_cast<Status>(from);
      const auto b = static_cast<Status>(to);
      const std::string pair = std::string(StatusName(a)) + ">" + std::string(StatusName(b));
      EXPECT_EQ(MayFollow(a, b), kAllowed.contains(pair)) << pair;
      EXPECT_EQ(CheckTransition(a, b).has_value(), kAllowed.contains(pair)) << pair;
    }
  }
}

TEST(StatusTest, NamesRoundTrip) {
  for (size_t i = 0; i < kStatusCount; ++i) {
    const auto status = static_cast<Status>(i);
    EXPECT_EQ(ParseStatus(StatusName(status)), status);
  }
  EXPECT_EQ(ParseStatus("Active"), std::nullopt);
  EXPECT_EQ(ParseStatus(""), std::nullopt);
}

TEST(StatusTest, RefusalIsGlancesSentence) {
  const auto refused = CheckTransition(Status::kActive, Status::kSaving);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code(), base::Code::kConflict);
  EXPECT_EQ(refused.error().message(),
            "Image status transition from active to saving is not allowed");
}

}  // namespace
}  // namespace imaged
