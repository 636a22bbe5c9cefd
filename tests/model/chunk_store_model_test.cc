#include "tests/model/chunk_store_model.h"

namespace chunkstore::testing {
namespace {

class ChunkStoreModelTest : public ::testing::TestWithParam<uint64_t> {};

TEST_P(ChunkStoreModelTest, AgreesWithThePlainOne) {
  RunChunkStoreModel(std::make_unique<MemoryModelStores>(), GetParam(), 400);
}

INSTANTIATE_TEST_SUITE_P(Seeds, ChunkStoreModelTest, ::testing::Range<uint64_t>(1, 21));

}  // namespace
}  // namespace chunkstore::testing
