#include "controlplane/cli/image_chunks.h"

#include <algorithm>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "chunkstore/blob_format.h"
#include "chunkstore/map.h"
#include "controlplane/cli/chunk_stream_body.h"
#include "controlplane/cli/image_blocks.h"
#include "controlplane/cli/image_requests.h"
#include "controlplane/cli/interrupt.h"
#include "controlplane/cli/progress.h"
#include "imaged/chunk_wire.h"

namespace controlplane::cli {
namespace {

using base::Code;
using base::Digest256;
using base::Error;
using base::MutableByteView;
using base::Result;
using base::http::ClientRequest;
using base::http::Response;
using chunkstore::kChunkBytes;
using imaged::ChunkList;

// How often a service may take back what it agreed to (an image was deleted meanwhile) before
// everything is sent.
constexpr int kTries = 3;
// The service reads what is named back from its disk before it answers.
constexpr int64_t kAnswerMs = 60'000;
constexpr uint64_t kAnswerBytesPerMs = 20'000;

Result<Response> AskWhich(ApiClient& client, const std::string& url, const ChunkList& list) {
  ClientRequest request = Ask("POST", url);
  request.headers.Set("Content-Type", imaged::kChunkListType);
  request.body = imaged::EncodeChunkList(list);
  return client.Call(std::move(request));
}

// An empty list: cheap, and answered only by a service that speaks this.
Result<bool> IsSpoken(ApiClient& client, const std::string& url) {
  const Result<Response> answer = AskWhich(client, url, {});
  if (answer.has_value()) return true;
  if (IsNotSpoken(answer.error())) return false;
  return answer.error();
}

struct Wanted {
  std::vector<bool> chunks;
  // Images that are like it; nothing from a service that assembles no chunks.
  std::optional<std::vector<std::string>> alike;
  bool frames = false;  // it takes what is sent compressed
};

Result<Wanted> AskAll(ApiClient& client, const std::string& url, const FileChunks& chunks,
                      PushTotals* totals) {
  Wanted wanted;
  for (size_t first = 0; first < chunks.ids.size(); first += imaged::kMaxListedChunks) {
    ChunkList list{.size_bytes = chunks.size_bytes, .first = first};
    const size_t count = std::min(imaged::kMaxListedChunks, chunks.ids.size() - first);
    const auto begin = chunks.ids.begin() + static_cast<ptrdiff_t>(first);
    list.ids.assign(begin, begin + static_cast<ptrdiff_t>(count));
    totals->bytes_sent += imaged::kChunkListHeaderBytes + 32 * count;
    ASSIGN_OR_RETURN(const Response answer, AskWhich(client, url, list));
    Result<std::vector<bool>> some = imaged::DecodeWanted(answer.body, list);
    if (!some.has_value()) return some.error().Annotate("the list of wanted chunks");
    for (size_t i = 0; i < count; ++i) {
      wanted.chunks.push_back((*some)[i] && !imaged::IsHole(list.ids[i]));
    }
    if (first > 0) continue;
    wanted.alike = imaged::DecodeAlike(answer.body);
    wanted.frames = imaged::DecodeTakesFrames(answer.body);
  }
  return wanted;
}

// What to send of what is wanted. `by_blocks`: where it helps, only blocks.
Result<SendPlan> PlanToSend(ApiClient& client, const std::string& images_url,
                            const ImageSource& source, const FileChunks& chunks, Wanted wanted,
                            bool by_blocks) {
  SendPlan plan{.wanted = std::move(wanted.chunks), .recipes = {}, .frames = false};
  if (std::ranges::count(plan.wanted, true) == 0) return plan;
  plan.frames = wanted.frames;
  if (!by_blocks || !wanted.alike.has_value()) return plan;
  ASSIGN_OR_RETURN(const ServiceBlocks blocks,
                   FindServiceBlocks(client, images_url, *wanted.alike, plan.wanted));
  if (blocks.empty()) return plan;
  ASSIGN_OR_RETURN(plan.recipes, CookChunks(source, chunks, plan.wanted, blocks));
  return plan;
}

Result<void> Send(ApiClient& client, const std::string& url, const ImageSource& source,
                  const FileChunks& chunks, const SendPlan& plan, const std::string& name,
                  bool quiet, PushTotals* totals) {
  ChunkStreamBody body(source, chunks, plan);
  const uint64_t skipped = chunks.size_bytes - plan.FileBytes(chunks);
  const uint64_t data = chunks.size_bytes - totals->bytes_zero;
  const std::string note =
      data == 0 ? "" : fmt::format("already there: {} %", totals->bytes_already_there * 100 / data);
  ProgressBar bar("push " + name, ProgressBar::Unit::kBytes, quiet);
  bar.Update(skipped, chunks.size_bytes, note);
  ClientRequest request = Ask("PUT", url);
  request.headers.Set("Content-Type", plan.version() == imaged::kRecipeStreamVersion
                                          ? imaged::kRecipeStreamType
                                          : imaged::kChunkStreamType);
  request.body_size = body.size_bytes();
  request.answer_timeout_ms =
      kAnswerMs + static_cast<int64_t>(chunks.size_bytes / kAnswerBytesPerMs);
  request.body_source = [&](MutableByteView into) -> Result<size_t> {
    ASSIGN_OR_RETURN(const size_t count, body.Fill(into));
    totals->bytes_sent += count;
    bar.Update(skipped + body.file_bytes(), chunks.size_bytes, note);
    return count;
  };
  RETURN_IF_ERROR(client.Call(std::move(request)));
  bar.Finish();
  return {};
}

}  // namespace

Result<void> VisitChunks(const ImageSource& source, const FileChunkVisitor& visit) {
  const uint64_t size_bytes = source.size_bytes();
  base::Buffer buffer(kChunkBytes);
  uint64_t data_at = 0;  // nothing but holes before
  for (uint64_t i = 0; i < chunkstore::ChunkCount(size_bytes); ++i) {
    RETURN_IF_ERROR(CheckInterrupt());
    const uint64_t offset = i * kChunkBytes;
    const uint32_t length = chunkstore::ChunkLength(i, size_bytes);
    const MutableByteView bytes = buffer.view().first(length);
    if (data_at < offset + length) data_at = source.NextData(std::max(offset, data_at));
    bool zero = data_at >= offset + length;
    if (!zero) {
      RETURN_IF_ERROR(source.file()->ReadAt(offset, bytes));
      zero = base::IsZero(bytes);
    }
    RETURN_IF_ERROR(zero ? visit(i, {}, {}) : visit(i, base::Sha256(bytes), bytes));
  }
  return {};
}

Result<FileChunks> HashChunks(const ImageSource& source,
                              const std::function<void(uint64_t done)>& progress) {
  FileChunks chunks;
  chunks.size_bytes = source.size_bytes();
  const auto note = [&](uint64_t number, const Digest256& id, base::ByteView) -> Result<void> {
    const uint32_t length = chunkstore::ChunkLength(number, chunks.size_bytes);
    if (imaged::IsHole(id)) chunks.zero_bytes += length;
    chunks.ids.push_back(id);
    progress(number * kChunkBytes + length);
    return {};
  };
  const Result<void> visited = VisitChunks(source, note);
  if (visited.has_value()) return chunks;
  if (visited.error().code() == Code::kCorruption) return ChangedMeanwhile("it is shorter now");
  return visited.error();
}

Result<bool> PushByChunks(ApiClient& client, const std::string& images_url,
                          const std::string& image_id, const ImageSource& source,
                          const std::string& name, bool quiet, PushTotals* totals) {
  const std::string wanted_url = QuarryUrl(images_url, image_id) + "/wanted";
  ASSIGN_OR_RETURN(const bool spoken, IsSpoken(client, wanted_url));
  if (!spoken) return false;

  ProgressBar bar("hash " + name, ProgressBar::Unit::kBytes, quiet);
  ASSIGN_OR_RETURN(const FileChunks chunks, HashChunks(source, [&](uint64_t done) {
                     bar.Update(done, source.size_bytes());
                   }));
  bar.Finish();
  RETURN_IF_ERROR(source.CheckUnchanged());

  const std::string file_url = fmt::format("{}/{}/file", images_url, image_id);
  for (int tried = 0; tried < kTries; ++tried) {
    ASSIGN_OR_RETURN(Wanted wanted, AskAll(client, wanted_url, chunks, totals));
    // The last time without blocks: fewer can be gone.
    ASSIGN_OR_RETURN(const SendPlan plan,
                     PlanToSend(client, images_url, source, chunks, std::move(wanted),
                                /*by_blocks=*/tried + 1 < kTries));
    totals->bytes_zero = chunks.zero_bytes + plan.ZeroBytes();
    totals->bytes_already_there = chunks.size_bytes - totals->bytes_zero - plan.FileBytes(chunks);
    const Result<void> sent = Send(client, file_url, source, chunks, plan, name, quiet, totals);
    if (sent.has_value()) return true;
    if (sent.error().code() != Code::kConflict) return sent.error();
  }
  totals->bytes_zero = 0;
  totals->bytes_already_there = 0;
  return false;
}

}  // namespace controlplane::cli
