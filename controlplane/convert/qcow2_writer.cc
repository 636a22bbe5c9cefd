#include "controlplane/convert/qcow2_writer.h"

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "blockd/volume.h"
#include "controlplane/convert/put_ahead.h"

namespace controlplane::convert {
namespace {

using base::ByteView;
using base::Code;
using base::Error;
using base::Result;
using chunkstore::kChunkBytes;

constexpr uint32_t kMagic = 0x514649fb;  // "QFI", 0xfb
constexpr uint32_t kVersion = 3;
constexpr uint32_t kHeaderBytes = 104;
constexpr uint32_t kClusterBits = 16;
constexpr uint64_t kClusterBytes = uint64_t{1} << kClusterBits;
constexpr uint32_t kRefcountOrder = 4;  // of 16 bits
constexpr uint64_t kEntriesOfTable = kClusterBytes / 8;
constexpr uint64_t kRefcountsOfBlock = kClusterBytes / 2;
constexpr uint64_t kTableSpanBytes = kEntriesOfTable * kClusterBytes;  // what one L2 table maps
constexpr uint64_t kChunksOfTable = kTableSpanBytes / kChunkBytes;
constexpr uint64_t kClustersOfChunk = kChunkBytes / kClusterBytes;
constexpr uint64_t kCopied = uint64_t{1} << 63;  // the cluster is referred to once

uint64_t DivideUp(uint64_t value, uint64_t by) { return (value + by - 1) / by; }

// Where everything lies, in clusters of the file, in this order: the header, the refcount table and
// its blocks, the L1 table, the L2 tables; then, from the next chunk on, the data.
struct Plan {
  uint64_t disk_bytes = 0;       // as the header says it
  std::vector<uint64_t> chunks;  // of the disk, those that are there
  std::vector<uint64_t> tables;  // numbers of the L2 tables that map them
  uint64_t refcount_table_clusters = 0;
  uint64_t refcount_blocks = 0;
  uint64_t l1_entries = 0;
  uint64_t l1_clusters = 0;
  uint64_t data_clusters = 0;

  uint64_t RefcountTable() const { return 1; }
  uint64_t RefcountBlocks() const { return RefcountTable() + refcount_table_clusters; }
  uint64_t L1() const { return RefcountBlocks() + refcount_blocks; }
  uint64_t L2() const { return L1() + l1_clusters; }
  uint64_t MetadataEnd() const { return L2() + tables.size(); }
  uint64_t Data() const { return DivideUp(MetadataEnd(), kClustersOfChunk) * kClustersOfChunk; }
  uint64_t End() const { return Data() + data_clusters; }
};

Result<Plan> MakePlan(chunkstore::Content& disk) {
  Plan plan;
  const uint64_t size = disk.root().size_bytes;
  plan.disk_bytes = DivideUp(size, blockd::kSectorBytes) * blockd::kSectorBytes;
  RETURN_IF_ERROR(disk.VisitChunks(0, DivideUp(size, kChunkBytes),
                                   [&plan](uint64_t index, const base::Digest256&) {
                                     plan.chunks.push_back(index);
                                     return true;
                                   }));
  for (const uint64_t chunk : plan.chunks) {
    if (plan.tables.empty() || plan.tables.back() != chunk / kChunksOfTable)
      plan.tables.push_back(chunk / kChunksOfTable);
    plan.data_clusters +=
        DivideUp(std::min<uint64_t>(kChunkBytes, size - chunk * kChunkBytes), kClusterBytes);
  }
  plan.l1_entries = DivideUp(plan.disk_bytes, kTableSpanBytes);
  plan.l1_clusters = DivideUp(plan.l1_entries * 8, kClusterBytes);
  // The refcounts count themselves: more of them until there are enough.
  while (plan.refcount_blocks * kRefcountsOfBlock < plan.End()) {
    ++plan.refcount_blocks;
    plan.refcount_table_clusters = DivideUp(plan.refcount_blocks * 8, kClusterBytes);
  }
  return plan;
}

// A file that is written from its beginning to its end, into an ingest.
class ChunkWriter {
 public:
  explicit ChunkWriter(chunkstore::Ingest& ingest)
      : ingest_(ingest), puts_(ingest), chunk_(puts_.Take()) {}

  // The next `length` bytes, zeroed, to be filled before the next call. None of them lies across
  // the end of a chunk.
  Result<uint8_t*> Next(size_t length) {
    if (used_ == kChunkBytes) {
      RETURN_IF_ERROR(Put());
      chunk_ = puts_.Take();
    }
    uint8_t* bytes = chunk_.data() + used_;
    std::fill_n(bytes, length, 0);
    used_ += length;
    return bytes;
  }
  Result<void> Pad(uint64_t to_cluster) {
    while (put_ * kChunkBytes + used_ < to_cluster * kClusterBytes)
      RETURN_IF_ERROR(Next(kClusterBytes));
    return {};
  }
  Result<chunkstore::Root> Finish() {
    const uint64_t size = put_ * kChunkBytes + used_;
    RETURN_IF_ERROR(Put());
    RETURN_IF_ERROR(puts_.Finish());
    return ingest_.Finish(size);
  }

 private:
  Result<void> Put() {
    const size_t length = std::exchange(used_, 0);
    return puts_.Put(put_++, std::move(chunk_), length);
  }

