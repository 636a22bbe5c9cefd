#pragma once

#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "blockd/chunk/chunk_volume.h"
#include "tests/chunkstore/chunk_store_world.h"
#include "tests/support/results.h"

// Reading and writing volumes as strings.

namespace blockd::chunk::testing {

inline std::string ReadAll(Volume& volume, uint64_t offset, uint64_t length) {
  std::string bytes(length, '?');
  EXPECT_OK(volume.Read(offset, {reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()}));
  return bytes;
}

inline std::string ReadAll(Volume& volume) { return ReadAll(volume, 0, volume.size_bytes()); }

inline base::Result<void> Write(Volume& volume, uint64_t offset, std::string_view bytes) {
  return volume.Write(offset, base::AsBytes(bytes));
}

// A number all over a sector.
inline std::string SectorOf(uint64_t stamp) {
  std::string sector(kSectorBytes, '\0');
  for (size_t i = 0; i < kSectorBytes; i += 8) std::memcpy(&sector[i], &stamp, 8);
  return sector;
}

// The number, or a failed test if the sector is a mixture.
inline uint64_t StampOf(std::string_view sector) {
  uint64_t stamp;
  std::memcpy(&stamp, sector.data(), 8);
  EXPECT_TRUE(sector == SectorOf(stamp)) << "a mixture of several writes";
  return stamp;
}

// Extents cover the range without a gap, neighbours differ, and what is told to be zero is.
inline void ExpectRightExtents(Volume& volume, const std::string& content, uint64_t offset,
                               uint64_t length) {
  uint64_t at = offset;
  std::vector<Extent> extents;
  EXPECT_OK(volume.VisitExtents(offset, length, [&](const Extent& extent) {
    EXPECT_EQ(extent.offset, at);
    EXPECT_GT(extent.length, 0u);
    at += extent.length;
    extents.push_back(extent);
    return true;
  }));
  EXPECT_EQ(at, offset + length);
  for (size_t i = 0; i < extents.size(); ++i) {
    const Extent& extent = extents[i];
    if (i > 0) {
      EXPECT_TRUE(extent.zero != extents[i - 1].zero ||
                  extent.allocated != extents[i - 1].allocated);
    }
    if (extent.zero) {
      const base::ByteView bytes = base::AsBytes(content).subspan(extent.offset, extent.length);
      EXPECT_TRUE(base::IsZero(bytes)) << "at " << extent.offset;
    }
  }
}

}  // namespace blockd::chunk::testing
