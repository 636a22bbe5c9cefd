#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/hash.h"
#include "base/result.h"

// The bodies of negotiated uploads and downloads, as API.md ("Chunk transfer") writes them down: a
// list of chunk ids, by which a client asks what to send, and reads what an image consists of; the
// stream that takes the place of an upload's plain bytes; and the runs of chunks that one side
// wants of the other. Both sides use this file: imaged and the command line. Numbers are
// little-endian; what comes in is hostile, and every decoder answers kInvalidArgument with a
// sentence.
//
// A chunk is 4 MiB of the image at a multiple of 4 MiB, the last one shorter; its id is the SHA-256
// of its bytes. A chunk of zeros is a hole, and has the id of 32 zero bytes here.

namespace imaged {

// The version stands in the type as well, so that a server of another one answers 415, and the
// client falls back.
constexpr std::string_view kChunkListType = "application/vnd.quarry.chunk-list.v1";
constexpr std::string_view kChunkStreamType = "application/vnd.quarry.chunks.v1";
// Version 2 may assemble chunks (recipe_wire.h), and compress what it sends (sent_frames.h).
constexpr std::string_view kRecipeStreamType = "application/vnd.quarry.chunks.v2";
constexpr std::string_view kChunkBytesType = "application/vnd.quarry.chunk-bytes.v1";
constexpr uint16_t kChunkWireVersion = 1;
constexpr uint16_t kRecipeStreamVersion = 2;  // of streams alone

constexpr size_t kChunkListHeaderBytes = 32;
constexpr size_t kChunkStreamHeaderBytes = 16;
constexpr size_t kChunkEntryBytes = 33;
// Ids in one list: those of 64 GiB. A larger image asks in several requests.
constexpr size_t kMaxListedChunks = 16'384;
constexpr size_t kMaxChunkListBytes = kChunkListHeaderBytes + 32 * kMaxListedChunks;
// Of a body that asks for chunks: as long as runs of one chunk each make it, and white space.
constexpr size_t kMaxFetchBytes = 512 * base::kKiB;
// Images that a service names as being like the one that is asked about.
constexpr size_t kMaxAlike = 8;
// Chunks whose entries stand together in a stream, before their bytes: those of 256 MiB.
constexpr size_t kChunksOfBatch = 64;

inline bool IsHole(const base::Digest256& id) { return id == base::Digest256{}; }

// A run of an image's chunks, from number `first` on. Value type.
struct ChunkList {
  uint64_t size_bytes = 0;  // of the whole image
  uint64_t first = 0;
  std::vector<base::Digest256> ids;
  bool operator==(const ChunkList&) const = default;
};
std::string EncodeChunkList(const ChunkList& list);
base::Result<ChunkList> DecodeChunkList(std::string_view body);

// The answer to a list: JSON, runs of wanted chunks as [first, count] in ascending order.
struct ChunkRun {
  uint64_t first = 0;
  uint64_t count = 0;
  bool operator==(const ChunkRun&) const = default;
};
std::string EncodeWanted(const std::vector<ChunkRun>& runs);
// The same with ids of images in which chunks lie that are there.
// That is said by a service that takes streams of version 2, with frames.
std::string EncodeWanted(const std::vector<ChunkRun>& runs, const std::vector<std::string>& alike);
// One flag a chunk of the list that was asked with. kInvalidArgument for runs outside of it.
base::Result<std::vector<bool>> DecodeWanted(std::string_view body, const ChunkList& list);
// The images that such an answer names, at most kMaxAlike; nothing from a service that takes
// streams of version 1 only.
std::optional<std::vector<std::string>> DecodeAlike(std::string_view body);
// Whether such an answer is of a service that takes what is sent in frames.
bool DecodeTakesFrames(std::string_view body);

// The chunks that a client fetches, in the form of EncodeWanted: runs that are not empty, ascending
// and apart, within an image of this size, of at most kMaxListedChunks together.
base::Result<std::vector<ChunkRun>> DecodeFetch(std::string_view body, uint64_t size_bytes);

// A stream is a header; then, for every kChunksOfBatch chunks (the last time fewer), their entries
// and behind them the bytes of those that are sent, in order. After the last chunk the body ends.
struct ChunkStreamHead {
  uint64_t size_bytes = 0;  // of the image
  bool frames = false;      // version 2: what is sent comes in frames
  bool operator==(const ChunkStreamHead&) const = default;
};
std::string EncodeChunkStreamHeader(const ChunkStreamHead& head,
                                    uint16_t version = kChunkWireVersion);
// REQUIRES: kChunkStreamHeaderBytes of them. Another version is refused.
base::Result<ChunkStreamHead> DecodeChunkStreamHeader(base::ByteView header,
                                                      uint16_t version = kChunkWireVersion);

enum class ChunkHow : uint8_t {
  kHole = 0,       // zeros; the id is 32 zero bytes
  kNamed = 1,      // the service has it, in what the caller may read
  kSent = 2,       // its bytes follow
  kAssembled = 3,  // version 2: of parts of other chunks and bytes that follow
};
struct ChunkEntry {
  ChunkHow how = ChunkHow::kHole;
  base::Digest256 id;
  bool operator==(const ChunkEntry&) const = default;
};
void AppendChunkEntry(std::string* out, const ChunkEntry& entry);
// `bytes` are whole entries; `first` is the number of the first, for the sentence of an error.
base::Result<std::vector<ChunkEntry>> DecodeChunkEntries(base::ByteView bytes, uint64_t first,
                                                         uint16_t version = kChunkWireVersion);

}  // namespace imaged
