#pragma once

#include <memory>
#include <utility>

#include "chunkstore/ceph/ceph_meta_store.h"
#include "tests/chunkstore/ceph/test_objects.h"
#include "tests/conformance/meta_store_suite.h"

namespace chunkstore::ceph {

// So small that a handful of keys fills heads, splits shards and spans pages.
inline CephMetaOptions TinyOptions() {
  return {.head_keys = 3, .shard_keys = 5, .page_keys = 4, .lease_ms = 0};
}

// A metadata store over any objects, for the suite. A crash of its process, wherever that is in
// moving keys, is what it may lose.
class OmapHarness : public conformance::MetaStoreHarness {
 public:
  OmapHarness(std::unique_ptr<Objects> objects, const CephMetaOptions& options)
      : objects_(std::move(objects)), options_(options) {
    Crash(0);
  }
  MetaStore& store() override { return *store_; }
  void FailCall(uint64_t n, base::Error error, bool after_effect) override {
    using When = support::FaultPlan::When;
    plan_.FailAt(n, std::move(error), after_effect ? When::kAfter : When::kBefore);
  }
  void ClearFailures() override { plan_.Clear(); }
  void Crash(uint64_t) override {
    store_.reset();
    store_ = NewOmapMetaStore(std::make_unique<FaultyObjects>(*objects_, plan_), options_);
  }

 private:
  support::FaultPlan plan_;
  const std::unique_ptr<Objects> objects_;
  const CephMetaOptions options_;
  std::unique_ptr<MetaStore> store_;
};

}  // namespace chunkstore::ceph
