#include "tests/conformance/volume_store_suite.h"

#include "tests/blockd/rbd/rbd_world.h"

// The contract of VolumeStore, on RBD.

namespace conformance {
namespace {

class RbdHarness : public VolumeStoreHarness {
 public:
  RbdHarness() { store_ = world_.NewStore(); }
  blockd::VolumeStore& store() override { return *store_; }
  chunkstore::ChunkStore& chunks() override { return world_.chunks(); }
  bool Tidy() override { return store_->Tidy(); }
  void Reopen() override {
    store_.reset();
    store_ = world_.NewStore();
  }
  size_t Leftovers() override { return world_.Leftovers(*store_); }

 private:
  blockd::rbd::testing::RbdWorld world_;
  std::unique_ptr<blockd::rbd::RbdVolumeStore> store_;
};

INSTANTIATE_TEST_SUITE_P(Rbd, VolumeStoreSuite,
                         testing::Values(VolumeStoreBackEnd{
                             "rbd", [] { return std::make_unique<RbdHarness>(); }}));

}  // namespace
}  // namespace conformance
