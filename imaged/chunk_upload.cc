#include "imaged/chunk_upload.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/async/offload.h"
#include "base/check.h"
#include "chunkstore/map.h"
#include "imaged/chunk_wire.h"
#include "imaged/errors.h"
#include "imaged/holder.h"
#include "imaged/policy.h"
#include "imaged/recipe_wire.h"
#include "imaged/sent_frames.h"

namespace imaged {

using base::ByteView;
using base::Code;
using base::Digest256;
using base::Error;
using base::MutableByteView;
using base::Result;
using base::async::Task;
using base::http::BodyReader;
using base::http::Request;
using base::http::Response;

namespace {

constexpr int kUnsupportedMediaType = 415;

std::string_view MediaType(const Request& request) {
  std::string_view type = request.headers.Get("Content-Type");
  type = type.substr(0, type.find(';'));
  while (!type.empty() && type.back() == ' ') type.remove_suffix(1);
  return type;
}

// Whether the holder's bytes are those of an image that the caller could download now, or came from
// his project in an upload that broke off.
Result<bool> MayRead(Catalog& catalog, const Caller& caller, std::string_view holder) {
  if (const std::string_view project = ProjectOfPartHolder(holder); !project.empty()) {
    return project == caller.project_id;
  }
  const Result<Image> image = catalog.Get(ImageOfHolder(holder));
  if (!image.has_value()) {
    if (image.error().code() == Code::kNotFound) return false;
    return image.error();
  }
  if (!image->data.has_value() || image->data->holder != holder) return false;
  return CheckDownload(caller, *image).has_value();
}

Result<std::vector<bool>> WhichReadable(DataPath& path, const Caller& caller,
                                        const std::vector<Digest256>& ids) {
  return path.store().WhichReachable(
      ids, [&](std::string_view holder) { return MayRead(path.catalog(), caller, holder); });
}

Result<Response> ListWanted(DataPath& path, const Request& request) {
  ASSIGN_OR_RETURN(const Image image, path.catalog().Get(request.Param("image_id")));
  RETURN_IF_ERROR(CheckModify(*request.caller, image, "upload_image"));
  if (MediaType(request) != kChunkListType) {
    return ErrorPage(request, kUnsupportedMediaType,
                     fmt::format("The request media type {} is not supported by this server: it "
                                 "takes {}.",
                                 request.headers.Get("Content-Type"), kChunkListType));
  }
  if (image.status != Status::kQueued) {
    return Error(Code::kConflict, fmt::format("image {} is {}: only a queued one takes data",
                                              image.id, StatusName(image.status)));
  }
  ASSIGN_OR_RETURN(const ChunkList list, DecodeChunkList(request.body));
  // Images that have some of it likely have blocks of the rest. All of them may be downloaded.
  std::vector<std::string> alike;
  ASSIGN_OR_RETURN(
      const std::vector<bool> readable,
      path.store().WhichReachable(list.ids, [&](std::string_view holder) -> Result<bool> {
        ASSIGN_OR_RETURN(const bool may, MayRead(path.catalog(), *request.caller, holder));
        const std::string_view other = ImageOfHolder(holder);
        if (may && !other.empty() && alike.size() < kMaxAlike) alike.emplace_back(other);
        return may;
      }));
  std::vector<ChunkRun> wanted;
  for (size_t i = 0; i < list.ids.size(); ++i) {
    if (readable[i] || IsHole(list.ids[i])) continue;
    const uint64_t number = list.first + i;
    if (wanted.empty() || wanted.back().first + wanted.back().count != number) {
      wanted.push_back({number, 0});
    }
    ++wanted.back().count;
  }
  return Response::Text(200, EncodeWanted(wanted, alike), "application/json");
}

class ChunkStreamReader : public BodyReader {
 public:
  ChunkStreamReader(DataPath& path, std::shared_ptr<const Request> request, BodyReader& body,
                    const ChunkStreamHead& head, uint16_t version)
      : path_(path),
        request_(std::move(request)),
        body_(body),
        size_bytes_(head.size_bytes),
        has_frames_(head.frames),
        version_(version),
        chunks_(chunkstore::ChunkCount(head.size_bytes)) {}

  std::optional<uint64_t> content_length() const override { return size_bytes_; }

