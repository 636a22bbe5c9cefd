#include <cstdlib>
#include <string>

#include <fmt/format.h>
#include <unistd.h>

#include "base/check.h"
#include "base/coding.h"
#include "chunkstore/local/local_blob_store.h"
#include "chunkstore/local/local_meta_store.h"
#include "tests/chunkstore/local/store_kill_steps.h"

// store_kill_child DIR RUN: step after step, and the number of each on stdout once it is durable,
// until it is killed.

int main(int argc, char** argv) {
  CHECK(argc == 3);
  std::string dir = argv[1];
  uint64_t run = std::strtoull(argv[2], nullptr, 10);
  auto blobs = chunkstore::local::LocalBlobStore::Open(base::SystemFiles(), dir).value();
  auto meta =
      chunkstore::local::OpenLocalMetaStore(dir + "/meta", {.memory_bytes = base::kMiB}).value();
  std::string partition = chunkstore::local::PartitionOf(run);
  for (uint64_t step = 0;; ++step) {
    std::string content = chunkstore::local::ContentOf(run, step);
    base::ByteView piece = base::AsBytes(content);
    std::string name = chunkstore::local::NameOf(run, step);
    CHECK(blobs->Put(name, {&piece, 1}).has_value());
    chunkstore::MetaBatch batch;
    batch.ExpectAbsent(std::to_string(step)).Put(std::to_string(step), name);
    uint64_t gone = step - 2;
    bool drops = step >= 2 && chunkstore::local::IsDropped(gone);
    if (drops) batch.Delete(std::to_string(gone));
    CHECK(chunkstore::CommitDurably(*meta, partition, batch).has_value());
    if (drops) CHECK(blobs->Remove(chunkstore::local::NameOf(run, gone)).has_value());
    CHECK(write(STDOUT_FILENO, &step, sizeof(step)) == sizeof(step));
  }
}
