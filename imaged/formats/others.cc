// The formats with short headers: vdi (VirtualBox's VDICore.h, little-endian), vhd (Microsoft's
// specification 1.0, big-endian), vhdx ([MS-VHDX], little-endian), ploop (QEMU's parallels.txt).

#include <algorithm>
#include <bit>

#include "imaged/formats/parsers.h"

namespace imaged::formats {

using base::ByteView;
using base::Result;

namespace {

bool AllZero(ByteView bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](uint8_t byte) { return byte == 0; });
}

constexpr size_t kVhdFooterBytes = 512;
constexpr uint32_t kVhdFixed = 2;
constexpr uint32_t kVhdDynamic = 3;

// The one's complement of the sum of all bytes but the checksum's own.
bool ChecksumHolds(ByteView bytes, size_t checksum_offset) {
  uint32_t sum = 0;
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (i < checksum_offset || i >= checksum_offset + 4) sum += bytes[i];
  }
  return ~sum == Big<uint32_t>(bytes, checksum_offset);
}

Result<uint32_t> VhdType(ByteView footer) {
  if (footer.size() < kVhdFooterBytes || !HasVhdMark(footer)) {
    return Bad("vhd", "is cut short within its footer");
  }
  if (!ChecksumHolds(footer.subspan(0, kVhdFooterBytes), 64)) {
    return Bad("vhd", "has a footer whose checksum is wrong");
  }
  uint32_t type = Big<uint32_t>(footer, 60);
  if (type != kVhdFixed && type != kVhdDynamic) {
    return Bad("vhd", "must be fixed or dynamic: it must not need another file");
  }
  return type;
}

// GUIDs as they lie in a file.
constexpr std::string_view kVhdxMetadataRegion(
    "\x06\xa2\x7c\x8b\x90\x47\x9a\x4b\xb8\xfe\x57\x5f\x05\x0f\x88\x6e", 16);
constexpr std::string_view kVhdxFileParameters(
    "\x37\x67\xa1\xca\x36\xfa\x43\x4d\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b", 16);
constexpr std::string_view kVhdxVirtualDiskSize(
    "\x24\x42\xa5\x2f\x1b\xcd\x76\x48\xb2\x11\x5d\xbe\xd8\x3b\xf4\xb8", 16);
constexpr std::string_view kVhdxParentLocator(
    "\x2d\x5f\xd3\xa8\x0b\xb3\x4d\x45\xab\xf7\xd3\xd8\x48\x34\xab\x0c", 16);
constexpr uint32_t kVhdxMaxEntries = 2047;
constexpr size_t kVhdxRegionTable = 192 * base::kKiB;
constexpr size_t kVhdxMetadataTableBytes = 64 * base::kKiB;
constexpr size_t kVhdxEntryBytes = 32;
constexpr uint32_t kVhdxHasParent = 2;

Result<uint64_t> VhdxMetadataOffset(ByteView head) {
  ByteView table = Slice(head, kVhdxRegionTable, 64 * base::kKiB);
  uint32_t count = Little<uint32_t>(table, 8);
  if (!HasMark(table, 0, "regi") || count > kVhdxMaxEntries) {
    return Bad("vhdx", "has no region table that can be read");
  }
  for (uint32_t i = 0; i < count; ++i) {
    ByteView entry = Slice(table, 16 + i * kVhdxEntryBytes, kVhdxEntryBytes);
    if (entry.size() < kVhdxEntryBytes) break;
    if (HasMark(entry, 0, kVhdxMetadataRegion)) return Little<uint64_t>(entry, 16);
  }
  return Bad("vhdx", "has no metadata region");
}

struct VhdxItems {
  bool has_parameters = false;
  uint64_t virtual_bytes = 0;
};

Result<void> ReadVhdxItem(ByteView entry, ByteView region, VhdxItems* items) {
  uint32_t offset = Little<uint32_t>(entry, 16);
  uint32_t length = Little<uint32_t>(entry, 20);
  if (HasMark(entry, 0, kVhdxParentLocator)) return Bad("vhdx", "must not have a parent");
  bool parameters = HasMark(entry, 0, kVhdxFileParameters);
  bool disk_size = HasMark(entry, 0, kVhdxVirtualDiskSize);
  if (!parameters && !disk_size) return {};
  ByteView item = Slice(region, offset, 8);
  if (offset < kVhdxMetadataTableBytes || length < 8 || item.size() < 8) {
    return Bad("vhdx", "has metadata that lies outside of its region");
  }
  if (parameters) {
    items->has_parameters = true;
    if (Little<uint32_t>(item, 4) & kVhdxHasParent) return Bad("vhdx", "must not have a parent");
  } else {
    items->virtual_bytes = Little<uint64_t>(item, 0);
  }
  return {};
}

}  // namespace

