#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/metrics.h"
#include "base/result.h"
#include "chunkstore/blob_format.h"
#include "chunkstore/blob_store.h"
#include "chunkstore/meta_store.h"

// Content-addressed storage of byte strings ("contents": the bytes of an image, a snapshot, a
// volume): cut into chunks of 4 MiB, each stored once, compressed and verified. Not a seam: the one
// implementation of deduplication, compression, integrity and references over a BlobStore and a
// MetaStore.
//
// Terms. A *root* names a whole content: the id of the top page of its map. A *holder* is a name
// under which somebody keeps a root ("image/<uuid>/<upload>"): what no holder reaches is garbage,
// and the collector takes it.

namespace chunkstore {

// Names a content. The empty content has a root as well. Value type.
struct Root {
  base::Digest256 id;
  uint64_t size_bytes = 0;
  bool operator==(const Root&) const = default;
};

struct ChunkStoreOptions {
  int compression_level = 1;
  bool share_blocks = true;                 // a new chunk keeps only the blocks that no other has
  uint64_t cache_bytes = 128 * base::kMiB;  // decoded blocks in memory: a hard limit
  uint64_t reserve_bytes =
      64 * base::kMiB;        // kept free for deletions: ingest ends with kOutOfSpace before
  int64_t lease_ms = 60'000;  // an ingest that does not renew for so long was abandoned
  uint64_t background_bytes_per_s =
      200 * base::kMiB;  // what collector and scrub may read and write
};

// Limits of a content.
constexpr uint64_t kMaxContentBytes = 16 * base::kTiB;
constexpr size_t kMaxHolderBytes = 200;
constexpr size_t kMaxAttributesBytes = 64 * base::kKiB;

// A content on its way in. Made by ChunkStore::NewIngest; if it is destroyed before Finish, nothing
// of it is visible and the collector takes what it left.
class Ingest {
 public:
  virtual ~Ingest() = default;

  // Stores chunk number `index`: kChunkBytes of it, fewer only for the last. A chunk of zeros costs
  // nothing; a chunk that is not put is zeros. Blocking: hashes, and writes what is not known; the
  // bytes are durable when it returns. Thread-safe, any order, each index once (again after an
  // error). kOutOfSpace, kIo, kCancelled (the lease was lost to another process: see Renew).
  struct PutInfo {
    bool known = false;  // deduplicated, or zeros: nothing was written
    bool hole = false;
  };
  virtual base::Result<PutInfo> Put(uint64_t index, base::ByteView plain) = 0;

  // The same for a caller that has hashed the bytes already (base/sha256_stream.h).
  // REQUIRES: `id` is their SHA-256, and this process computed it from these very bytes.
  virtual base::Result<PutInfo> PutHashed(uint64_t index, base::ByteView plain,
                                          const base::Digest256& id) = 0;

  // Makes chunk number `index` what is stored under this id already, unseen; false if nothing is
  // (any more), or it is quarantined: then the caller puts the bytes. For moving a content between
  // stores: who reads a chunk needs a right to it, and this asks for none.
  // REQUIRES: it is the id of a chunk of `length` bytes. As Put for threads and errors.
  virtual base::Result<bool> PutKnown(uint64_t index, uint32_t length,
                                      const base::Digest256& id) = 0;

  // Makes chunk number `index` a hole, as putting zeros of its length does: for what the base of
  // NewIngestOver has there. Beyond the size that Finish is given it means nothing. As Put for
  // threads and errors.
  virtual base::Result<void> PutHole(uint64_t index) = 0;

  // Keeps the ingest from being taken for abandoned by another process (this one knows that it
  // lives). Put does so by itself; a caller whose client sends nothing for long calls it now and
  // then. Cheap. kCancelled.
  virtual base::Result<void> Renew() = 0;

  // Builds the map over what was put and makes the holder keep it; durable when it returns. Once,
  // after every Put has returned. kInvalidArgument if a chunk that was put does not end where the
  // size says. After another error the holder normally holds nothing; only if the disk failed in
  // the very last step it may: Release it then.
  virtual base::Result<Root> Finish(uint64_t size_bytes) = 0;

