#include "chunkstore/layers/cache_counts.h"

#include <string>

namespace chunkstore::layers {
namespace {

constexpr const char* kPrefix = "quarry_chunkstore_disk_cache_";

base::Counter& Counted(base::Metrics& metrics, const std::string& name, const std::string& help) {
  return metrics.GetCounter(kPrefix + name, help);
}

base::Gauge& Level(base::Metrics& metrics, const std::string& name, const std::string& help) {
  return metrics.GetGauge(kPrefix + name, help);
}

}  // namespace

CacheCounts::CacheCounts(base::Metrics& metrics)
    : hit_blocks(Counted(metrics, "hit_blocks_total", "Reads of a block that the disk answered.")),
      hit_plain_bytes(Counted(metrics, "hit_bytes_total", "Plain bytes that the disk answered.")),
      ahead_blocks(Counted(metrics, "ahead_blocks_total",
                           "First reads of a block that was fetched ahead of them.")),
      ahead_plain_bytes(Counted(metrics, "ahead_bytes_total",
                                "Plain bytes of first reads of what was fetched ahead of them.")),
      miss_blocks(
          Counted(metrics, "miss_blocks_total", "Reads of a block that waited for a fetch.")),
      miss_plain_bytes(
          Counted(metrics, "miss_bytes_total", "Plain bytes of reads that waited for a fetch.")),
      fetched_blocks(Counted(metrics, "fetched_blocks_total", "Blocks that came from services.")),
      fetched_bytes(Counted(metrics, "fetched_bytes_total",
                            "Stored bytes of the blocks that came from services.")),
      ahead_fetched_bytes(Counted(metrics, "ahead_fetched_bytes_total",
                                  "Of these, what was fetched ahead of its first reader.")),
      evicted_blocks(Counted(metrics, "evicted_blocks_total", "Blocks that left to make room.")),
      damaged_blocks(Counted(metrics, "damaged_blocks_total",
                             "Blocks with other bytes on disk than they should have.")),
      unkept_blocks(Counted(metrics, "unkept_blocks_total",
                            "Blocks that were not written: disk full or failing, or no room.")),
      limit_bytes(Level(metrics, "limit_bytes", "What the files of the cache may take.")),
      disk_bytes(Level(metrics, "disk_bytes", "What the files of the cache take.")),
      used_bytes(Level(metrics, "used_bytes", "Stored bytes of the blocks that are here.")),
      blocks(Level(metrics, "blocks", "Blocks that are here.")),
      pinned_bytes(Level(metrics, "pinned_bytes", "Stored bytes of the blocks that stay.")) {}

}  // namespace chunkstore::layers
