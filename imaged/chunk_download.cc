#include "imaged/chunk_download.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/async/offload.h"
#include "base/http/accept.h"
#include "base/text.h"
#include "chunkstore/map.h"
#include "imaged/chunk_wire.h"
#include "imaged/download.h"
#include "imaged/errors.h"
#include "imaged/policy.h"

namespace imaged {

using base::Code;
using base::Digest256;
using base::Error;
using base::Result;
using base::async::Task;
using base::http::BodyReader;
using base::http::Request;
using base::http::Response;
using base::http::Route;
using chunkstore::kChunkBytes;

namespace {

constexpr const char* kPattern = "/v2/quarry/images/{image_id}/chunks";
constexpr int kNotAcceptable = 406;

// Versions are told apart by their media types: who takes only another one falls back.
Response NotAcceptable(const Request& request, std::string_view type) {
  return ErrorPage(request, kNotAcceptable,
                   fmt::format("Accept: {} is not what this server sends here: it is {}.",
                               request.headers.Get("Accept"), type));
}

Result<uint64_t> FromOf(const Request& request, uint64_t chunks) {
  const std::string_view text = request.Query("from").value_or("0");
  const std::optional<uint64_t> from = base::ParseNumber<uint64_t>(text);
  if (from.has_value() && *from <= chunks) return *from;
  return Error(
      Code::kInvalidArgument,
      fmt::format("from=\"{}\": a number of a chunk was expected, at most {}", text, chunks));
}

Result<Response> ShowChunks(DataPath& path, const Request& request) {
  ASSIGN_OR_RETURN(const OpenedImage opened, OpenImage(path, request));
  if (opened.content == nullptr) return Response::Empty(204);
  if (!base::http::AcceptsType(request.headers, kChunkListType)) {
    return NotAcceptable(request, kChunkListType);
  }
  const DataPath::Reading reading(path, opened.image.data->holder);
  return AnswerChunkList(*opened.content, request);
}

// The whole body, which has at most so many bytes; kTooLarge.
Task<Result<std::string>> ReadBody(BodyReader& body, size_t limit_bytes) {
  const Error too_large(Code::kTooLarge,
                        fmt::format("the body has more than {} bytes", limit_bytes));
  if (body.content_length().value_or(0) > limit_bytes) co_return too_large;
  std::string text(body.content_length().value_or(limit_bytes) + 1, '\0');
  const base::MutableByteView view(reinterpret_cast<uint8_t*>(text.data()), text.size());
  Result<size_t> read = co_await body.Read(view);
  if (!read.has_value()) co_return read.error();
  if (*read > limit_bytes) co_return too_large;
  text.resize(*read);
  co_return text;
}

std::vector<base::http::ByteRange> BytesOf(const std::vector<ChunkRun>& runs, uint64_t size_bytes) {
  std::vector<base::http::ByteRange> ranges;
  ranges.reserve(runs.size());
  for (const ChunkRun& run : runs) {
    const uint64_t begin = run.first * kChunkBytes;
    const uint64_t end = std::min((run.first + run.count) * uint64_t{kChunkBytes}, size_bytes);
    ranges.push_back({begin, end - begin});
  }
  return ranges;
}

Task<Result<Response>> Fetch(DataPath& path, std::shared_ptr<const Request> request,
                             BodyReader& body) {
  auto open = [&path, request] { return OpenImage(path, *request); };
  Result<OpenedImage> opened = co_await base::async::Offload(path.pool(), std::move(open));
  if (!opened.has_value()) co_return opened.error();
  if (opened->content == nullptr) co_return Response::Empty(204);
  if (!base::http::AcceptsType(request->headers, kChunkBytesType)) {
    co_return NotAcceptable(*request, kChunkBytesType);
  }
  Result<std::string> wanted = co_await ReadBody(body, kMaxFetchBytes);
  if (!wanted.has_value()) co_return wanted.error();
  const uint64_t size_bytes = opened->content->root().size_bytes;
  auto decode = [text = std::move(*wanted), size_bytes] { return DecodeFetch(text, size_bytes); };
  Result<std::vector<ChunkRun>> runs =
      co_await base::async::Offload(path.pool(), std::move(decode));
  if (!runs.has_value()) co_return runs.error();

  DownloadSource::What what;
  what.ranges = BytesOf(*runs, size_bytes);
  const bool as_frames = !runs->empty() && base::http::AcceptsCoding(request->headers, kZstdCoding);
  if (as_frames) what.coding = Coding::kZstd;
  std::string holder = opened->image.data->holder;
  std::shared_ptr<chunkstore::Content> content = opened->content;
  Result<std::unique_ptr<DownloadSource>> source = co_await DownloadSource::Open(
      path, SharerOf(*request->caller), std::move(holder), std::move(content), std::move(what));
  if (!source.has_value()) co_return source.error();
  Result<void> primed = co_await (*source)->Prime();
  if (!primed.has_value()) co_return primed.error().Annotate("image " + opened->image.id);
  Response response = Response::Empty(200);
  response.headers.Set("Content-Type", kChunkBytesType);
  response.headers.Set("Vary", "Accept-Encoding");
  if (as_frames) response.headers.Set("Content-Encoding", kZstdCoding);
  response.source = std::move(*source);
  co_return response;
}

}  // namespace

Result<Response> AnswerChunkList(chunkstore::Content& content, const Request& request) {
  ChunkList list;
  list.size_bytes = content.root().size_bytes;
  const uint64_t chunks = chunkstore::ChunkCount(list.size_bytes);
  ASSIGN_OR_RETURN(list.first, FromOf(request, chunks));
  list.ids.resize(std::min<uint64_t>(kMaxListedChunks, chunks - list.first));
  RETURN_IF_ERROR(content.VisitChunks(list.first, list.first + list.ids.size(),
                                      [&](uint64_t number, const Digest256& id) {
                                        list.ids[number - list.first] = id;
                                        return true;
                                      }));
  return Response::Text(200, EncodeChunkList(list), kChunkListType);
}

Route ChunkMapRoute(DataPath& path) {
  Route route;
  route.method = "GET";
  route.pattern = kPattern;
  route.handler = [&path](const Request& request) { return ShowChunks(path, request); };
  return route;
}

Route FetchRoute(DataPath& path) {
  Route route;
  route.method = "POST";
  route.pattern = kPattern;
  route.stream = [&path](std::shared_ptr<const Request> request, BodyReader& body) {
    return Fetch(path, std::move(request), body);
  };
  return route;
}

}  // namespace imaged
