#include "imaged/block_download.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include <fmt/format.h>

#include "base/async/signal.h"
#include "base/async/sleep.h"
#include "base/http/accept.h"
#include "chunkstore/map.h"
#include "imaged/download.h"
#include "imaged/errors.h"

namespace imaged {

using base::Code;
using base::Error;
using base::Result;
using base::async::Task;
using base::http::Piece;
using base::http::Request;
using base::http::Response;
using base::http::Route;
using chunkstore::BlockBytes;
using chunkstore::Content;
using chunkstore::ContentPiece;
using chunkstore::StoredBlock;

namespace {

constexpr int64_t kFullPoolPauseMs = 10;
// Stored bytes up to this go into one piece with what stands before them.
constexpr uint64_t kJoinedBytes = 64 * base::kKiB;
constexpr int kNotAcceptable = 406;
constexpr int kUnsupportedMediaType = 415;

// Stored bytes of these blocks, as far as the chunk has them.
Result<uint64_t> StoredBytes(Content& content, const BlockItem& item) {
  ASSIGN_OR_RETURN(const std::vector<StoredBlock> blocks, content.BlocksOf(item.chunk));
  uint64_t stored = 0;
  for (const uint16_t number : item.numbers) {
    if (number < blocks.size()) stored += blocks[number].stored_length;
  }
  return stored;
}

// How much memory the answer to an item takes. That of many blocks is looked up: they could be ten
// times as large as they usually are.
Result<uint64_t> BoundOf(Content& content, const BlockItem& item) {
  const uint64_t entries = item.wants_table() ? chunkstore::kMaxBlocks : item.numbers.size();
  uint64_t stored = item.numbers.size() * uint64_t{chunkstore::kMaxBlockBytes};
  if (stored > BlockStream::kPartBytes) {
    ASSIGN_OR_RETURN(stored, StoredBytes(content, item));
  }
  return kBlockItemBytes + entries * kBlockEntryBytes + stored;
}

// What a part's items are answered with, in as few pieces as will do.
class PieceMaker {
 public:
  std::string& text() { return text_; }

  void Add(ContentPiece piece) {
    if (piece.descriptor < 0 && piece.length <= kJoinedBytes) {
      text_.append(base::AsText(piece.bytes));
      return;
    }
    Flush();
    pieces_.push_back(std::move(piece));
  }

  std::deque<ContentPiece> Take() {
    Flush();
    return std::move(pieces_);
  }

 private:
  void Flush() {
    if (text_.empty()) return;
    auto owned = std::make_shared<const std::string>(std::exchange(text_, {}));
    ContentPiece piece;
    piece.length = owned->size();
    piece.bytes = base::AsBytes(*owned);
    piece.owner = std::move(owned);
    pieces_.push_back(std::move(piece));
  }

  std::string text_;
  std::deque<ContentPiece> pieces_;
};

}  // namespace

// Reads parts, on any thread; a job may outlive the data path's other members.
struct BlockStream::Reader {
  const BlockNames names;
  const BlockSide side;
  const What what;

  // The chunk by which blocks are named for who may not know their owners.
  Result<base::Digest256> ChunkId(uint32_t chunk) const {
    base::Digest256 found;
    RETURN_IF_ERROR(
        side.content->VisitChunks(chunk, chunk + uint64_t{1}, [&](uint64_t, const auto& id) {
          found = id;
          return false;
        }));
    return found;
  }

  BlockInfo Describe(const StoredBlock& block, const base::Digest256& chunk) const {
    BlockInfo info;
    info.name = what.by_owner ? names.OfBlock(block.owner, block.owner_offset, block.plain_length)
                              : names.OfBlock(chunk, block.plain_offset, block.plain_length);
    info.plain_length = block.plain_length;
    info.stored_length = block.stored_length;
    info.compressed = block.compressed;
    info.hash = block.hash;
    return info;
  }

  Result<void> ReadTable(const BlockItem& item, const base::Digest256& chunk,
                         PieceMaker* out) const {
    ASSIGN_OR_RETURN(const std::vector<StoredBlock> blocks, side.content->BlocksOf(item.chunk));
    AppendBlockItemHead(&out->text(), item.chunk, BlockHow::kTable, blocks.size());
    for (size_t i = 0; i < blocks.size(); ++i) {
      AppendBlockEntry(&out->text(), i, Describe(blocks[i], chunk));
    }
    return {};
  }

