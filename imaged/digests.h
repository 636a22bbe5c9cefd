#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/async/pool.h"
#include "base/async/signal.h"
#include "base/hash.h"
#include "base/result.h"
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

  void Push(std::shared_ptr<const ChunkBuffer> chunk);
  const std::string& algorithm() const { return algorithm_; }

  // Waits for what was pushed; hex. Once, last.
  base::async::Task<std::string> Finish();

 private:
  DigestChain(std::string algorithm, std::unique_ptr<base::Digester> digester,
              base::async::Pool& pool);
  void Schedule() REQUIRES(mutex_);
  void Drain();
  bool Idle();

  const std::string algorithm_;
  base::async::Pool& pool_;
  const std::unique_ptr<base::Digester> digester_;  // of the one who drains
  base::async::Signal idle_;
  base::Mutex mutex_;
  std::deque<std::shared_ptr<const ChunkBuffer>> queue_ GUARDED_BY(mutex_);
  bool draining_ GUARDED_BY(mutex_) = false;
};

// Reads a whole content back and computes digests of it. Blocking. kCancelled when `cancelled` says
// so; asked every few MiB.
base::Result<Digests> ComputeDigests(chunkstore::Content& content,
                                     const std::vector<std::string>& algorithms,
                                     const std::function<bool()>& cancelled);

}  // namespace imaged
