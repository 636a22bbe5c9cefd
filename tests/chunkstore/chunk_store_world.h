#pragma once

#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/clock.h"
#include "base/metrics.h"
#include "chunkstore/chunk_store.h"
#include "chunkstore/memory/memory_blob_store.h"
#include "chunkstore/memory/memory_meta_store.h"
#include "tests/support/results.h"

// A ChunkStore over stores in memory, and contents to put into it.

namespace chunkstore::testing {

// Seeds from kWoven on make bytes in parts that other such seeds have too: each of the last six
// digits, beginning with the highest, is a part of kWovenPartBytes, and then once more with other
// parts. So 1'012'345 and 1'012'349 differ in one part of six.
constexpr uint32_t kWoven = 1'000'000;
constexpr size_t kWovenPartBytes = 64 * base::kKiB;
constexpr size_t kWovenDigits = 6;

// Bytes that a seed decides: 0 is zeros, odd seeds compress, even ones do not.
inline std::string MakeBytes(uint32_t seed, size_t size) {
  std::string bytes(size, '\0');
  if (seed == 0) return bytes;
  if (seed >= kWoven) {
    const std::string digits = std::to_string(seed);
    for (size_t part = 0; part * kWovenPartBytes < size; ++part) {
      const auto digit = static_cast<uint32_t>(digits[1 + part % kWovenDigits] - '0');
      const uint32_t of_part = 1000 + static_cast<uint32_t>(part / kWovenDigits) * 10 + digit;
      const std::string some =
          MakeBytes(of_part, std::min(kWovenPartBytes, size - part * kWovenPartBytes));
      bytes.replace(part * kWovenPartBytes, some.size(), some);
    }
    return bytes;
  }
  std::mt19937_64 random(seed);
  for (size_t i = 0; i < size; i += 8) {
    const uint64_t word = seed % 2 ? random() & 0x0000000F0000000FULL : random();
    std::memcpy(bytes.data() + i, &word, std::min<size_t>(8, size - i));
  }
  return bytes;
}

// A content as a list of chunk seeds (0: a hole); the last chunk may be shorter.
struct Spec {
  std::vector<uint32_t> seeds;
  uint32_t last_bytes = kChunkBytes;

  uint64_t size_bytes() const {
    return seeds.empty() ? 0 : (seeds.size() - 1) * uint64_t{kChunkBytes} + last_bytes;
  }
  std::string ChunkAt(size_t index) const {
    return MakeBytes(seeds[index], index + 1 == seeds.size() ? last_bytes : kChunkBytes);
  }
  std::string Bytes() const {
    std::string bytes;
    for (size_t i = 0; i < seeds.size(); ++i) bytes += ChunkAt(i);
    return bytes;
  }
};

// Contents for the tests that kill: small ones, some with whole chunks that they share, and some
// that share blocks.
inline Spec CrashSpec(uint32_t which) {
  if (which % 4 == 1)
    return Spec{{kWoven + 123'000 + which * 7919 % 1000}, kWovenDigits * kWovenPartBytes};
  if (which % 3 == 0) return Spec{{1, 2, which}, 50'000};
  return Spec{{which}, 1000 * which};
}

// The first error, or the root.
inline base::Result<Root> PutAll(Ingest& ingest, const Spec& spec) {
  for (size_t i = 0; i < spec.seeds.size(); ++i) {
    RETURN_IF_ERROR(ingest.Put(i, base::AsBytes(spec.ChunkAt(i))));
  }
  return ingest.Finish(spec.size_bytes());
}

// The same for an ingest that began with another content: puts only what differs.
inline base::Result<Root> PutChanges(Ingest& ingest, const Spec& spec, const Spec& base) {
  for (size_t i = 0; i < spec.seeds.size(); ++i) {
    const std::string chunk = spec.ChunkAt(i);
    if (i < base.seeds.size() && base.ChunkAt(i) == chunk) continue;
    RETURN_IF_ERROR(ingest.Put(i, base::AsBytes(chunk)));
  }
  return ingest.Finish(spec.size_bytes());
}

inline base::Result<Root> Upload(ChunkStore& store, const std::string& holder, const Spec& spec) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Ingest> ingest, store.NewIngest(holder, "of " + holder));
  return PutAll(*ingest, spec);
}

inline base::Result<std::string> ReadBack(ChunkStore& store, const Root& root) {
  ASSIGN_OR_RETURN(const std::shared_ptr<Content> content, store.Open(root));
  std::string bytes(root.size_bytes, '?');
  RETURN_IF_ERROR(content->ReadAt(0, {reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()}));
  return bytes;
}

inline std::vector<std::string> BlobNames(BlobStore& blobs) {
  std::vector<std::string> names;
  const base::Result<void> listed = blobs.List([&](std::string_view name, uint64_t) {
    names.emplace_back(name);
    return true;
  });
  EXPECT_OK(listed);
  return names;
}

inline std::vector<std::string> AllKeys(MetaStore& meta) {
  std::vector<std::string> keys;
  const auto partitions = meta.Partitions("");
  EXPECT_OK(partitions);
  for (const std::string& partition : *partitions) {
    if (partition.starts_with("b/")) continue;  // proposals: they may outlive what they name
    const base::Result<void> scanned =
        meta.Scan(partition, "", "", SIZE_MAX, [&](std::string_view key, std::string_view) {
          keys.push_back(partition + " " + std::string(key.substr(0, 1)));
          return true;
        });
    EXPECT_OK(scanned);
  }
  return keys;
}

inline void ExpectEmpty(BlobStore& blobs, MetaStore& meta) {
  EXPECT_EQ(BlobNames(blobs), std::vector<std::string>());
  EXPECT_EQ(AllKeys(meta), std::vector<std::string>());
}

// Scrub finds nothing to say.
inline void ExpectClean(ChunkStore& store) {
  ASSERT_OK_AND_ASSIGN(const ScrubReport report, store.Scrub(false, nullptr));
  for (const ScrubReport::Finding& finding : report.findings)
    ADD_FAILURE() << finding.id << ": " << finding.problem;
  EXPECT_EQ(report.leaked_references, 0u);
  EXPECT_EQ(report.orphan_blobs, 0u);
}

class World {
 public:
  World() {
    options_.background_bytes_per_s = 0;
    options_.reserve_bytes = 1 << 20;
    Reopen();
  }
  void Reopen() {
    store_.reset();
    auto opened = ChunkStore::Open(options_, blobs_, meta_, clock_, metrics_);
    ASSERT_OK(opened);
    store_ = *std::move(opened);
  }
  // Past every lease.
  void Wait() { clock_.AdvanceUs(options_.lease_ms * 1000 + 1); }

  ChunkStore& store() { return *store_; }
  MemoryBlobStore& blobs() { return blobs_; }
  MemoryMetaStore& meta() { return meta_; }
  base::ManualClock& clock() { return clock_; }
  base::Metrics& metrics() { return metrics_; }
  ChunkStoreOptions& options() { return options_; }

 private:
  base::Metrics metrics_;
  base::ManualClock clock_;
  MemoryBlobStore blobs_;
  MemoryMetaStore meta_;
  ChunkStoreOptions options_;
  std::unique_ptr<ChunkStore> store_;
};

}  // namespace chunkstore::testing