  Task<Result<size_t>> Read(MutableByteView into) override {
    CHECK(into.size() == chunkstore::kChunkBytes);
    if (next_ == chunks_) {
      Result<void> ended = co_await ExpectEnd();
      if (!ended.has_value()) co_return ended.error();
      co_return Result<size_t>(0);
    }
    if (next_ == batch_end_) {
      Result<void> begun = co_await BeginBatch();
      if (!begun.has_value()) co_return begun.error();
    }
    const ChunkEntry entry = batch_[batch_.size() - (batch_end_ - next_)];
    const MutableByteView chunk = into.first(chunkstore::ChunkLength(next_, size_bytes_));
    Result<void> filled;
    if (entry.how == ChunkHow::kSent) {
      filled = co_await TakeSent(entry.id, chunk);
    } else if (entry.how == ChunkHow::kNamed) {
      Result<void> checked = co_await CheckNamedAgain();
      if (!checked.has_value()) co_return checked.error();
      filled = co_await TakeNamed(entry.id, chunk);
    } else if (entry.how == ChunkHow::kAssembled) {
      Result<void> checked = co_await CheckNamedAgain();
      if (!checked.has_value()) co_return checked.error();
      filled = co_await Assemble(entry.id, chunk);
      ++next_recipe_;
    } else {
      std::memset(chunk.data(), 0, chunk.size());
    }
    if (!filled.has_value()) co_return filled.error();
    ++next_;
    // A short chunk ends the body for whoever reads it: he won't ask again.
    if (next_ == chunks_) {
      Result<void> ended = co_await ExpectEnd();
      if (!ended.has_value()) co_return ended.error();
    }
    co_return chunk.size();
  }

 private:
  Task<Result<void>> BeginBatch() {
    const uint64_t count = std::min<uint64_t>(kChunksOfBatch, chunks_ - next_);
    std::string raw(count * kChunkEntryBytes, '\0');
    const MutableByteView view(reinterpret_cast<uint8_t*>(raw.data()), raw.size());
    Result<void> read = co_await ReadAll(view);
    if (!read.has_value()) co_return read.error();
    Result<std::vector<ChunkEntry>> entries = DecodeChunkEntries(view, next_, version_);
    if (!entries.has_value()) co_return entries.error();
    batch_ = std::move(*entries);
    batch_end_ = next_ + count;
    Result<void> recipes = co_await ReadRecipes();
    if (!recipes.has_value()) co_return recipes.error();
    Result<void> checked = co_await CheckNamed();
    co_return checked;
  }

  Task<Result<void>> ReadRecipes() {
    recipes_ = {};
    next_recipe_ = 0;
    if (version_ == kChunkWireVersion) co_return Result<void>();
    uint8_t head[kRecipeHeadBytes];
    Result<void> read = co_await ReadAll(MutableByteView(head));
    if (!read.has_value()) co_return read.error();
    Result<RecipeCounts> counts = DecodeRecipeHead(ByteView(head));
    if (!counts.has_value()) co_return counts.error();
    std::string raw(counts->bytes(), '\0');
    const MutableByteView view(reinterpret_cast<uint8_t*>(raw.data()), raw.size());
    read = co_await ReadAll(view);
    if (!read.has_value()) co_return read.error();
    std::vector<uint32_t> lengths;
    for (uint64_t number = next_; number < batch_end_; ++number) {
      if (batch_[number - next_].how != ChunkHow::kAssembled) continue;
      lengths.push_back(chunkstore::ChunkLength(number, size_bytes_));
    }
    Result<Recipes> recipes = DecodeRecipes(view, *counts, lengths);
    if (!recipes.has_value()) co_return recipes.error();
    recipes_ = std::move(*recipes);
    co_return Result<void>();
  }

  // What is named is checked batch by batch, and again where a batch takes long: a right that ends
  // meanwhile ends the upload soon.
  Task<Result<void>> CheckNamedAgain() {
    const int64_t age_ns = path_.clock().MonotonicNs() - checked_ns_;
    if (age_ns <= kNamedRightMs * 1'000'000) co_return Result<void>();
    Result<void> checked = co_await CheckNamed();
    co_return checked;
  }

