#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/hash.h"
#include "base/result.h"
#include "chunkstore/blob_format.h"

// Keys and values that ChunkStore keeps in the MetaStore: written down in FORMAT.md, "Records and
// keys".
//
// Partition "c/<2 hex>" (256 of them, by the first byte of the id) has everything about the ids
// that begin so:
//   r id                 -> Record: the blob that holds this id, and how many tags refer to it
//   t id tag             -> ""      one reference. tag: 'p' page incarnation | 'h' token |
//                                   's' borrower suffix (-> Lent: which blocks)
//   u token id           -> ""      one reference of an ingest in flight (counted like those above)
//   w token id           -> Intent  an ingest is about to write this blob
//   g id                 -> ""      garbage: the record's count is 0
//   l id                 -> ""      kept for what it lends alone, and perhaps larger than that
//   needs d id suffix          -> Doomed  a blob that no record names any more, about to be removed
// Partition "holders":
//   h name               -> HolderRecord
//   j token              -> Journal: an ingest or a release in flight
// Partitions "b/<2 hex>": block_index.h.
// Partition "i/<token>": the chunk numbers of an ingest in flight (scratch, no harm if lost):
//   index (big-endian)   -> id, or "" for a hole

namespace chunkstore {

inline constexpr std::string_view kHoldersPartition = "holders";
inline constexpr size_t kRecordPartitions = 256;

// Random, never 0, never used twice: names an ingest, and later what the holder holds.
using Token = uint64_t;
Token NewToken();

// A blob is named by its id and a random suffix; a name is never used twice.
struct BlobRef {
  base::Digest256 id;
  uint64_t suffix = 0;
  bool operator==(const BlobRef&) const = default;
};
std::string BlobName(const BlobRef& blob);
// kInvalidArgument if it is no name that BlobName makes.
base::Result<BlobRef> ParseBlobName(std::string_view name);

struct Record {
  BlobKind kind = BlobKind::kChunk;
  bool bad =
      false;  // quarantined: the blob is corrupt or missing; the next Put of these bytes heals it
  bool building = false;  // a page whose references on its children may be incomplete
  uint64_t suffix = 0;    // of the blob; 0: there is none (lost; `bad` is set)
  uint64_t incarnation =
      0;  // what a page tags its children with: a later page with the same id has another
  uint32_t plain_length = 0;
  uint32_t stored_length = 0;
  uint64_t count = 0;    // tags; 0: garbage
  bool partial = false;  // only blocks that it lends are left in the blob
  uint64_t lent = 0;     // how many of the tags are borrowers'
  // Grows with every tag that comes or goes, once it has lent or its tags were counted (until then
  // 0): from then on two states are never the same.
  uint64_t changes = 0;
  uint32_t borrowed_bytes = 0;  // plain bytes that lie in the blobs of other chunks

