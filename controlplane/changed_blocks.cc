#include "controlplane/changed_blocks.h"

#include <algorithm>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/coding.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/text.h"
#include "blockd/api/errors.h"
#include "chunkstore/map.h"
#include "imaged/policy.h"

namespace controlplane {

using base::Code;
using base::Digest256;
using base::Error;
using base::Result;
using base::auth::Caller;
using base::http::Request;
using base::http::Response;
using chunkstore::kChunkBytes;
using chunkstore::Root;

namespace {

constexpr int64_t kMillisecondUs = 1000;

// Chunks [begin, end) of the newer content: all of them differ, and all or none are zeros now.
struct Run {
  uint64_t begin = 0;
  uint64_t end = 0;
  bool zero = false;
};

struct Page {
  std::vector<Run> runs;
  std::optional<uint64_t> next;  // the chunk to go on with; nothing: that was all
};

// Takes chunks in ascending order until the page is full.
class PageMaker {
 public:
  // `chunks`: of the newer content.
  PageMaker(uint64_t chunks, uint64_t max_runs, uint64_t max_chunks)
      : chunks_(chunks), max_runs_(max_runs), max_chunks_(max_chunks) {}

  // False: enough.
  bool Add(uint64_t index, bool zero) {
    if (index >= chunks_) return false;  // where only the older content reaches
    std::vector<Run>& runs = page_.runs;
    const bool goes_on = !runs.empty() && runs.back().end == index && runs.back().zero == zero;
    if (seen_ == max_chunks_ || (!goes_on && runs.size() == max_runs_)) {
      page_.next = index;
      return false;
    }
    ++seen_;
    if (!goes_on) runs.push_back({index, index, zero});
    runs.back().end = index + 1;
    return true;
  }
  Page Take() { return std::move(page_); }

