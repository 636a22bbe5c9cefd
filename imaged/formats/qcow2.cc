// QEMU's docs/interop/qcow2.txt. All numbers are big-endian.

#include <algorithm>

#include "imaged/formats/parsers.h"

namespace imaged::formats {

using base::ByteView;
using base::Result;

namespace {

constexpr uint32_t kExtensionEnd = 0;
constexpr uint32_t kExtensionBackingFormat = 0xE2792ACA;
constexpr uint32_t kExtensionDataFile = 0x44415441;

constexpr uint64_t kFeatureCorrupt = 1 << 1;
constexpr uint64_t kFeatureDataFile = 1 << 2;
constexpr uint64_t kFeatureExtendedL2 = 1 << 4;
constexpr uint64_t kKnownFeatures = 0x1f;  // dirty, corrupt, data file, compression type, that one

// What QEMU itself accepts at most.
constexpr uint64_t kMaxL1Bytes = 32 * base::kMiB;
constexpr uint64_t kMaxRefcountTableBytes = 8 * base::kMiB;
constexpr uint32_t kMaxSnapshots = 65536;

Result<void> CheckFeatures(ByteView head) {
  uint64_t features = Big<uint64_t>(head, 72);
  if (features & kFeatureDataFile) return Bad("qcow2", "must not have an external data file");
  if (features & ~kKnownFeatures) return Bad("qcow2", "has incompatible features that are unknown");
  if (features & kFeatureCorrupt) return Bad("qcow2", "is marked as corrupt; repair it first");
  return {};
}

// Header extensions lie between the header and the end of the first cluster.
Result<void> CheckExtensions(ByteView head, uint64_t offset, uint64_t cluster_bytes) {
  while (offset + 8 <= cluster_bytes) {
    if (offset + 8 > head.size()) return Bad("qcow2", "is cut short within its header");
    uint32_t type = Big<uint32_t>(head, offset);
    uint64_t length = Big<uint32_t>(head, offset + 4);
    if (type == kExtensionEnd) return {};
    if (length > cluster_bytes - offset - 8) {
      return Bad("qcow2", "has a header extension beyond its first cluster");
    }
    if (type == kExtensionDataFile) return Bad("qcow2", "must not name an external data file");
    if (type == kExtensionBackingFormat) return Bad("qcow2", "must not name a backing format");
    offset += 8 + (length + 7) / 8 * 8;
  }
  return {};
}

Result<void> CheckL1(ByteView head, uint64_t size, uint32_t cluster_bits, bool extended_l2) {
  uint64_t entries = Big<uint32_t>(head, 36);
  uint64_t offset = Big<uint64_t>(head, 40);
  uint64_t cluster_bytes = uint64_t{1} << cluster_bits;
  if (entries * 8 > kMaxL1Bytes) return Bad("qcow2", "has an L1 table larger than 32 MiB");
  if (offset % cluster_bytes != 0) return Bad("qcow2", "has an L1 table off its clusters");
  // One L1 entry covers a cluster of L2 entries of 8 bytes (16 if extended), a cluster each.
  uint64_t covered = cluster_bytes / (extended_l2 ? 16 : 8) * cluster_bytes;
  if ((size + covered - 1) / covered > entries) {
    return Bad("qcow2", "has an L1 table too small for its disk");
  }
  return {};
}

}  // namespace

Result<Header> ReadQcow2(ByteView head) {
  if (head.size() < 72) return Bad("qcow2", "is cut short within its header");
  uint32_t version = Big<uint32_t>(head, 4);
  if (version != 2 && version != 3) return Bad("qcow2", "must be of version 2 or 3");
  if (Big<uint64_t>(head, 8) != 0 || Big<uint32_t>(head, 16) != 0) {
    return Bad("qcow2", "must not have a backing file");
  }
  uint32_t cluster_bits = Big<uint32_t>(head, 20);
  if (cluster_bits < 9 || cluster_bits > 21) {
    return Bad("qcow2", "has clusters of a size that can't be");
  }
  uint64_t cluster_bytes = uint64_t{1} << cluster_bits;
  uint64_t size = Big<uint64_t>(head, 24);
  if (size > (uint64_t{1} << 62)) return Bad("qcow2", "describes a disk of a size that can't be");
  if (Big<uint32_t>(head, 32) > 2) return Bad("qcow2", "is encrypted in an unknown way");
  if (Big<uint32_t>(head, 60) > kMaxSnapshots) return Bad("qcow2", "has too many snapshots");

  uint64_t header_bytes = 72;
  bool extended_l2 = false;
  if (version == 3) {
    header_bytes = Big<uint32_t>(head, 100);
    if (head.size() < 104 || header_bytes < 104 || header_bytes > cluster_bytes) {
      return Bad("qcow2", "has a header of a length that can't be");
    }
    RETURN_IF_ERROR(CheckFeatures(head));
    if (Big<uint32_t>(head, 96) > 6) return Bad("qcow2", "has refcounts of an unknown width");
    extended_l2 = (Big<uint64_t>(head, 72) & kFeatureExtendedL2) != 0;
  }
  RETURN_IF_ERROR(CheckExtensions(head, header_bytes, cluster_bytes));
  RETURN_IF_ERROR(CheckL1(head, size, cluster_bits, extended_l2));

  uint64_t refcount_offset = Big<uint64_t>(head, 48);
  uint64_t refcount_clusters = Big<uint32_t>(head, 56);
  if (refcount_offset == 0 || refcount_offset % cluster_bytes != 0 || refcount_clusters == 0 ||
      refcount_clusters * cluster_bytes > kMaxRefcountTableBytes) {
    return Bad("qcow2", "has a refcount table that can't be");
  }
  Header header;
  header.virtual_bytes = size;
  header.least_bytes = std::max(Extent(Big<uint64_t>(head, 40), Big<uint32_t>(head, 36), 8),
                                Extent(refcount_offset, 1, 8));
  return header;
}

}  // namespace imaged::formats
