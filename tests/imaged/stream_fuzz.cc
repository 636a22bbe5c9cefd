#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/async/pool.h"
#include "base/async/run.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "chunkstore/chunk_store.h"
#include "chunkstore/map.h"
#include "chunkstore/memory/memory_blob_store.h"
#include "chunkstore/memory/memory_meta_store.h"
#include "imaged/chunk_upload.h"
#include "imaged/recipe_wire.h"

// Chunk streams as the service reads them, over images of which the caller may read some. Whatever
// a client sends: what comes out has the announced ids, an honest stream comes out, and bytes of an
// image that the caller can't read never do.

namespace imaged {
namespace {

using base::Digest256;

constexpr size_t kSecretBytes = 20'000;
constexpr uint64_t kMaxOutBytes = 4 * chunkstore::kChunkBytes;  // holes are cheap to ask for
constexpr size_t kTellingBytes = 16;  // so many of a secret can't be there by accident

std::string Noise(size_t size, uint64_t seed) {
  std::string bytes(size, '\0');
  for (char& byte : bytes) {
    seed = seed * 6'364'136'223'846'793'005 + 1'442'695'040'888'963'407;
    byte = static_cast<char>(seed >> 56);
  }
  return bytes;
}

class World {
 public:
  World()
      : pool_("fuzz", 1, 64),
        catalog_(meta_, base::SystemClock()),
        store_(Store(blobs_, meta_, metrics_)),
        path_(Options(), *store_, meta_, catalog_, pool_, base::SystemClock(), metrics_) {
    // The last one is another project's.
    const size_t sizes[] = {12'000, 70'000, 1, kSecretBytes};
    for (size_t i = 0; i < std::size(sizes); ++i) {
      chunks_.push_back(Noise(sizes[i], i + 1));
      const bool secret = i + 1 == std::size(sizes);
      Add("00000000-0000-4000-8000-00000000000" + std::to_string(i), secret ? "p2" : "p1",
          chunks_.back());
    }
  }

  DataPath& path() { return path_; }
  // By number; the last is the secret one, and what is beyond is not there.
  const std::vector<std::string>& chunks() const { return chunks_; }
  bool MayRead(size_t number) const { return number + 1 < chunks_.size(); }
  std::string_view secret() const { return chunks_.back(); }

 private:
  static DataOptions Options() {
    DataOptions options;
    options.data_threads = 1;
    return options;
  }
  static std::unique_ptr<chunkstore::ChunkStore> Store(chunkstore::BlobStore& blobs,
                                                       chunkstore::MetaStore& meta,
                                                       base::Metrics& metrics) {
    auto store = chunkstore::ChunkStore::Open({}, blobs, meta, base::SystemClock(), metrics);
    CHECK(store.has_value());
    return *std::move(store);
  }
  void Add(const std::string& id, const std::string& owner, std::string_view bytes) {
    Image image;
    image.id = id;
    image.owner = owner;
    CHECK(catalog_.Create(image).has_value());
    const std::string holder = NewHolder(id);
    const auto anybody = [](const Image&) { return base::Result<void>(); };
    CHECK(catalog_.BeginUpload(id, UploadKind::kData, holder, 1'000'000, 0, anybody).has_value());
    auto ingest = store_->NewIngest(holder, "");
    CHECK(ingest.has_value() && (*ingest)->Put(0, base::AsBytes(bytes)).has_value());
    DataFacts facts;
    auto root = (*ingest)->Finish(bytes.size());
    CHECK(root.has_value());
    facts.root = *root;
    CHECK(catalog_.FinishUpload(id, holder, holder, facts).has_value());
  }

  base::Metrics metrics_;
  chunkstore::MemoryBlobStore blobs_;
  chunkstore::MemoryMetaStore meta_;
  base::async::Pool pool_;
  Catalog catalog_;
  std::unique_ptr<chunkstore::ChunkStore> store_;
  DataPath path_;
  std::vector<std::string> chunks_;
};

// What the fuzzer says, number by number; zeros after its end.
class Choices {
 public:
  Choices(const uint8_t* data, size_t size) : data_(data, size) {}
  uint64_t Next(size_t bytes) {
    uint64_t value = 0;
    for (; bytes > 0; --bytes) {
      value = value << 8 | (data_.empty() ? 0 : data_.front());
      if (!data_.empty()) data_ = data_.subspan(1);
    }
    return value;
  }
  uint64_t Below(uint64_t limit) { return Next(limit <= 256 ? 1 : 4) % limit; }
  bool Flip() { return Below(2) == 1; }
  bool done() const { return data_.empty(); }
  base::ByteView rest() const { return data_; }

