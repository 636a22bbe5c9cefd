#include "tests/conformance/volume_store_suite.h"

#include "tests/blockd/chunk/store_world.h"

// The contract of VolumeStore, on the chunk store.

namespace conformance {
namespace {

class ChunkHarness : public VolumeStoreHarness {
 public:
  ChunkHarness() { world_.Open(); }
  blockd::VolumeStore& store() override { return world_.store(); }
  chunkstore::ChunkStore& chunks() override { return world_.chunks(); }
  bool Tidy() override { return world_.store().Tidy(); }
  void Reopen() override { world_.Open(); }
  size_t Leftovers() override {
    return world_.files().List("/q/layers").value().size() - 2 * blockd::chunk::kSpareLayers +
           chunks().Holders("layer/", "", 1000).value().size();
  }

 private:
  blockd::chunk::testing::StoreWorld world_;
};

INSTANTIATE_TEST_SUITE_P(Chunk, VolumeStoreSuite,
                         testing::Values(VolumeStoreBackEnd{
                             "chunk", [] { return std::make_unique<ChunkHarness>(); }}));

}  // namespace
}  // namespace conformance