  // Gives back what it stored so far; the same as destroying, but says how it went. What an error
  // leaves the collector takes.
  virtual base::Result<void> Abort() = 0;
};

// Part of a content as it is handed to a socket or a caller.
struct ContentPiece {
  uint64_t length = 0;
  // One of: a hole (zeros), decoded bytes, or a verified run of a file.
  bool hole = false;
  base::ByteView bytes;
  int descriptor = -1;
  uint64_t file_offset = 0;
  std::shared_ptr<const void> owner;  // keeps bytes or file alive
};

// A block of a chunk as it is stored: bytes of its own, or of another chunk's.
struct StoredBlock {
  uint32_t plain_offset = 0;  // in the chunk
  uint32_t plain_length = 0;  // 1 .. kMaxBlockBytes
  uint32_t stored_length = 0;
  bool compressed = false;    // one zstd frame; else the plain bytes
  base::Hash128 hash;         // XXH3-128 of the plain bytes
  base::Digest256 owner;      // the chunk in whose blob it lies ...
  uint32_t owner_offset = 0;  // ... and where it is in that chunk's plain bytes
};

// Blocks with their stored bytes: those of one after the other, in pieces that may be cut anywhere.
struct BlockBytes {
  std::vector<StoredBlock> blocks;
  std::vector<ContentPiece> pieces;
};

// A content to read. Thread-safe; holds nothing in place: whoever reads keeps a holder meanwhile.
class Content {
 public:
  virtual ~Content() = default;
  virtual const Root& root() const = 0;

  // Fills `into` from `offset`; every byte was verified on the way. kInvalidArgument beyond the
  // end; kCorruption (the chunk's id in the message), kIo.
  virtual base::Result<void> ReadAt(uint64_t offset, base::MutableByteView into) = 0;

  // The same if the cache has all that is needed (holes need nothing): no disk, no decoding, no
  // waiting. False, with `into` as it may be, where it has not. For a thread that must not wait.
  virtual base::Result<bool> TryReadAt(uint64_t offset, base::MutableByteView into) = 0;

  // The piece that begins at `offset`: up to `limit` bytes, never across the end of a chunk. A
  // chunk that lies raw in a file is verified and given as a run of that file. For downloads in
  // order.
  virtual base::Result<ContentPiece> PieceAt(uint64_t offset, uint64_t limit) = 0;

  // The blocks that begin in [offset, offset + length), which lies within one chunk, as whole zstd
  // frames (RFC 8878): one after the other, the pieces of all parts of a chunk are a stream of its
  // bytes. What is stored compressed comes as it lies, verified and not opened; raw bytes and holes
  // get the little that makes frames of them. `length` of a piece counts bytes of the stream; none
  // where no block begins. For downloads in order, by clients that take zstd.
  virtual base::Result<std::vector<ContentPiece>> FramesAt(uint64_t offset, uint64_t length) = 0;

  // The blocks of chunk number `index`, in order, without gaps; none: a hole. Reads the table of
  // its blob. kInvalidArgument beyond the end; else as ReadAt.
  virtual base::Result<std::vector<StoredBlock>> BlocksOf(uint64_t index) = 0;

  // Some of these blocks, by their places in that order, ascending, each verified as it is stored
  // and not opened. What lies raw in a file is a run of it. kInvalidArgument for a number that it
  // has not.
  virtual base::Result<BlockBytes> ReadBlocks(uint64_t index, std::span<const size_t> numbers) = 0;

