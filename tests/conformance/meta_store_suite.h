#pragma once

#include <functional>
#include <memory>
#include <string>

#include <gtest/gtest.h>

#include "chunkstore/meta_store.h"

// The contract of MetaStore, executable; see blob_store_suite.h.

namespace conformance {

class MetaStoreHarness {
 public:
  virtual ~MetaStoreHarness() = default;
  virtual chunkstore::MetaStore& store() = 0;
  // The n-th operation from now (1 is the next) fails once, before or after its effect.
  virtual void FailCall(uint64_t n, base::Error error, bool after_effect) = 0;
  virtual void ClearFailures() = 0;
  // Loses what a crash of the machine may lose, as the seed has it, and opens the store again.
  virtual void Crash(uint64_t seed) = 0;
};

struct MetaStoreBackEnd {
  std::string name;
  std::function<std::unique_ptr<MetaStoreHarness>()> make;
};

class MetaStoreSuite : public testing::TestWithParam<MetaStoreBackEnd> {
 protected:
  MetaStoreSuite() : harness_(GetParam().make()) {}
  chunkstore::MetaStore& store() { return harness_->store(); }

  std::unique_ptr<MetaStoreHarness> harness_;
};

}  // namespace conformance