Result<Header> ReadVdi(ByteView head) {
  if (head.size() < 512) return Bad("vdi", "is cut short within its header");
  if (Little<uint32_t>(head, 0x44) != 0x00010001) return Bad("vdi", "must be of version 1.1");
  uint32_t type = Little<uint32_t>(head, 0x4c);
  if (type != 1 && type != 2) {
    return Bad("vdi", "must be dynamic or static: it must not need another file");
  }
  // The UUIDs of the linked and the parent image.
  if (!AllZero(Slice(head, 0x1a8, 32))) return Bad("vdi", "must not have a parent");
  uint32_t map_offset = Little<uint32_t>(head, 0x154);
  uint32_t data_offset = Little<uint32_t>(head, 0x158);
  uint64_t size = Little<uint64_t>(head, 0x170);
  uint32_t block_bytes = Little<uint32_t>(head, 0x178);
  uint32_t blocks = Little<uint32_t>(head, 0x180);
  if (!std::has_single_bit(block_bytes) || block_bytes < 4096) {
    return Bad("vdi", "has blocks of a size that can't be");
  }
  if (size > uint64_t{blocks} * block_bytes) return Bad("vdi", "has too few blocks for its disk");
  if (map_offset < 512 || Extent(map_offset, blocks, 4) > data_offset) {
    return Bad("vdi", "has a block map that overlaps its data");
  }
  Header header;
  header.virtual_bytes = size;
  header.least_bytes = data_offset;
  return header;
}

bool HasVhdMark(ByteView footer) { return HasMark(footer, 0, "conectix"); }

Result<Header> ReadVhd(ByteView head) {
  ASSIGN_OR_RETURN(uint32_t type, VhdType(head));
  if (type != kVhdDynamic) return Bad("vhd", "of the fixed type can't begin with its footer");
  uint64_t header_offset = Big<uint64_t>(head, 16);
  ByteView dynamic = Slice(head, header_offset, 1024);
  if (dynamic.size() < 1024 || !HasMark(dynamic, 0, "cxsparse")) {
    return Bad("vhd", "has no header for its dynamic disk");
  }
  uint64_t size = Big<uint64_t>(head, 48);
  uint64_t blocks = Big<uint32_t>(dynamic, 28);
  uint32_t block_bytes = Big<uint32_t>(dynamic, 32);
  if (!std::has_single_bit(block_bytes) || block_bytes < 512) {
    return Bad("vhd", "has blocks of a size that can't be");
  }
  if (size > blocks * block_bytes) return Bad("vhd", "has too few blocks for its disk");
  if (!AllZero(Slice(dynamic, 40, 16))) return Bad("vhd", "must not have a parent");
  Header header;
  header.virtual_bytes = size;
  header.least_bytes = Extent(Big<uint64_t>(dynamic, 16), blocks, 4);
  return header;
}

Result<uint64_t> ReadFixedVhdFooter(ByteView footer) {
  ASSIGN_OR_RETURN(uint32_t type, VhdType(footer));
  if (type != kVhdFixed) return Bad("vhd", "of the dynamic type must begin with its footer");
  return Big<uint64_t>(footer, 48);
}

Result<Header> ReadVhdx(ByteView head) {
  ASSIGN_OR_RETURN(uint64_t offset, VhdxMetadataOffset(head));
  ByteView region = Slice(head, offset, base::kMiB);
  uint32_t count = Little<uint16_t>(region, 10);
  if (!HasMark(region, 0, "metadata") || count > kVhdxMaxEntries) {
    return Bad("vhdx", "has no metadata within its first 4 MiB");
  }
  VhdxItems items;
  for (uint32_t i = 0; i < count; ++i) {
    ByteView entry = Slice(region, 32 + i * kVhdxEntryBytes, kVhdxEntryBytes);
    if (entry.size() < kVhdxEntryBytes) return Bad("vhdx", "is cut short within its metadata");
    RETURN_IF_ERROR(ReadVhdxItem(entry, region, &items));
  }
  if (!items.has_parameters || items.virtual_bytes == 0) {
    return Bad("vhdx", "does not say how large its disk is");
  }
  Header header;
  header.virtual_bytes = items.virtual_bytes;
  header.least_bytes = Extent(offset, 1, kVhdxMetadataTableBytes);
  return header;
}

Result<Header> ReadPloop(ByteView head) {
  if (head.size() < 64) return Bad("ploop", "is cut short within its header");
  if (Little<uint32_t>(head, 16) != 2) return Bad("ploop", "must be of version 2");
  uint64_t track_sectors = Little<uint32_t>(head, 28);
  uint64_t entries = Little<uint32_t>(head, 32);
  // The older mark has only 32 bits for the sectors.
  uint64_t sectors = HasMark(head, 0, "WithoutFreeSpace") ? Little<uint32_t>(head, 36)
                                                          : Little<uint64_t>(head, 36);
  if (track_sectors == 0 || sectors > (uint64_t{1} << 50) || sectors > entries * track_sectors) {
    return Bad("ploop", "has too few blocks for its disk");
  }
  Header header;
  header.virtual_bytes = sectors * 512;
  header.least_bytes = Extent(64, entries, 4);
  return header;
}

}  // namespace imaged::formats
