#pragma once

#include <functional>
#include <memory>
#include <string>

#include <gtest/gtest.h>

#include "chunkstore/blob_store.h"

// The contract of BlobStore, executable. A back end is tested by saying how to make one, how to
// make it fail and how to crash it:
//
//   INSTANTIATE_TEST_SUITE_P(Mine, BlobStoreSuite, testing::Values(BlobStoreBackEnd{"mine",
//   MakeMine}));

namespace conformance {

class BlobStoreHarness {
 public:
  virtual ~BlobStoreHarness() = default;
  virtual chunkstore::BlobStore& store() = 0;
  // False: FailCall and SetCapacity can't be had here, and what needs them is skipped.
  virtual bool injects() const { return true; }
  // The n-th call from now (1 is the next) to what lies under the store fails once with this error,
  // somehow: before it, after it, or in its middle.
  virtual void FailCall(uint64_t n, base::Error error) = 0;
  virtual void ClearFailures() = 0;
  // Loses what a crash of the machine may lose, as the seed has it, and opens the store again.
  virtual void Crash(uint64_t seed) = 0;
  virtual void SetCapacity(uint64_t bytes) = 0;
  virtual uint64_t UsedBytes() = 0;
};

struct BlobStoreBackEnd {
  std::string name;
  std::function<std::unique_ptr<BlobStoreHarness>()> make;
};

class BlobStoreSuite : public testing::TestWithParam<BlobStoreBackEnd> {
 protected:
  BlobStoreSuite() : harness_(GetParam().make()) {}
  chunkstore::BlobStore& store() { return harness_->store(); }

  std::unique_ptr<BlobStoreHarness> harness_;
};

}  // namespace conformance
