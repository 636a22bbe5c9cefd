#pragma once

#include <functional>
#include <memory>
#include <string>

#include <gtest/gtest.h>

#include "blockd/volume_store.h"
#include "chunkstore/chunk_store.h"
#include "tests/support/results.h"

// The contract of VolumeStore, executable: each back end brings a harness and instantiates
// VolumeStoreSuite (volumes of a few MiB).

namespace conformance {

class VolumeStoreHarness {
 public:
  virtual ~VolumeStoreHarness() = default;
  virtual blockd::VolumeStore& store() = 0;
  virtual chunkstore::ChunkStore& chunks() = 0;
  // One round of what happens in the background; true if it did something.
  virtual bool Tidy() = 0;
  // An orderly stop and start.
  virtual void Reopen() = 0;
  // What the store made and has not taken away, besides what it keeps ready: files, images,
  // holders. None when there are no volumes and snapshots and nothing is left to tidy.
  virtual size_t Leftovers() = 0;
};

struct VolumeStoreBackEnd {
  std::string name;
  std::function<std::unique_ptr<VolumeStoreHarness>()> make;
};

class VolumeStoreSuite : public testing::TestWithParam<VolumeStoreBackEnd> {
 protected:
  static constexpr uint64_t kVolumeBytes = 5 * base::kMiB;  // a chunk and a part

  VolumeStoreSuite() : harness_(GetParam().make()) {}
  blockd::VolumeStore& store() { return harness_->store(); }
  chunkstore::ChunkStore& chunks() { return harness_->chunks(); }

  base::Result<void> Make(const std::string& id, blockd::VolumeSource source = {},
                          uint64_t size_bytes = kVolumeBytes);
  void Write(const std::string& id, uint64_t offset, const std::string& bytes);
  void Zero(const std::string& id, uint64_t offset, uint64_t length);
  std::string Content(const std::string& id);
  std::string SnapshotContent(const std::string& id);  // by way of a volume that is made of it
  std::string SealedContent(const std::string& id);    // of a sealed snapshot
  void Settle();  // until nothing is left to do in the background
  void ExpectNothingLeft();
  // What is told of changes is right: every sector that differs is changed. How many are.
  size_t ExpectChangesTold(const std::string& volume, const std::string& snapshot,
                           const std::string& then);

  std::unique_ptr<VolumeStoreHarness> harness_;
};

}  // namespace conformance
