#include "controlplane/host/readahead.h"

#include <gtest/gtest.h>

namespace controlplane::host {
namespace {

using base::kKiB;
using base::kMiB;

TEST(Readahead, ARandomReaderGetsNothing) {
  Readahead readahead;
  for (uint64_t i = 1; i < 1000; ++i)
    EXPECT_FALSE(readahead.Note(i * 7919 % 1000 * kMiB * 16, 4096).has_value()) << i;
}

TEST(Readahead, WhoReadsOnGetsEachByteOnceAndFurtherAndFurther) {
  Readahead readahead;
  constexpr uint64_t kRead = 128 * kKiB;
  uint64_t ahead = 0;
  uint64_t furthest = 0;
  for (uint64_t offset = 0; offset < 100 * kMiB; offset += kRead) {
    const auto range = readahead.Note(offset, kRead);
    if (!range.has_value()) continue;
    if (ahead != 0) {
      EXPECT_EQ(range->offset, ahead);
    }
    ahead = range->offset + range->length;
    furthest = std::max(furthest, ahead - offset - kRead);
    EXPECT_LE(ahead, offset + kRead + Readahead::kMaxAheadBytes);
  }
  EXPECT_EQ(furthest, Readahead::kMaxAheadBytes);
  EXPECT_GE(ahead, 100 * kMiB);
}

TEST(Readahead, ReadsOfOneReaderMayComeOutOfOrder) {
  Readahead readahead;
  constexpr uint64_t kRead = 1 * kMiB;
  uint64_t named = 0;
  for (uint64_t pair = 0; pair < 20; ++pair) {
    for (const uint64_t offset : {(2 * pair + 1) * kRead, 2 * pair * kRead}) {
      if (const auto range = readahead.Note(offset, kRead)) named += range->length;
    }
  }
  EXPECT_GE(named, 20 * kMiB);
  EXPECT_LE(named, 50 * kMiB);
}

TEST(Readahead, SeveralReadersDoNotDisturbEachOther) {
  Readahead readahead;
  constexpr uint64_t kReaders = 16;
  uint64_t named[kReaders] = {};
  for (uint64_t step = 0; step < 64; ++step) {
    for (uint64_t reader = 0; reader < kReaders; ++reader) {
      const uint64_t base = reader * 1024 * kMiB;
      const auto range = readahead.Note(base + step * 64 * kKiB, 64 * kKiB);
      if (!range.has_value()) continue;
      EXPECT_EQ(range->offset / (1024 * kMiB), reader);
      named[reader] += range->length;
    }
  }
  for (const uint64_t bytes : named) EXPECT_GE(bytes, 4 * kMiB);
}

}  // namespace
}  // namespace controlplane::host