  // All of the batch from the next chunk on.
  Task<Result<void>> CheckNamed() {
    checked_ns_ = path_.clock().MonotonicNs();
    std::vector<Digest256> ids;
    std::vector<uint64_t> numbers;
    const uint64_t batch_begin = batch_end_ - batch_.size();
    std::set<uint16_t> owners;
    size_t recipe = next_recipe_;
    for (uint64_t number = next_; number < batch_end_; ++number) {
      const ChunkEntry& entry = batch_[number - batch_begin];
      if (entry.how == ChunkHow::kNamed) {
        ids.push_back(entry.id);
        numbers.push_back(number);
      }
      if (entry.how != ChunkHow::kAssembled) continue;
      for (const RecipePiece& piece : recipes_.chunks[recipe++]) {
        if (piece.how != RecipePiece::How::kNamed || !owners.insert(piece.owner).second) continue;
        ids.push_back(recipes_.owners[piece.owner]);
        numbers.push_back(number);
      }
    }
    if (ids.empty()) co_return Result<void>();
    auto check = [&path = path_, request = request_, ids, numbers]() -> Result<void> {
      ASSIGN_OR_RETURN(const std::vector<bool> readable,
                       WhichReadable(path, *request->caller, ids));
      for (size_t i = 0; i < ids.size(); ++i) {
        if (!readable[i]) return NotThere(numbers[i]);
      }
      return {};
    };
    Result<void> checked = co_await base::async::Offload(path_.data_pool(), std::move(check));
    co_return checked;
  }

  Task<Result<void>> TakeNamed(Digest256 id, MutableByteView chunk) {
    auto read = [&path = path_, id, chunk, number = next_]() -> Result<void> {
      Result<void> done = path.store().ReadChunk(id, chunk);
      if (done.has_value()) path.CountNamed(chunk.size());
      if (done.has_value()) return done;
      const Code code = done.error().code();
      // The client has the bytes: it sends what was lost meanwhile, and heals what is damaged.
      if (code == Code::kNotFound || code == Code::kCorruption) return NotThere(number);
      return done;
    };
    Result<void> done = co_await base::async::Offload(path_.data_pool(), std::move(read));
    co_return done;
  }

  // The next recipe. What is sent of it lies in the body one after the other.
  Task<Result<void>> Assemble(Digest256 id, MutableByteView chunk) {
    const Recipe& recipe = recipes_.chunks[next_recipe_];
    const MutableByteView sent = chunk.first(SentBytes(recipe));
    Result<SentFrames> frames = co_await ReadSent(sent);
    if (!frames.has_value()) co_return frames.error();
    auto make = [this, id, chunk, sent, &recipe, &frames = *frames,
                 number = next_]() -> Result<void> {
      RETURN_IF_ERROR(frames.Decode(sent).Annotate(fmt::format("chunk {}", number)));
      SpreadSent(recipe, chunk);
      RETURN_IF_ERROR(FillIn(path_, recipe, recipes_.owners, chunk, number));
      // Not the bytes sent alone decide: the client may have been told wrong of what is there.
      if (base::Sha256(chunk) == id) return {};
      return Error(Code::kConflict,
                   fmt::format("chunk {} as it was assembled is not what its id {} says: send it",
                               number, id.hex()));
    };
    Result<void> done = co_await base::async::Offload(path_.data_pool(), std::move(make));
    co_return done;
  }

  // What is there already, and zeros.
  static Result<void> FillIn(DataPath& path, const Recipe& recipe,
                             const std::vector<Digest256>& owners, MutableByteView chunk,
                             uint64_t number) {
    for (const RecipePiece& piece : recipe) {
      const MutableByteView part = chunk.first(piece.length);
      chunk = chunk.subspan(piece.length);
      if (piece.how == RecipePiece::How::kZeros) std::memset(part.data(), 0, part.size());
      if (piece.how != RecipePiece::How::kNamed) continue;
      const Result<void> read = path.store().ReadChunkPart(owners[piece.owner], piece.offset, part);
      if (!read.has_value()) {
        const Code code = read.error().code();
        if (code == Code::kNotFound || code == Code::kCorruption) return NotThere(number);
        return read;
      }
      path.CountNamed(part.size());
    }
    return {};
  }

  Task<Result<void>> TakeSent(Digest256 id, MutableByteView chunk) {
    Result<SentFrames> frames = co_await ReadSent(chunk);
    if (!frames.has_value()) co_return frames.error();
    auto check = [id, chunk, &frames = *frames, number = next_]() -> Result<void> {
      RETURN_IF_ERROR(frames.Decode(chunk).Annotate(fmt::format("chunk {}", number)));
      if (base::Sha256(chunk) == id) return {};
      return Error(
          Code::kInvalidArgument,
          fmt::format("the bytes of chunk {} are not those of its id {}", number, id.hex()));
    };
    Result<void> done = co_await base::async::Offload(path_.data_pool(), std::move(check));
    co_return done;
  }