  Result<void> ReadBytes(const BlockItem& item, const base::Digest256& chunk,
                         PieceMaker* out) const {
    const std::vector<size_t> numbers(item.numbers.begin(), item.numbers.end());
    Result<BlockBytes> read = side.content->ReadBlocks(item.chunk, numbers);
    if (!read.has_value() && read.error().code() == Code::kInvalidArgument) {
      AppendBlockItemHead(&out->text(), item.chunk, BlockHow::kOther, 0);
      return {};
    }
    RETURN_IF_ERROR(read);
    AppendBlockItemHead(&out->text(), item.chunk, BlockHow::kBlocks, numbers.size());
    for (size_t i = 0; i < numbers.size(); ++i) {
      AppendBlockEntry(&out->text(), numbers[i], Describe(read->blocks[i], chunk));
    }
    for (ContentPiece& piece : read->pieces) out->Add(std::move(piece));
    return {};
  }

  Result<Pieces> Read(const Part& part) const {
    PieceMaker out;
    if (part.first == 0) {
      const chunkstore::Root& root = side.content->root();
      out.text() = EncodeBlockAnswerHead({root.size_bytes, names.OfData(root)});
    }
    for (size_t i = part.first; i < part.end; ++i) {
      const BlockItem& item = what.items[i];
      base::Digest256 chunk;
      if (!what.by_owner) {
        ASSIGN_OR_RETURN(chunk, ChunkId(item.chunk));
      }
      RETURN_IF_ERROR(item.wants_table() ? ReadTable(item, chunk, &out)
                                         : ReadBytes(item, chunk, &out));
    }
    return out.Take();
  }
};

// A part that is being read.
struct BlockStream::Ahead {
  std::atomic<bool> done{false};
  base::async::Signal changed;
  // Written by the job before `done`, then read by the connection.
  Result<Pieces> pieces = Pieces();
  FairBudget::Share reservation;
};

BlockStream::BlockStream(DataPath& path, std::string project, std::vector<Part> parts,
                         FairBudget::Share admitted, std::shared_ptr<const Reader> reader,
                         Pieces first)
    : path_(path),
      project_(std::move(project)),
      parts_(std::move(parts)),
      admitted_(std::move(admitted)),
      reader_(std::move(reader)),
      pieces_(std::move(first)) {
  path_.CountDownloadBegun();
  if (parts_.size() > 1) return;
  size_bytes_ = 0;
  for (const ContentPiece& piece : pieces_) *size_bytes_ += piece.length;
}

// A job that still runs holds what it needs.
BlockStream::~BlockStream() { path_.CountDownloadEnded(); }

Result<std::vector<BlockStream::Part>> BlockStream::PartsOf(Content& content,
                                                            const std::vector<BlockItem>& items) {
  std::vector<Part> parts = {{0, 0, kBlockAnswerHeadBytes}};
  for (size_t i = 0; i < items.size(); ++i) {
    ASSIGN_OR_RETURN(const uint64_t bound, BoundOf(content, items[i]));
    if (parts.back().end > parts.back().first && parts.back().bound_bytes + bound > kPartBytes) {
      parts.push_back({i, i, 0});
    }
    parts.back().end = i + 1;
    parts.back().bound_bytes += bound;
  }
  return parts;
}

Result<std::unique_ptr<BlockStream>> BlockStream::Open(DataPath& path, std::string project,
                                                       BlockSide side, What what) {
  ASSIGN_OR_RETURN(std::vector<Part> parts, PartsOf(*side.content, what.items));
  const uint64_t bound = std::ranges::max(parts, {}, &Part::bound_bytes).bound_bytes;
  const DownloadMemory& memory = path.download_memory();
  FairBudget::Share admitted;
  const bool is_short = parts.size() == 1 && bound <= kPartBytes;
  if (is_short) admitted = memory.short_reads->TryTake(project, bound);
  FairBudget::Refusal why = FairBudget::Refusal::kLimit;
  if (admitted == nullptr) admitted = memory.images->TryTake(project, bound, &why);
  if (admitted == nullptr) {
    path.CountDownloadRefused(why);
    return Error(Code::kUnavailable,
                 "as much is being read as the service has memory for; try again");
  }
  auto reader =
      std::make_shared<const Reader>(Reader{path.block_names(), std::move(side), std::move(what)});
  ASSIGN_OR_RETURN(Pieces first, reader->Read(parts.front()));
  return std::unique_ptr<BlockStream>(new BlockStream(path, std::move(project), std::move(parts),
                                                      std::move(admitted), std::move(reader),
                                                      std::move(first)));
}

// Beyond the part that is being sent one more is read; without memory for two, when that was sent.
void BlockStream::ReadAhead() {
  if (ahead_ != nullptr || next_part_ == parts_.size()) return;
  const Part& part = parts_[next_part_];
  FairBudget::Share reservation =
      path_.download_memory().images->TryTake(project_, part.bound_bytes);
  if (reservation == nullptr && !pieces_.empty()) return;
  auto ahead = std::make_shared<Ahead>();
  ahead->reservation = std::move(reservation);
  auto read = [ahead, reader = reader_, part] {
    ahead->pieces = reader->Read(part);
    ahead->done.store(true, std::memory_order_release);
    ahead->changed.Notify();
  };
  if (!path_.data_pool().TrySubmit(std::move(read))) return;
  ahead_ = std::move(ahead);
  ++next_part_;
}

Piece BlockStream::TakePiece() {
  struct Owner {
    std::shared_ptr<const void> bytes;
    FairBudget::Share reservation;
  };
  ContentPiece from = std::move(pieces_.front());
  pieces_.pop_front();
  Piece piece;
  piece.bytes = from.bytes;
  if (from.descriptor >= 0) {
    piece.descriptor = from.descriptor;
    piece.offset = from.file_offset;
    piece.length = from.length;
  }
  piece.owner = std::make_shared<const Owner>(Owner{std::move(from.owner), reservation_});
  path_.CountBlockBytes(from.length);
  return piece;
}

Task<Result<Piece>> BlockStream::Next() {
  while (pieces_.empty()) {
    if (ahead_ == nullptr && next_part_ == parts_.size()) co_return Piece();
    ReadAhead();
    if (ahead_ == nullptr) {  // the pool was full
      co_await base::async::SleepMs(kFullPoolPauseMs);
      continue;
    }
    const std::shared_ptr<Ahead> ahead = ahead_;
    while (!ahead->done.load(std::memory_order_acquire)) co_await ahead->changed.Wait();
    ahead_ = nullptr;
    if (!ahead->pieces.has_value()) co_return ahead->pieces.error();
    pieces_ = *std::move(ahead->pieces);
    reservation_ = std::move(ahead->reservation);
  }
  Piece piece = TakePiece();
  ReadAhead();
  co_return piece;
}

std::optional<int> RefusedType(const Request& request, std::string_view body_type,
                               std::string_view answer_type) {
  if (!body_type.empty() && request.headers.Get("Content-Type") != body_type) {
    return kUnsupportedMediaType;
  }
  const bool takes = answer_type.empty() || base::http::AcceptsType(request.headers, answer_type);
  return takes ? std::nullopt : std::optional(kNotAcceptable);
}

std::string RefusedTypeSentence(const Request& request, int status, std::string_view type) {
  if (status == kNotAcceptable) {
    return fmt::format("Accept: {} is not what this server sends here: it is {}.",
                       request.headers.Get("Accept"), type);
  }
  return fmt::format("Content-Type: {} is not what this server takes here: it is {}.",
                     request.headers.Get("Content-Type"), type);
}

Result<Response> AnswerBlocks(DataPath& path, const Caller& caller, const BlockSide& side,
                              std::string_view body) {
  const uint64_t chunks = chunkstore::ChunkCount(side.content->root().size_bytes);
  BlockStream::What what;
  ASSIGN_OR_RETURN(what.items, DecodeBlockRequest(body, chunks));
  what.by_owner = IsService(caller);
  ASSIGN_OR_RETURN(std::unique_ptr<BlockStream> stream,
                   BlockStream::Open(path, SharerOf(caller), side, std::move(what)));
  Response response = Response::Empty(200);
  response.headers.Set("Content-Type", kBlocksType);
  response.source = std::move(stream);
  return response;
}

Route BlocksRoute(DataPath& path) {
  Route route;
  route.method = "POST";
  route.pattern = "/v2/quarry/images/{image_id}/blocks";
  route.max_body_bytes = kMaxBlockRequestBytes;
  route.handler = [&path](const Request& request) -> Result<Response> {
    ASSIGN_OR_RETURN(const OpenedImage opened, OpenImage(path, request));
    if (opened.content == nullptr) return Response::Empty(204);
    if (const auto status = RefusedType(request, kBlocksType, kBlocksType)) {
      return ErrorPage(request, *status, RefusedTypeSentence(request, *status, kBlocksType));
    }
    const BlockSide side = {
        opened.content, std::make_shared<const DataPath::Reading>(path, opened.image.data->holder)};
    return AnswerBlocks(path, *request.caller, side, request.body)
        .Annotate("image " + opened.image.id);
  };
  return route;
}

}  // namespace imaged
