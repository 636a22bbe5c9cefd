#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/async/pool.h"
#include "base/async/signal.h"
#include "base/hash.h"
#include "base/result.h"
#include "base/sha256_stream.h"
#include "base/thread_annotations.h"
#include "chunkstore/chunk_store.h"
#include "chunkstore/meta_store.h"
#include "imaged/buffers.h"

// The digests of whole images that the Image API shows: `os_hash_value`, and `checksum` (MD5).
//
// Each is a serial pass over all bytes, and slow beside everything else that an upload does, so
// each runs beside the upload on a thread of its own; and what was computed once is kept by root,
// because the same root is the same bytes.

namespace imaged {

// Algorithm (as base::Digester names it) to hex.
using Digests = std::map<std::string, std::string, std::less<>>;

constexpr std::string_view kChecksumAlgorithm = "md5";

// Where the jobs of images are kept (chunkstore/jobs), and the kind of those that make a checksum;
// their payload is the image's id.
constexpr std::string_view kJobsPartition = "imaged-jobs";
constexpr std::string_view kChecksumJob = "checksum";

// Digests by root, in the partition "digests". Thread-safe.
class DigestStore {
 public:
  explicit DigestStore(chunkstore::MetaStore& meta) : meta_(meta) {}  // borrowed

  // What is known of it; may be empty.
  base::Result<Digests> Get(const chunkstore::Root& root);
  // Adds to what is known. Not synced: what is lost is computed again.
  base::Result<void> Add(const chunkstore::Root& root, const Digests& digests);

 private:
  chunkstore::MetaStore& meta_;
};

// One digest over chunks in order, computed by jobs of a pool: at most one job at a time, so one
// thread. Push and Finish are one thread's; Thread-safe against its own jobs.
class DigestChain : public std::enable_shared_from_this<DigestChain> {
 public:
  // `pool` is borrowed and outlives the chain. kInvalidArgument for an unknown algorithm.
  static base::Result<std::shared_ptr<DigestChain>> Create(std::string algorithm,
                                                           base::async::Pool& pool);

  // `then`, if given, runs on the pool once the chunk was taken in, with the chunk's own SHA-256
  // where that came with it (see HashesChunks).
  using Then = std::function<void(std::shared_ptr<const ChunkBuffer>,
                                  const std::optional<base::Digest256>& id)>;
  void Push(std::shared_ptr<const ChunkBuffer> chunk, Then then = nullptr);

  // True if this digest yields the SHA-256 of each chunk for little more: what names chunks and
  // what the API shows are then computed in one pass (base/sha256_stream.h).
  bool HashesChunks() const { return stream_ != nullptr; }
  const std::string& algorithm() const { return algorithm_; }

  // Waits for what was pushed; hex. Once, last.
  base::async::Task<std::string> Finish();

 private:
  struct Item {
    std::shared_ptr<const ChunkBuffer> chunk;
    Then then;
  };

  DigestChain(std::string algorithm, std::unique_ptr<base::Digester> digester,
              base::async::Pool& pool);
  void Take(Item item);
  void Schedule() REQUIRES(mutex_);
  void Drain();
  bool Idle();

  const std::string algorithm_;
  base::async::Pool& pool_;
  // One of the two; used by the one who drains.
  const std::unique_ptr<base::Digester> digester_;
  std::unique_ptr<base::Sha256Stream> stream_;
  base::async::Signal idle_;
  base::Mutex mutex_;
  std::deque<Item> queue_ GUARDED_BY(mutex_);
  bool draining_ GUARDED_BY(mutex_) = false;
};

// Reads a whole content back and computes digests of it. Blocking. kCancelled when `cancelled` says
// so; asked every few MiB.
base::Result<Digests> ComputeDigests(chunkstore::Content& content,
                                     const std::vector<std::string>& algorithms,
                                     const std::function<bool()>& cancelled);

}  // namespace imaged