 private:
  base::ByteView data_;
};

struct Stream {
  std::string bytes;
  uint64_t size_bytes = 0;
  bool honest = true;         // it must come out
  bool names_secret = false;  // it must not
};

// A piece of what is left of a chunk, and the bytes that it stands for.
RecipePiece NextPiece(World& world, Choices& choices, uint32_t left, std::string* plain,
                      std::string* sent, Stream* stream) {
  RecipePiece piece;
  piece.how = static_cast<RecipePiece::How>(choices.Below(3));
  piece.length = choices.done() ? left : static_cast<uint32_t>(choices.Below(left) + 1);
  if (piece.how == RecipePiece::How::kSent) {
    const std::string bytes = Noise(piece.length, choices.Next(1) + 1'000);
    plain->append(bytes);
    sent->append(bytes);
    return piece;
  }
  if (piece.how == RecipePiece::How::kNamed) {
    // One too many: an id that nobody has.
    piece.owner = static_cast<uint16_t>(choices.Below(world.chunks().size() + 1));
    piece.offset = static_cast<uint32_t>(choices.Below(chunkstore::kChunkBytes));
    const bool there = piece.owner < world.chunks().size();
    const std::string_view owner = there ? world.chunks()[piece.owner] : std::string_view();
    if (there && choices.Flip()) piece.offset %= owner.size();
    const bool fits = piece.offset <= owner.size() && piece.length <= owner.size() - piece.offset;
    if (there && !world.MayRead(piece.owner)) stream->names_secret = true;
    if (!fits || !world.MayRead(piece.owner)) stream->honest = false;
    piece.length = std::min<uint32_t>(piece.length, chunkstore::kChunkBytes - piece.offset);
    if (fits) plain->append(owner.substr(piece.offset, piece.length));
    if (!fits) plain->append(piece.length, '\0');
    return piece;
  }
  plain->append(piece.length, '\0');
  return piece;
}

// An image of one chunk, or of two: then the first is zeros, or is assembled of them.
Stream MakeStream(World& world, Choices& choices) {
  Stream stream;
  const bool two = choices.Below(16) == 1;
  const auto last_bytes = static_cast<uint32_t>(choices.Below(80'000) + 1);
  stream.size_bytes = last_bytes + (two ? chunkstore::kChunkBytes : 0);
  Recipes recipes;
  for (const std::string& chunk : world.chunks()) {
    recipes.owners.push_back(base::Sha256(base::AsBytes(chunk)));
  }
  recipes.owners.push_back(base::Sha256(base::AsBytes(std::string_view("nobody has this"))));
  stream.bytes = EncodeChunkStreamHeader({.size_bytes = stream.size_bytes}, kRecipeStreamVersion);
  if (two && choices.Flip()) {
    const std::string zeros(chunkstore::kChunkBytes, '\0');
    AppendChunkEntry(&stream.bytes, {ChunkHow::kAssembled, base::Sha256(base::AsBytes(zeros))});
    recipes.chunks.push_back({{.length = chunkstore::kChunkBytes}});
  } else if (two) {
    AppendChunkEntry(&stream.bytes, {ChunkHow::kHole, Digest256{}});
  }
  std::string plain;
  std::string sent;
  Recipe recipe;
  while (plain.size() < last_bytes && recipe.size() < kMaxPiecesOfChunk) {
    const auto left = static_cast<uint32_t>(last_bytes - plain.size());
    recipe.push_back(NextPiece(world, choices, left, &plain, &sent, &stream));
  }
  if (plain.size() != last_bytes) stream.honest = false;
  AppendChunkEntry(&stream.bytes, {ChunkHow::kAssembled, base::Sha256(base::AsBytes(plain))});
  recipes.chunks.push_back(std::move(recipe));
  stream.bytes += EncodeRecipes(recipes) + sent;
  return stream;
}

// Byte by byte: cut off, made longer, changed.
void Spoil(Choices& choices, Stream* stream) {
  const uint64_t ways = choices.Below(8);
  if (ways == 0 || stream->bytes.empty()) return;
  stream->honest = false;
  stream->names_secret = false;  // perhaps it names another one now: the telling bytes decide
  if (ways == 1) stream->bytes.resize(choices.Below(stream->bytes.size()));
  if (ways == 2) stream->bytes += Noise(choices.Below(100) + 1, 7);
  for (uint64_t i = 3; i <= ways; ++i) {
    // Most of what matters stands in front.
    const size_t within = choices.Flip() ? stream->bytes.size() : size_t{400};
    const size_t at = choices.Below(std::min(stream->bytes.size(), within));
    stream->bytes[at] = static_cast<char>(choices.Next(1));
  }
}

class StringBody : public base::http::BodyReader {
 public:
  explicit StringBody(std::string_view bytes) : bytes_(bytes) {}
  std::optional<uint64_t> content_length() const override { return std::nullopt; }
  base::async::Task<base::Result<size_t>> Read(base::MutableByteView into) override {
    const size_t count = std::min(into.size(), bytes_.size());
    std::copy_n(bytes_.begin(), count, into.begin());
    bytes_.remove_prefix(count);
    co_return base::Result<size_t>(count);
  }

 private:
  std::string_view bytes_;
};

// All bytes that come out.
base::async::Task<base::Result<std::string>> Expand(
    DataPath* path, std::shared_ptr<const base::http::Request> request, std::string_view body) {
  StringBody sent(body);
  auto opened = co_await ExpandChunkStream(*path, request, sent);
  if (!opened.has_value()) co_return opened.error();
  if (*(*opened)->content_length() > kMaxOutBytes) {
    co_return base::Error(base::Code::kInvalidArgument, "more than is looked at here");
  }
  std::string out;
  base::Buffer buffer(chunkstore::kChunkBytes);
  for (size_t count = buffer.size(); count == buffer.size();) {
    const base::Result<size_t> read = co_await (*opened)->Read(buffer.view());
    if (!read.has_value()) co_return read.error();
    count = *read;
    out.append(base::AsText(buffer.view()).data(), count);
  }
  CHECK(out.size() == (*opened)->content_length());
  co_return out;
}

std::shared_ptr<const base::http::Request> RequestOf(uint16_t version) {
  auto caller = std::make_shared<base::auth::Caller>();
  caller->project_id = "p1";
  caller->roles = {"member", "reader"};
  auto request = std::make_shared<base::http::Request>();
  request->headers.Set("Content-Type",
                       version == kChunkWireVersion ? kChunkStreamType : kRecipeStreamType);
  request->caller = std::move(caller);
  return request;
}

// Of the first batch: what is announced there.
void CheckIds(std::string_view stream, uint16_t version, std::string_view out) {
  for (size_t i = 0; i < kChunksOfBatch && i * chunkstore::kChunkBytes < out.size(); ++i) {
    const std::string_view entry =
        stream.substr(kChunkStreamHeaderBytes + i * kChunkEntryBytes, kChunkEntryBytes);
    const auto said = DecodeChunkEntries(base::AsBytes(entry), i, version);
    CHECK(said.has_value() && said->size() == 1);
    const base::ByteView chunk =
        base::AsBytes(out.substr(i * chunkstore::kChunkBytes, chunkstore::kChunkBytes));
    if (IsHole(said->front().id)) CHECK(base::IsZero(chunk));
    if (!IsHole(said->front().id)) CHECK(base::Sha256(chunk) == said->front().id);
  }
}

bool TellsSecret(const World& world, std::string_view out) {
  for (size_t at = 0; at + kTellingBytes <= kSecretBytes; at += kTellingBytes) {
    if (out.find(world.secret().substr(at, kTellingBytes)) != out.npos) return true;
  }
  return false;
}

void Check(World& world, const Stream& stream, uint16_t version) {
  const auto out = base::async::RunToEnd(Expand(&world.path(), RequestOf(version), stream.bytes));
  if (!out.has_value()) {
    const base::Code code = out.error().code();
    CHECK(code == base::Code::kInvalidArgument || code == base::Code::kConflict);
    CHECK(!out.error().message().empty() && !stream.honest);
    return;
  }
  CHECK(!stream.names_secret && !TellsSecret(world, *out));
  CheckIds(stream.bytes, version, *out);
}

}  // namespace
}  // namespace imaged

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static auto* world = new imaged::World();  // as long as the process
  imaged::Choices choices(data, size);
  const uint64_t mode = choices.Below(4);
  if (mode == 0) {
    // As it comes, in either version.
    const uint16_t version =
        choices.Flip() ? imaged::kRecipeStreamVersion : imaged::kChunkWireVersion;
    imaged::Stream stream;
    stream.bytes = base::AsText(choices.rest());
    stream.honest = false;
    imaged::Check(*world, stream, version);
    return 0;
  }
  imaged::Stream stream = imaged::MakeStream(*world, choices);
  if (mode == 1) imaged::Spoil(choices, &stream);
  imaged::Check(*world, stream, imaged::kRecipeStreamVersion);
  return 0;
}