  // Somebody wants the chunk itself, and not just blocks of it.
  bool is_wanted() const { return count > lent; }
  // Its bytes can be read, or taken as known.
  bool is_whole() const { return !bad && !partial; }
  bool operator==(const Record&) const = default;
};
// Whether what is recorded as the one kind will do as the other. Everybody can upload bytes that
// are a page of a map: as a chunk they refer to nothing, so they are no page. (A page will do as a
// chunk: it keeps more than that needs.)
constexpr bool StandsFor(BlobKind recorded, BlobKind wanted) {
  return recorded == wanted || wanted != BlobKind::kPage;
}
std::string EncodeRecord(const Record& record);
base::Result<Record> DecodeRecord(std::string_view value);

struct Doomed {
  BlobRef blob;  // from the key
  BlobKind kind = BlobKind::kChunk;
  bool has_references = false;  // a page that was taken, or a blob that borrows: its tags on its
                                // children or owners are to be dropped first
  uint64_t incarnation = 0;
  uint32_t stored_length = 0;
};
std::string EncodeDoomed(const Doomed& doomed);
base::Result<Doomed> DecodeDoomed(std::string_view key, std::string_view value);

struct HolderRecord {
  Token token = 0;
  bool held = false;  // false: an ingest in flight claims the name
  base::Digest256 root;
  uint64_t size_bytes = 0;
  uint64_t nonzero_bytes = 0;
  base::Digest256 manifest;
  int64_t since_us = 0;
  std::string attributes;
};
std::string EncodeHolder(const HolderRecord& holder);
base::Result<HolderRecord> DecodeHolder(std::string_view value);

struct Journal {
  enum class State : uint8_t {
    kActive = 1,     // an ingest (or a HoldAgain) in flight: somebody renews the lease
    kAbandoned = 2,  // its references are being given back
    kDone = 3,  // the holder holds; only the references of the ingest itself are left to give back
    kReleased = 4,  // the holder let go; its references on root and manifest are left to give back
  };
  State state = State::kActive;
  int64_t expires_us = 0;  // before this time others keep their hands off
  std::string holder;
  bool targets = false;  // `root` and `manifest` may carry this token's tag
  base::Digest256 root;
  base::Digest256 manifest;
};
std::string EncodeJournal(const Journal& journal);
base::Result<Journal> DecodeJournal(std::string_view value);

// What a manifest blob says: enough to make a holder again from the blobs alone.
struct Manifest {
  std::string holder;
  Token token = 0;
  base::Digest256 root;
  uint64_t size_bytes = 0;
  int64_t since_us = 0;
  std::string attributes;
};
std::string EncodeManifest(const Manifest& manifest);
base::Result<Manifest> DecodeManifest(std::string_view plain);

size_t PartitionOf(const base::Digest256& id);
std::string RecordPartition(size_t number);
std::string ScratchPartition(Token token);
base::Result<Token> ParseScratchPartition(std::string_view partition);

// What an ingest is about to write.
struct Intent {
  uint64_t suffix = 0;
  bool borrows = false;  // the blob may have tags on what it borrows from
};
std::string EncodeIntent(const Intent& intent);
base::Result<Intent> DecodeIntent(std::string_view value);

// The value of a borrower's tag: where the blocks begin that it borrows, in kBlockGridBytes of the
// owner's plain bytes, ascending.
std::string EncodeLent(std::span<const uint16_t> pages);
base::Result<std::vector<uint16_t>> DecodeLent(std::string_view value);

// Tags. An ingest's begins with 'u'; TagKey puts it under its token, so that all of one ingest lie
// together.
std::string PageTag(const base::Digest256& page, uint64_t incarnation);
std::string BorrowerTag(const BlobRef& borrower);
bool IsBorrowerTag(std::string_view tag);
std::string HolderTag(Token token);
std::string IngestTag(Token token);
struct ParsedTag {
  char kind = 0;             // 'p', 's', 'h', 'u'
  base::Digest256 page;      // or borrower
  uint64_t incarnation = 0;  // of the page, or suffix of the borrower's blob
  Token token = 0;
};
base::Result<ParsedTag> ParseTag(std::string_view tag);

std::string RecordKey(const base::Digest256& id);
std::string TagKey(const base::Digest256& id, std::string_view tag);
std::string TagPrefix(const base::Digest256& id);  // of the tags of pages and holders
std::string IngestPrefix(char kind, Token token);  // kind: 'u' or 'w'
std::string IntentKey(Token token, const base::Digest256& id);
std::string GarbageKey(const base::Digest256& id);
std::string LenderKey(const base::Digest256& id);
std::string DoomedKey(const BlobRef& blob);
std::string HolderKey(std::string_view name);
std::string JournalKey(Token token);

// Parts of keys. kCorruption for a key of another shape.
base::Result<base::Digest256> IdOfKey(std::string_view key, size_t offset);
base::Result<uint64_t> NumberOfKey(std::string_view key, size_t offset);

}  // namespace chunkstore