  // What is sent of a chunk, into its place; still in frames, if there are any.
  Task<Result<SentFrames>> ReadSent(MutableByteView sent) {
    SentFrames frames;
    if (has_frames_ && !sent.empty()) {
      uint8_t lengths[kFrameLengthBytes * FrameCount(chunkstore::kChunkBytes)];
      const MutableByteView view =
          MutableByteView(lengths).first(kFrameLengthBytes * FrameCount(sent.size()));
      Result<void> read = co_await ReadAll(view);
      if (!read.has_value()) co_return read.error();
      Result<SentFrames> decoded = SentFrames::Of(view, sent.size());
      if (!decoded.has_value()) co_return decoded.error().Annotate(fmt::format("chunk {}", next_));
      frames = std::move(*decoded);
    }
    Result<void> read = co_await ReadAll(frames.PlaceIn(sent));
    if (!read.has_value()) co_return read.error();
    co_return frames;
  }

  Task<Result<void>> ReadAll(MutableByteView into) {
    if (into.empty()) co_return Result<void>();
    Result<size_t> read = co_await body_.Read(into);
    if (!read.has_value()) co_return read.error();
    if (*read == into.size()) co_return Result<void>();
    co_return Error(Code::kInvalidArgument,
                    fmt::format("the chunk stream ends at chunk {} of {}", next_, chunks_));
  }

  Task<Result<void>> ExpectEnd() {
    uint8_t more = 0;
    Result<size_t> read = co_await body_.Read(MutableByteView(&more, 1));
    if (!read.has_value()) co_return read.error();
    if (*read == 0) co_return Result<void>();
    co_return Error(
        Code::kInvalidArgument,
        fmt::format("the chunk stream goes on after the {} bytes of the image", size_bytes_));
  }

  static Error NotThere(uint64_t number) {
    return Error(Code::kConflict,
                 fmt::format("chunk {}, or what it is assembled of, is not there (any more): ask "
                             "again which are wanted, or send it",
                             number));
  }

  DataPath& path_;
  const std::shared_ptr<const Request> request_;
  BodyReader& body_;
  const uint64_t size_bytes_;
  const bool has_frames_;
  const uint16_t version_;
  const uint64_t chunks_;
  uint64_t next_ = 0;
  std::vector<ChunkEntry> batch_;  // of chunks up to batch_end_
  uint64_t batch_end_ = 0;
  Recipes recipes_;         // of the batch
  size_t next_recipe_ = 0;  // of the next chunk that is assembled
  int64_t checked_ns_ = 0;  // when the named ones were
};

}  // namespace

base::http::Route WantedRoute(DataPath& path) {
  base::http::Route route;
  route.method = "POST";
  route.pattern = "/v2/quarry/images/{image_id}/wanted";
  route.max_body_bytes = kMaxChunkListBytes;
  route.handler = [&path](const Request& request) { return ListWanted(path, request); };
  return route;
}

bool IsChunkStream(const Request& request) {
  const std::string_view type = MediaType(request);
  return type == kChunkStreamType || type == kRecipeStreamType;
}

Task<Result<std::unique_ptr<BodyReader>>> ExpandChunkStream(DataPath& path,
                                                            std::shared_ptr<const Request> request,
                                                            BodyReader& body) {
  uint8_t header[kChunkStreamHeaderBytes];
  Result<size_t> read = co_await body.Read(MutableByteView(header));
  if (!read.has_value()) co_return read.error();
  if (*read < sizeof(header)) {
    co_return Error(Code::kInvalidArgument, "the chunk stream ends within its header");
  }
  const uint16_t version =
      MediaType(*request) == kRecipeStreamType ? kRecipeStreamVersion : kChunkWireVersion;
  Result<ChunkStreamHead> head = DecodeChunkStreamHeader(ByteView(header), version);
  if (!head.has_value()) co_return head.error();
  co_return std::unique_ptr<BodyReader>(
      std::make_unique<ChunkStreamReader>(path, std::move(request), body, *head, version));
}

}  // namespace imaged
