#pragma once

#include <memory>

#include "base/clock.h"
#include "base/files.h"
#include "chunkstore/layers/caching.h"
#include "controlplane/host/image_volume.h"
#include "tests/support/temp_dir.h"

namespace controlplane::host {

// What images on a host share, with a real cache on disk.
class HostWorld {
 public:
  HostWorld() {
    chunkstore::layers::BlockDiskCacheOptions options;
    options.directory = dir / "cache";
    options.limit_bytes = 64 * base::kMiB;
    auto opened = chunkstore::layers::BlockDiskCache::Open(options, metrics, base::SystemFiles(),
                                                           base::SystemClock());
    CHECK(opened.has_value());
    cache = *std::move(opened);
  }
  HostParts parts() { return {*cache, tables, background, *clock, metrics}; }

  const base::Clock* clock = &base::SystemClock();
  support::TempDir dir;
  base::Metrics metrics;
  std::unique_ptr<chunkstore::layers::BlockDiskCache> cache;
  Tables tables{Tables::kDefaultMemoryBytes, metrics};
  Background background;
};

}  // namespace controlplane::host
