#pragma once

#include <cstdint>
#include <string_view>

// Numbers of FORMAT.md, section 1, that encoder and decoder share and nobody else needs.

namespace chunkstore::layout {

constexpr std::string_view kMagic = "QBLB";
constexpr uint8_t kVersion = 1;
constexpr uint8_t kVersionSharing = 2;  // blocks elsewhere, or absent

// Trailer: offsets from its start.
constexpr uint32_t kVersionAt = 4;
constexpr uint32_t kKindAt = 5;
constexpr uint32_t kFlagsAt = 6;
constexpr uint32_t kPlainLengthAt = 8;
constexpr uint32_t kTableLengthAt = 12;
constexpr uint32_t kBlockCountAt = 16;
constexpr uint32_t kOwnerCountAt = 20;
constexpr uint32_t kIdAt = 24;
constexpr uint32_t kCheckAt =
    56;  // low half of the XXH3-128 of the table and the trailer up to here

constexpr uint16_t kFlagAllRaw = 1;
constexpr uint16_t kFlagPartial = 2;

}  // namespace chunkstore::layout
