#include "chunkstore/ceph/ceph_blob_store.h"
#include "tests/chunkstore/ceph/cluster_fixture.h"
#include "tests/chunkstore/ceph/meta_harness.h"
#include "tests/conformance/blob_store_suite.h"

// Both contracts over a real cluster.

namespace conformance {
namespace {

using chunkstore::ceph::CephMetaOptions;
using chunkstore::ceph::ConnectForTest;
using chunkstore::ceph::OmapHarness;

// A Put is durable when it returns, and what a crash may lose is a connection.
class CephBlobHarness : public BlobStoreHarness {
 public:
  CephBlobHarness() { Crash(0); }
  chunkstore::BlobStore& store() override { return *store_; }
  bool injects() const override { return false; }
  void FailCall(uint64_t, base::Error) override {}
  void ClearFailures() override {}
  void Crash(uint64_t) override {
    store_ = chunkstore::ceph::OpenCephBlobStore(ConnectForTest(space_));
  }
  void SetCapacity(uint64_t) override {}
  uint64_t UsedBytes() override { return 0; }

 private:
  const std::string space_ = base::NewUuidHex();
  std::unique_ptr<chunkstore::BlobStore> store_;
};

MetaStoreBackEnd Meta(const char* name, const CephMetaOptions& options) {
  return {name, [options] {
            return std::make_unique<OmapHarness>(
                chunkstore::ceph::OpenRadosObjects(ConnectForTest()), options);
          }};
}

INSTANTIATE_TEST_SUITE_P(Ceph, BlobStoreSuite,
                         testing::Values(BlobStoreBackEnd{
                             "ceph", [] { return std::make_unique<CephBlobHarness>(); }}));
INSTANTIATE_TEST_SUITE_P(Ceph, MetaStoreSuite,
                         testing::Values(Meta("usual", {}),
                                         Meta("tiny", chunkstore::ceph::TinyOptions())));

}  // namespace
}  // namespace conformance
