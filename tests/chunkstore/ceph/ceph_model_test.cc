#include "chunkstore/ceph/ceph_blob_store.h"
#include "tests/chunkstore/ceph/cluster_fixture.h"
#include "tests/chunkstore/ceph/meta_harness.h"
#include "tests/model/chunk_store_model.h"

// The chunk store's model over a real cluster.

namespace chunkstore::ceph {
namespace {

class CephModelStores : public testing::ModelStores {
 public:
  BlobStore& blobs() override { return *blobs_; }
  MetaStore& meta() override { return *meta_; }
  void Crash(uint64_t) override {}  // what RADOS has acknowledged stays

 private:
  const std::shared_ptr<Cluster> cluster_ = ConnectForTest();
  const std::unique_ptr<BlobStore> blobs_ = OpenCephBlobStore(cluster_);
  const std::unique_ptr<MetaStore> meta_ =
      NewOmapMetaStore(OpenRadosObjects(cluster_), TinyOptions());
};

class CephModelTest : public ::testing::TestWithParam<uint64_t> {};

TEST_P(CephModelTest, AgreesWithThePlainOne) {
  testing::RunChunkStoreModel(std::make_unique<CephModelStores>(), GetParam(), 150);
}

INSTANTIATE_TEST_SUITE_P(Seeds, CephModelTest, ::testing::Range<uint64_t>(1, 5));

}  // namespace
}  // namespace chunkstore::ceph
