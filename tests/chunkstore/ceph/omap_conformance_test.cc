#include "tests/chunkstore/ceph/meta_harness.h"

// The whole contract over objects in memory: with sizes of a service, and so small that everything
// is always on its way from heads to shards.

namespace conformance {
namespace {

using chunkstore::ceph::CephMetaOptions;
using chunkstore::ceph::MemoryObjects;
using chunkstore::ceph::OmapHarness;

MetaStoreBackEnd BackEnd(const char* name, const CephMetaOptions& options) {
  return {name, [options] {
            return std::make_unique<OmapHarness>(std::make_unique<MemoryObjects>(), options);
          }};
}

INSTANTIATE_TEST_SUITE_P(Omap, MetaStoreSuite,
                         testing::Values(BackEnd("usual", {}),
                                         BackEnd("tiny", chunkstore::ceph::TinyOptions())));

}  // namespace
}  // namespace conformance
