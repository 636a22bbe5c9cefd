#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>

#include <gtest/gtest.h>

#include "tests/blockd/chunk/volume_world.h"

// What a volume may hold after a crash, sector by sector; a sector holds one number all over.

namespace blockd::chunk::testing {

using Sectors = std::map<uint64_t, uint64_t>;  // the number by sector; zero where there is none

inline uint64_t StampAt(const Sectors& sectors, uint64_t sector) {
  const auto found = sectors.find(sector);
  return found == sectors.end() ? 0 : found->second;
}

struct VolumeModel {
  Sectors now;
  std::map<uint64_t, std::set<uint64_t>> may;  // what a sector may be after a crash, besides `now`

  // A call that failed, or was not heard of again, may have done all or nothing.
  void Write(uint64_t sector, uint64_t stamp, bool acknowledged) {
    may[sector].insert(acknowledged ? StampAt(now, sector) : stamp);
    if (acknowledged) now[sector] = stamp;
  }
  // One that no crash takes.
  void Keep(uint64_t sector, uint64_t stamp) {
    may.erase(sector);
    now[sector] = stamp;
  }
  // Every sector may be what it is in `other`.
  void MayBe(const Sectors& other) {
    for (const auto& [sector, stamp] : now) may[sector].insert(StampAt(other, sector));
    for (const auto& [sector, stamp] : other) may[sector].insert(stamp);
  }
  bool May(uint64_t sector, uint64_t stamp) const {
    const auto found = may.find(sector);
    return stamp == StampAt(now, sector) || (found != may.end() && found->second.contains(stamp));
  }

  // The content is one that may be; from now on it is what is.
  void Settle(std::string_view content) {
    Sectors found;
    for (uint64_t sector = 0; sector < content.size() / kSectorBytes; ++sector) {
      const uint64_t stamp = StampOf(content.substr(sector * kSectorBytes, kSectorBytes));
      ASSERT_TRUE(May(sector, stamp))
          << "sector " << sector << " is " << stamp << " and was " << StampAt(now, sector);
      if (stamp != 0) found[sector] = stamp;
    }
    now = std::move(found);
    may.clear();
  }
};

// The content is exactly this.
inline void ExpectSectors(std::string_view content, const Sectors& sectors) {
  for (uint64_t sector = 0; sector < content.size() / kSectorBytes; ++sector) {
    const uint64_t stamp = StampOf(content.substr(sector * kSectorBytes, kSectorBytes));
    ASSERT_EQ(stamp, StampAt(sectors, sector)) << "sector " << sector;
  }
}

}  // namespace blockd::chunk::testing