  // Chunk numbers and ids in [from, to), holes left out; `visit` returns false to stop.
  using ChunkVisitor = std::function<bool(uint64_t index, const base::Digest256& id)>;
  virtual base::Result<void> VisitChunks(uint64_t from, uint64_t to, const ChunkVisitor& visit) = 0;
};

// Progress of a long pass; called now and then from the thread that runs it. Returns false to
// cancel.
struct Progress {
  std::string_view phase;
  uint64_t done = 0;
  uint64_t total = 0;  // 0: not known
};
using ProgressFn = std::function<bool(const Progress&)>;

struct CollectReport {
  uint64_t abandoned_ingests = 0;
  uint64_t removed_chunks = 0;
  uint64_t removed_pages = 0;
  uint64_t removed_orphans = 0;   // blobs that no record knew
  uint64_t compacted_chunks = 0;  // gone but for the blocks that others share
  uint64_t freed_bytes = 0;
};

struct ScrubReport {
  struct Finding {
    std::string id;                    // of the chunk or page, hex; empty: of the index itself
    std::string blob;                  // its name
    std::string problem;               // a sentence
    std::vector<std::string> holders;  // whose content is touched
    bool repaired = false;
    bool set_aside = false;  // quarantined: the next ingest of the same bytes heals it
  };
  uint64_t checked_blobs = 0;
  uint64_t checked_bytes = 0;
  std::vector<Finding> findings;  // the first kMaxFindings
  uint64_t finding_count = 0;
  uint64_t leaked_references = 0;  // given back with repair
  uint64_t orphan_blobs = 0;
};
constexpr size_t kMaxFindings = 1000;

struct RebuildReport {
  uint64_t blobs = 0;
  uint64_t chunks = 0;
  uint64_t pages = 0;
  uint64_t bad_blobs = 0;
  std::vector<std::string> holders;  // that were found again (from manifests)
};

struct StoreStats {
  uint64_t logical_bytes = 0;     // sum of the sizes of what holders hold
  uint64_t nonzero_bytes = 0;     // the same without holes
  uint64_t unique_bytes = 0;      // plain bytes of chunks, each counted once
  uint64_t borrowed_bytes = 0;    // of those, in blocks that others of these chunks have already
  uint64_t compressed_bytes = 0;  // of their blobs
  uint64_t lender_bytes = 0;      // of blobs kept for the blocks that other chunks borrow, alone
  uint64_t physical_bytes = 0;    // what they take on disk, pages and manifests included
  uint64_t chunks = 0;
  uint64_t holders = 0;
  uint64_t garbage_bytes = 0;  // waiting for the collector
};

struct HolderStats {
  uint64_t logical_bytes = 0;
  uint64_t nonzero_bytes = 0;
  uint64_t unique_bytes = 0;           // plain bytes of chunks that would go if this holder went
  uint64_t unique_borrowed_bytes = 0;  // of those, in blocks of other chunks
  uint64_t unique_compressed_bytes = 0;
  uint64_t shared_bytes = 0;             // nonzero - unique
  std::vector<std::string> shared_with;  // holders, at most kMaxSharedWith
};
constexpr size_t kMaxSharedWith = 100;

// How far WhichReachable looks: references of one chunk or page, and steps (a reference looked at
// is one) of a call. Past a limit a chunk counts as not reachable.
constexpr uint64_t kReachTagsOfId = 1024;
constexpr uint64_t kReachStepsOfId = 16;
constexpr uint64_t kReachSteps = 65'536;

// Thread-safe. One a process; several processes may share the stores below.
class ChunkStore {
 public:
  // `blobs`, `meta`, `clock` and `metrics` are borrowed and outlive the store. Does not walk
  // anything.
  static base::Result<std::unique_ptr<ChunkStore>> Open(const ChunkStoreOptions& options,
                                                        BlobStore& blobs, MetaStore& meta,
                                                        const base::Clock& clock,
                                                        base::Metrics& metrics);
  virtual ~ChunkStore() = default;

  // Begins a content that `holder` will hold. kAlreadyExists if that holder holds or ingests
  // already; kInvalidArgument for a name with other than [A-Za-z0-9._/-]. `attributes` go into the
  // manifest: whatever the owner needs to make its record again from the blobs alone (rebuild), at
  // most 64 KiB.
  virtual base::Result<std::unique_ptr<Ingest>> NewIngest(std::string_view holder,
                                                          std::string_view attributes) = 0;

  // Begins a content that is what `base_holder` holds now, but for the chunks that are put (or made
  // holes: PutHole). Takes over what did not change by reference: Finish costs what the changed
  // chunks cost, and nothing for the size; yet the root is the one that an ordinary ingest of the
  // same bytes gives. The base may be released, or its name taken by another content, as soon as
  // this returned: what it held then stays until the ingest ends.
  //
  // Finish may be given another size than the base's. What lies beyond a smaller one goes; what a
  // larger one adds is zeros until put. Where the last chunk of the base changes its length by that
  // (it was short, or is cut), the caller puts it again in its new length, or Finish says
  // kInvalidArgument. kNotFound if `base_holder` holds nothing (any more); kCorruption; else as
  // NewIngest.
  virtual base::Result<std::unique_ptr<Ingest>> NewIngestOver(std::string_view holder,
                                                              std::string_view attributes,
                                                              std::string_view base_holder) = 0;

  // Makes `holder` keep a root that `source` holds now: the metadata move. O(1), durable. kNotFound
  // if `source` holds nothing (any more); kAlreadyExists.
  virtual base::Result<Root> HoldAgain(std::string_view source, std::string_view holder,
                                       std::string_view attributes) = 0;