 private:
  const uint64_t chunks_;
  const uint64_t max_runs_;
  const uint64_t max_chunks_;
  uint64_t seen_ = 0;
  Page page_;
};

// What the chunks from `from` on of `now` are compared with is `then`, or zeros.
Result<Page> Compare(chunkstore::ChunkStore& store, const Root& now,
                     const std::optional<Root>& then, uint64_t from, PageMaker maker) {
  if (then.has_value()) {
    RETURN_IF_ERROR(store.Diff(
        now, *then, from,
        [&](uint64_t index, const std::optional<Digest256>& id, const std::optional<Digest256>&) {
          return maker.Add(index, !id.has_value());
        }));
  } else {
    ASSIGN_OR_RETURN(const auto content, store.Open(now));
    RETURN_IF_ERROR(content->VisitChunks(from, UINT64_MAX, [&](uint64_t index, const Digest256&) {
      return maker.Add(index, false);
    }));
  }
  return maker.Take();
}

// Nothing: the default.
Result<uint64_t> MaxRuns(std::optional<std::string_view> limit) {
  if (!limit.has_value()) return kChangedRuns;
  const uint64_t runs = base::ParseNumber<uint64_t>(*limit).value_or(0);
  if (runs >= 1 && runs <= kMaxChangedRuns) return runs;
  return Error(Code::kInvalidArgument,
               fmt::format("limit must be a number from 1 to {}", kMaxChangedRuns));
}

// --- tokens: the place and the time it expires, and the HMAC of both

std::string Fields(uint64_t next, int64_t expires_us) {
  std::string fields;
  base::PutFixed(&fields, next);
  base::PutFixed(&fields, static_cast<uint64_t>(expires_us));
  return fields;
}

std::string Proof(std::string_view fields, const Root& now, const std::optional<Root>& then) {
  std::string key = "changed blocks";
  for (const std::optional<Root>& root : {std::optional(now), then}) {
    if (root.has_value()) key += root->id.view();
  }
  const auto proof = base::HmacSha256(key, fields);
  return std::string(proof.begin(), proof.end());
}

Error NotOfThis() {
  return Error(Code::kInvalidArgument,
               "page_token is not one that this comparison gave: begin again without it");
}

base::JsonArray ViewOf(const std::vector<Run>& runs, uint64_t size_bytes) {
  base::JsonArray view;
  for (const Run& run : runs) {
    const uint64_t offset = run.begin * kChunkBytes;
    view.push_back(
        base::JsonObject{{"offset", offset},
                         {"length", std::min(run.end * kChunkBytes, size_bytes) - offset},
                         {"zero", run.zero}});
  }
  return view;
}

// --- what an id names

Result<Root> FindImage(imaged::Catalog& images, const Caller& caller, std::string_view id) {
  ASSIGN_OR_RETURN(const imaged::Image image, images.Get(id));
  RETURN_IF_ERROR(imaged::CheckDownload(caller, image));
  if (image.data.has_value()) return image.data->root;
  return Error(Code::kConflict, fmt::format("Image {} has no data to compare: it is {}", image.id,
                                            imaged::StatusName(image.status)));
}

}  // namespace

Result<Root> ChangedBlocks::Find(const Caller& caller, Kind kind, std::string_view id) {
  return kind == Kind::kImage ? FindImage(parts_.images, caller, id)
                              : FindSnapshot(parts_.snapshots, caller, id);
}

Result<Root> ChangedBlocks::FindEither(const Caller& caller, std::string_view id) {
  for (const Kind kind : {Kind::kImage, Kind::kSnapshot}) {
    Result<Root> found = Find(caller, kind, id);
    if (found.has_value() || found.error().code() != Code::kNotFound) return found;
  }
  return Error(Code::kNotFound,
               fmt::format("since: no image or snapshot has the ID {}", blockd::api::Echo(id)));
}

Result<ChangedBlocks::Sides> ChangedBlocks::FindSides(const Caller& caller, Kind kind,
                                                      std::string_view id,
                                                      std::optional<std::string_view> since) {
  Sides sides;
  ASSIGN_OR_RETURN(sides.now, Find(caller, kind, id));
  if (since.has_value()) {
    ASSIGN_OR_RETURN(sides.then, FindEither(caller, *since));
  }
  return sides;
}

Result<uint64_t> ChangedBlocks::PlaceOf(std::string_view token, const Sides& sides) {
  const Result<std::string> bytes = base::FromBase64Url(token);
  if (!bytes.has_value()) return NotOfThis();
  base::Decoder decoder(*bytes);
  const Result<uint64_t> next = decoder.Fixed<uint64_t>();
  const Result<uint64_t> expires_us = decoder.Fixed<uint64_t>();
  if (!expires_us.has_value()) return NotOfThis();
  const std::string_view fields = std::string_view(*bytes).substr(0, 2 * sizeof(uint64_t));
  const std::string_view proof = std::string_view(*bytes).substr(fields.size());
  if (!base::SecretsEqual(proof, Proof(fields, sides.now, sides.then))) return NotOfThis();
  if (parts_.clock.NowUs() < static_cast<int64_t>(*expires_us)) return *next;
  return Error(Code::kInvalidArgument, "page_token has expired: begin again without it");
}

Result<Response> ChangedBlocks::Answer(const Caller& caller, Kind kind, std::string_view id,
                                       const Request& request) {
  ASSIGN_OR_RETURN(const uint64_t max_runs, MaxRuns(request.Query("limit")));
  const auto since = request.Query("since");
  ASSIGN_OR_RETURN(const Sides sides, FindSides(caller, kind, id, since));
  const auto token = request.Query("page_token");
  uint64_t from = 0;
  if (token.has_value()) {
    ASSIGN_OR_RETURN(from, PlaceOf(*token, sides));
  }
  const Result<Page> page = Compare(
      parts_.store, sides.now, sides.then, from,
      PageMaker(chunkstore::ChunkCount(sides.now.size_bytes), max_runs, parts_.page_chunks));
  if (!page.has_value()) {
    // What is deleted meanwhile may lose its map under the comparison: then say that it is gone.
    RETURN_IF_ERROR(FindSides(caller, kind, id, since));
    return page.error();
  }
  base::JsonObject answer = {{"size", sides.now.size_bytes},
                             {"block_size", kChunkBytes},
                             {"changed", ViewOf(page->runs, sides.now.size_bytes)}};
  if (page->next.has_value()) {
    const int64_t expires_us = parts_.clock.NowUs() + kPageTokenMs * kMillisecondUs;
    const std::string fields = Fields(*page->next, expires_us);
    answer["next_page_token"] = base::ToBase64Url(fields + Proof(fields, sides.now, sides.then));
    answer["expires_at"] = base::FormatTimeSeconds(expires_us);
  }
  return Response::OfJson(200, answer);
}

base::http::Route ChangedBlocks::ImageRoute() {
  base::http::Route route;
  route.method = "GET";
  route.pattern = "/v2/images/{image_id}/changed";
  route.handler = [this](const Request& request) {
    return Answer(*request.caller, Kind::kImage, request.Param("image_id"), request);
  };
  return route;
}

blockd::api::Route ChangedBlocks::SnapshotRoute() {
  blockd::api::Route route;
  route.method = "GET";
  route.pattern = "/snapshots/{snapshot_id}/changed";
  route.handler = [this](const blockd::api::Call& call) {
    return Answer(call.caller, Kind::kSnapshot, call.Param("snapshot_id"), call.request);
  };
  return route;
}

}  // namespace controlplane