  chunkstore::Ingest& ingest_;
  PutAhead puts_;
  base::Buffer chunk_;
  uint64_t put_ = 0;
  size_t used_ = 0;
};

// Numbers lie with the most significant byte first.
template <typename Number>
void Store(uint8_t* at, Number number) {
  for (size_t i = 0; i < sizeof(Number); ++i)
    at[i] = static_cast<uint8_t>(number >> (8 * (sizeof(Number) - 1 - i)));
}

Result<void> WriteHeader(const Plan& plan, ChunkWriter& out) {
  ASSIGN_OR_RETURN(uint8_t* const header, out.Next(kClusterBytes));
  Store(header, kMagic);
  Store(header + 4, kVersion);
  Store(header + 20, kClusterBits);
  Store(header + 24, plan.disk_bytes);
  Store(header + 36, static_cast<uint32_t>(plan.l1_entries));
  Store(header + 40, plan.L1() * kClusterBytes);
  Store(header + 48, plan.RefcountTable() * kClusterBytes);
  Store(header + 56, static_cast<uint32_t>(plan.refcount_table_clusters));
  Store(header + 96, kRefcountOrder);
  Store(header + 100, kHeaderBytes);
  return {};
}

Result<void> WriteRefcounts(const Plan& plan, ChunkWriter& out) {
  for (uint64_t cluster = 0; cluster < plan.refcount_table_clusters; ++cluster) {
    ASSIGN_OR_RETURN(uint8_t* const table, out.Next(kClusterBytes));
    for (uint64_t i = 0; i < kEntriesOfTable; ++i) {
      const uint64_t block = cluster * kEntriesOfTable + i;
      if (block >= plan.refcount_blocks) break;
      Store(table + 8 * i, (plan.RefcountBlocks() + block) * kClusterBytes);
    }
  }
  for (uint64_t block = 0; block < plan.refcount_blocks; ++block) {
    ASSIGN_OR_RETURN(uint8_t* const counts, out.Next(kClusterBytes));
    for (uint64_t i = 0; i < kRefcountsOfBlock; ++i) {
      const uint64_t cluster = block * kRefcountsOfBlock + i;
      // What lies between tables and data is free.
      const bool used =
          cluster < plan.MetadataEnd() || (cluster >= plan.Data() && cluster < plan.End());
      if (used) Store(counts + 2 * i, uint16_t{1});
    }
  }
  return {};
}

Result<void> WriteL1(const Plan& plan, ChunkWriter& out) {
  size_t next = 0;
  for (uint64_t cluster = 0; cluster < plan.l1_clusters; ++cluster) {
    ASSIGN_OR_RETURN(uint8_t* const table, out.Next(kClusterBytes));
    while (next < plan.tables.size() && plan.tables[next] / kEntriesOfTable == cluster) {
      Store(table + 8 * (plan.tables[next] % kEntriesOfTable),
            (plan.L2() + next) * kClusterBytes | kCopied);
      ++next;
    }
  }
  return {};
}

Result<void> WriteL2(const Plan& plan, uint64_t size, ChunkWriter& out) {
  size_t next = 0;
  for (const uint64_t number : plan.tables) {
    ASSIGN_OR_RETURN(uint8_t* const table, out.Next(kClusterBytes));
    for (; next < plan.chunks.size() && plan.chunks[next] / kChunksOfTable == number; ++next) {
      const uint64_t begin = plan.chunks[next] * kChunkBytes;
      const uint64_t clusters =
          DivideUp(std::min<uint64_t>(kChunkBytes, size - begin), kClusterBytes);
      uint8_t* const entries = table + 8 * (begin / kClusterBytes % kEntriesOfTable);
      for (uint64_t i = 0; i < clusters; ++i)
        Store(entries + 8 * i,
              (plan.Data() + next * kClustersOfChunk + i) * kClusterBytes | kCopied);
    }
  }
  return {};
}

Result<void> WriteData(const Plan& plan, chunkstore::Content& disk, ChunkWriter& out,
                       const std::function<bool()>& cancelled) {
  const uint64_t size = disk.root().size_bytes;
  for (const uint64_t chunk : plan.chunks) {
    if (cancelled()) return Error(Code::kCancelled, "called off while writing a qcow2");
    const uint64_t there = std::min<uint64_t>(kChunkBytes, size - chunk * kChunkBytes);
    const uint64_t length = DivideUp(there, kClusterBytes) * kClusterBytes;
    ASSIGN_OR_RETURN(uint8_t* const bytes, out.Next(length));
    RETURN_IF_ERROR(disk.ReadAt(chunk * kChunkBytes, {bytes, there}));
  }
  return {};
}

}  // namespace

Result<chunkstore::Root> WriteQcow2(chunkstore::Content& disk, chunkstore::Ingest& ingest,
                                    const std::function<bool()>& cancelled) {
  ASSIGN_OR_RETURN(const Plan plan, MakePlan(disk));
  if (plan.End() * kClusterBytes > chunkstore::kMaxContentBytes)
    return Error(Code::kTooLarge, "the disk is too full to be written as a qcow2");
  ChunkWriter out(ingest);
  RETURN_IF_ERROR(WriteHeader(plan, out));
  RETURN_IF_ERROR(WriteRefcounts(plan, out));
  RETURN_IF_ERROR(WriteL1(plan, out));
  RETURN_IF_ERROR(WriteL2(plan, disk.root().size_bytes, out));
  // Before the data the chunk is filled up; where there is no data, there is no need to.
  if (plan.data_clusters > 0) RETURN_IF_ERROR(out.Pad(plan.Data()));
  RETURN_IF_ERROR(WriteData(plan, disk, out, cancelled));
  return out.Finish();
}

}  // namespace controlplane::convert