  // The chunks that an ingest which has not ended has stored so far, each once, by id: for who
  // keeps them under another name (PutKnown) once the ingest was abandoned, before the collector
  // gives them back. Beside a living ingest it shows some state of these moments. Quarantined
  // chunks are left out. `visit` may use the store, and returns false to stop. kNotFound unless
  // `holder` ingests.
  using StoredVisitor =
      std::function<base::Result<bool>(const base::Digest256& id, uint32_t length)>;
  virtual base::Result<void> VisitIngest(std::string_view holder, const StoredVisitor& visit) = 0;

  // Lets go; what only it held becomes garbage. Durable; fine if it holds nothing. Works on a full
  // disk.
  virtual base::Result<void> Release(std::string_view holder) = 0;

  struct Held {
    std::string holder;
    std::optional<Root> root;  // nothing: still ingesting
    int64_t since_us = 0;
    std::string attributes;
  };
  // kNotFound.
  virtual base::Result<Held> FindHolder(std::string_view holder) = 0;
  // Holders whose name begins with `prefix`, in order, after `after`.
  virtual base::Result<std::vector<Held>> Holders(std::string_view prefix, std::string_view after,
                                                  size_t limit) = 0;

  // kNotFound, kCorruption.
  virtual base::Result<std::shared_ptr<Content>> Open(const Root& root) = 0;

  // For each id, whether a chunk of this id lies in a content whose holder `may_read` agrees to.
  // False for what is not stored, for what is quarantined, and past kReach...: a true answer is
  // always right. `may_read` is asked once a holder. Reads the names of all holders once. What a
  // true answer tells may be over at once: ReadChunk says so.
  using HolderCheck = std::function<base::Result<bool>(std::string_view holder)>;
  virtual base::Result<std::vector<bool>> WhichReachable(std::span<const base::Digest256> ids,
                                                         const HolderCheck& may_read) = 0;

  // Fills `into` with a whole chunk, verified. An id is no capability: ask WhichReachable before.
  // kNotFound if no chunk of this id and length is stored (any more); kCorruption, kIo.
  virtual base::Result<void> ReadChunk(const base::Digest256& id, base::MutableByteView into) = 0;

  // The same of a part: from `offset` on. kNotFound also if the chunk ends before.
  virtual base::Result<void> ReadChunkPart(const base::Digest256& id, uint32_t offset,
                                           base::MutableByteView into) = 0;

  // What differs between two contents, chunk by chunk from number `from` on, ascending; walks only
  // where their maps differ. What lies before `from` (where a visitor stopped the last time) is
  // passed over unread. An id is missing where that side has a hole.
  using DiffVisitor = std::function<bool(uint64_t index, const std::optional<base::Digest256>& a,
                                         const std::optional<base::Digest256>& b)>;
  virtual base::Result<void> Diff(const Root& a, const Root& b, uint64_t from,
                                  const DiffVisitor& visit) = 0;

  // The same, from the first chunk on, where `b` is a content of another store: equal bytes have
  // equal maps everywhere.
  virtual base::Result<void> DiffAcross(const Root& a, ChunkStore& store_of_b, const Root& b,
                                        const DiffVisitor& visit) = 0;

  // Takes garbage: abandoned ingests, what nothing refers to any more, and, with `list_orphans`,
  // blobs that no record knows (a walk over all names). Online, throttled, safe beside everything
  // else and beside itself.
  virtual base::Result<CollectReport> Collect(bool list_orphans, const ProgressFn& progress) = 0;

  // Reads and verifies everything; checks that every reference has a reason. With `repair`, gives
  // back leaked references, and heals or quarantines what is corrupt. An index that can't be read
  // is a finding too (without an id); the blobs are verified one by one then. Online, throttled.
  virtual base::Result<ScrubReport> Scrub(bool repair, const ProgressFn& progress) = 0;

  // Makes the index, the references and the holders again from the blobs alone. REQUIRES: nothing
  // else uses the stores; the index is empty or lost (what it holds of chunks, pages and holders is
  // dropped first).
  virtual base::Result<RebuildReport> Rebuild(const ProgressFn& progress) = 0;

  // Exact, from the records (`borrowed_bytes`: where nothing waits for the collector). Walks the
  // index, and reads the tables of chunks that lend alone.
  virtual base::Result<StoreStats> Stats() = 0;
  virtual base::Result<HolderStats> StatsOf(std::string_view holder) = 0;
};

}  // namespace chunkstore
