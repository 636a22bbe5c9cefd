#include "controlplane/cli/image_pull.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "base/config.h"
#include "base/files.h"
#include "chunkstore/chunk_store.h"
#include "chunkstore/map.h"
#include "controlplane/cli/chunk_assembly.h"
#include "controlplane/cli/host_copy.h"
#include "controlplane/cli/image_chunks.h"
#include "controlplane/cli/image_requests.h"
#include "controlplane/cli/image_source.h"
#include "controlplane/cli/image_transfer.h"
#include "controlplane/cli/interrupt.h"
#include "controlplane/cli/progress.h"
#include "controlplane/host/agent.h"
#include "imaged/chunk_receiver.h"
#include "imaged/chunk_wire.h"

namespace controlplane::cli {
namespace {

using base::ByteView;
using base::Code;
using base::Digest256;
using base::Error;
using base::Json;
using base::JsonObject;
using base::Result;
using base::http::ClientRequest;
using base::http::Headers;
using base::http::Response;
using imaged::ChunkList;
using imaged::ChunkReceiver;

constexpr uint64_t kResumeGridBytes = 1 * base::kMiB;

struct PullTotals {
  uint64_t zero_bytes = 0;
  uint64_t here_bytes = 0;     // of the image's other bytes, what was on this machine
  uint64_t resumed_bytes = 0;  // of those, what an earlier pull had left
  uint64_t cached_bytes = 0;   // of those, what the cache of this host had
  uint64_t fetched_bytes = 0;  // of answers' bodies; and of blocks, by the agent of this host
};

// One pull: what its steps all need.
struct Pull {
  ApiClient& client;
  const std::string images_url;
  const std::string id;
  const std::string name;  // for titles
  const uint64_t size;
  const std::string part_path;
  base::File& part;
  const PullOptions& options;
  const bool quiet;
  PullTotals totals;
};

std::string ChunksUrl(const Pull& pull) { return QuarryUrl(pull.images_url, pull.id) + "/chunks"; }

// The ids from number `first` on; nothing if the service does not speak this.
Result<std::optional<ChunkList>> FetchList(Pull& pull, uint64_t first) {
  ClientRequest request = Ask("GET", fmt::format("{}?from={}", ChunksUrl(pull), first));
  request.headers.Set("Accept", fmt::format("{}, application/json", imaged::kChunkListType));
  const Result<Response> answer = pull.client.Call(std::move(request));
  if (!answer.has_value()) {
    if (IsNotSpoken(answer.error())) return std::optional<ChunkList>();
    return answer.error();
  }
  if (answer->headers.Get("Content-Type") != imaged::kChunkListType) {
    return std::optional<ChunkList>();
  }
  pull.totals.fetched_bytes += answer->body.size();
  ASSIGN_OR_RETURN(ChunkList list, imaged::DecodeChunkList(answer->body));
  return std::optional(std::move(list));
}

// The ids of all chunks; nothing if the service does not speak this.
Result<std::optional<FileChunks>> FetchMap(Pull& pull) {
  FileChunks map;
  map.size_bytes = pull.size;
  const uint64_t chunks = chunkstore::ChunkCount(pull.size);
  do {
    ASSIGN_OR_RETURN(const std::optional<ChunkList> list, FetchList(pull, map.ids.size()));
    if (!list.has_value() && map.ids.empty()) return std::optional<FileChunks>();
    const bool fits = list.has_value() && list->size_bytes == pull.size &&
                      list->first == map.ids.size() && (!list->ids.empty() || chunks == 0);
    if (!fits) return Error(Code::kCorruption, "the service's list of chunks is not the image's");
    map.ids.insert(map.ids.end(), list->ids.begin(), list->ids.end());
  } while (map.ids.size() < chunks);
  for (uint64_t i = 0; i < chunks; ++i) {
    if (imaged::IsHole(map.ids[i])) map.zero_bytes += chunkstore::ChunkLength(i, pull.size);
  }
  return std::optional(std::move(map));
}

// What an earlier pull, or nobody, has left in the part.
Result<FileChunks> LookThroughPart(Pull& pull) {
  ASSIGN_OR_RETURN(const uint64_t part_bytes, pull.part.Size());
  RETURN_IF_ERROR(pull.part.Truncate(pull.size));
  ASSIGN_OR_RETURN(const auto source, ImageSource::Open(pull.part_path));
  ProgressBar bar("look through what came before", ProgressBar::Unit::kBytes,
                  pull.quiet || part_bytes == 0);
  return HashChunks(*source, [&](uint64_t done) { bar.Update(done, pull.size); });
}

// Takes what the file has at its multiples of 4 MiB.
Result<void> TakeFrom(const Pull& pull, const std::string& path, ChunkAssembly& assembly) {
  if (assembly.complete_bytes() == pull.size) return {};
  ASSIGN_OR_RETURN(const auto source, ImageSource::Open(path));
  if (source->file() == nullptr) {
    return Error(Code::kInvalidArgument, fmt::format("{} is no file to take bytes from", path));
  }
  ProgressBar bar("look through " + FileName(path), ProgressBar::Unit::kBytes, pull.quiet);
  const auto take = [&](uint64_t number, const Digest256& id, ByteView bytes) -> Result<void> {
    bar.Update(number * chunkstore::kChunkBytes + bytes.size(), source->size_bytes());
    return assembly.Put(id, bytes);
  };
  return VisitChunks(*source, take).Annotate("taking bytes from " + path);
}

// Fetches as much as one request may ask for.
Result<void> FetchSome(Pull& pull, const FileChunks& map, ChunkAssembly& assembly,
                       std::vector<imaged::ChunkRun> runs, ProgressBar& bar,
                       const std::string& note) {
  ClientRequest request = Ask("POST", ChunksUrl(pull));
  request.headers.Set("Content-Type", "application/json");
  request.headers.Set("Accept", fmt::format("{}, application/json", imaged::kChunkBytesType));
  request.headers.Set("Accept-Encoding", "zstd");
  request.body = imaged::EncodeWanted(runs);
  ChunkReceiver receiver(pull.size, map.ids, std::move(runs),
                         [&](uint64_t number, ByteView bytes) -> Result<void> {
                           return assembly.Put(map.ids[number], bytes);
                         });
  request.head_sink = [&](const Headers& headers) { return receiver.Begin(headers); };
  request.body_sink = [&](ByteView bytes) -> Result<void> {
    RETURN_IF_ERROR(CheckInterrupt());
    RETURN_IF_ERROR(receiver.Take(bytes));
    bar.Update(assembly.complete_bytes(), pull.size, note);
    return {};
  };
  const Result<Response> answer = pull.client.Call(std::move(request));
  pull.totals.fetched_bytes += receiver.wire_bytes();
  if (!answer.has_value()) return answer.error();
  return receiver.End();
}

std::string HereNote(const Pull& pull) {
  const uint64_t data = pull.size - pull.totals.zero_bytes;
  const uint64_t here = pull.totals.here_bytes;
  return here == 0 ? "" : fmt::format("already here: {} %", here * 100 / data);
}

// What the agent said is taken if it has its id. Its bytes are the cache's as far as they were not
// fetched for it.
Result<void> TakeFromHost(Pull& pull, const FileChunks& map, ChunkAssembly& assembly,
                          const HostChunk& chunk) {
  RETURN_IF_ERROR(CheckInterrupt());
  pull.totals.fetched_bytes += chunk.fetched_bytes;
  if (chunk.number >= map.ids.size() || base::Sha256(chunk.bytes) != map.ids[chunk.number])
    return {};
  const uint64_t before = assembly.complete_bytes();
  RETURN_IF_ERROR(assembly.Put(map.ids[chunk.number], chunk.bytes));
  const uint64_t came = assembly.complete_bytes() - before;
  const uint64_t cached = came - std::min(came, chunk.fetched_plain_bytes);
  pull.totals.cached_bytes += cached;
  pull.totals.here_bytes += cached;
  return {};
}

// What is lacking, through the cache of this host. What its agent does not bring, or brings wrong,
// is left to the service.
Result<void> PullThroughHost(Pull& pull, const FileChunks& map, ChunkAssembly& assembly,
                             ProgressBar& bar) {
  const PullOptions& options = pull.options;
  if (options.agent_socket_dir.empty()) return {};
  const auto take = [&](const HostChunk& chunk) -> Result<void> {
    RETURN_IF_ERROR(TakeFromHost(pull, map, assembly, chunk));
    bar.Update(assembly.complete_bytes(), pull.size, HereNote(pull));
    return {};
  };
  while (true) {
    const std::vector<imaged::ChunkRun> runs = assembly.Missing(host::kMaxCopiedChunks);
    if (runs.empty()) return {};
    const uint64_t before = assembly.complete_bytes();
    bool ours = false;
    Result<void> copied = CopyFromHost(options.agent_socket_dir, pull.id, runs, take, &ours);
    if (ours) return copied;
    const bool wrong = copied.has_value() && assembly.complete_bytes() == before;
    if (wrong) copied = Error(Code::kCorruption, "its agent sends other bytes than the image's");
    if (copied.has_value()) continue;
    // That there is none, or none for this user, is usual.
    const Code code = copied.error().code();
    const bool usual = code == Code::kUnavailable || code == Code::kPermissionDenied;
    if (!usual || options.agent_expected || assembly.complete_bytes() != before) {
      fmt::print(stderr, "quarry: going on without the cache of this host: {}\n",
                 copied.error().message());
    }
    return {};
  }
}

// False if the service does not know how; then nothing was touched.
Result<bool> PullByChunks(Pull& pull, const std::vector<std::string>& from) {
  ASSIGN_OR_RETURN(const std::optional<FileChunks> map, FetchMap(pull));
  if (!map.has_value()) return false;
  ASSIGN_OR_RETURN(const FileChunks there, LookThroughPart(pull));
  ChunkAssembly assembly(pull.part, *map, there);
  RETURN_IF_ERROR(assembly.ClearHoles());
  const auto data_here = [&] { return assembly.complete_bytes() - map->zero_bytes; };
  pull.totals.zero_bytes = map->zero_bytes;
  pull.totals.resumed_bytes = data_here();
  for (const std::string& path : from) RETURN_IF_ERROR(TakeFrom(pull, path, assembly));
  pull.totals.here_bytes = data_here();
  ProgressBar bar("pull " + pull.name, ProgressBar::Unit::kBytes, pull.quiet);
  bar.Update(assembly.complete_bytes(), pull.size, HereNote(pull));
  RETURN_IF_ERROR(PullThroughHost(pull, *map, assembly, bar));
  const std::string note = HereNote(pull);
  while (true) {
    std::vector<imaged::ChunkRun> runs = assembly.Missing(imaged::kMaxListedChunks);
    if (runs.empty()) break;
    RETURN_IF_ERROR(FetchSome(pull, *map, assembly, std::move(runs), bar, note));
  }
  bar.Finish();
  return true;
}

// All of it, from where an earlier pull had come, through the plain Image API.
Result<void> PullPlainly(Pull& pull) {
  ASSIGN_OR_RETURN(const uint64_t part_bytes, pull.part.Size());
  // A broken-off pull may have left a hole at its end that is data.
  const uint64_t resumed = std::min(part_bytes, pull.size) / kResumeGridBytes * kResumeGridBytes;
  RETURN_IF_ERROR(pull.part.Truncate(resumed));
  pull.totals.resumed_bytes = pull.totals.here_bytes = resumed;
  if (resumed == pull.size) return {};
  SparseWriter writer(pull.part, resumed);
  ProgressBar bar("pull " + pull.name, ProgressBar::Unit::kBytes, pull.quiet);
  const std::string note =
      resumed == 0 ? "" : fmt::format("already here: {} %", resumed * 100 / pull.size);
  bar.Update(resumed, pull.size, note);
  ClientRequest request = Ask("GET", fmt::format("{}/{}/file", pull.images_url, pull.id));
  request.headers.Set("Accept", "application/octet-stream");
  if (resumed > 0) request.headers.Set("Range", fmt::format("bytes={}-", resumed));
  request.body_sink = [&](ByteView bytes) -> Result<void> {
    RETURN_IF_ERROR(CheckInterrupt());
    if (bytes.size() > pull.size - writer.offset()) {
      return Error(Code::kCorruption, "the service sent more than the image's size");
    }
    RETURN_IF_ERROR(writer.Write(bytes));
    pull.totals.fetched_bytes += bytes.size();
    bar.Update(writer.offset(), pull.size, note);
    return {};
  };
  ASSIGN_OR_RETURN(const Response response, pull.client.Call(std::move(request)));
  if (resumed > 0 && response.status != 206) {
    return Error(Code::kIo,
                 fmt::format("asked for a part, the service answered {}", response.status));
  }
  if (writer.offset() != pull.size) {
    return Error(Code::kIo,
                 fmt::format("the service sent {} of {} bytes", writer.offset(), pull.size));
  }
  return pull.part.Truncate(pull.size);
}

Result<void> Fill(Pull& pull, const std::vector<std::string>& from) {
  ASSIGN_OR_RETURN(const bool done, PullByChunks(pull, from));
  if (done) return {};
  return PullPlainly(pull);
}

// Whether the file has the digest that the image shows; nothing if it shows none.
Result<std::optional<bool>> Verify(const Json& image, const base::File& file, uint64_t size,
                                   const std::string& title, bool quiet) {
  auto algorithm = base::FindString(image, "os_hash_algo");
  auto value = base::FindString(image, "os_hash_value");
  if (!algorithm || !value) {
    algorithm = "md5";
    value = base::FindString(image, "checksum");
    if (!value) return std::optional<bool>();
  }
  ASSIGN_OR_RETURN(const std::string digest, DigestOfFile(file, size, *algorithm, title, quiet));
  return std::optional<bool>(digest == *value);
}

// The size of an image that has data.
Result<uint64_t> SizeOf(const Json& image, const std::string& id) {
  const auto size = base::FindUint(image, "size");
  if (base::FindString(image, "status") == "active" && size.has_value()) return *size;
  return Error(Code::kConflict, fmt::format("image {} has no data to pull: its status is '{}'", id,
                                            base::FindString(image, "status").value_or("unknown")));
}

}  // namespace

Result<Json> PullImage(ApiClient& client, const std::string& image_name, const std::string& path,
                       const PullOptions& options) {
  base::Files& files = base::SystemFiles();
  std::vector<std::string> from = options.from;
  for (const std::string& source : from) {
    ASSIGN_OR_RETURN(const base::FileInfo info, files.Stat(source));
    if (!info.is_directory) continue;
    return Error(Code::kInvalidArgument,
                 fmt::format("{} is a directory, not a disk image", source));
  }
  if (files.Stat(path).has_value()) {
    if (!options.force) {
      return Error(Code::kConflict,
                   fmt::format("{} is there already; --force puts the image in its place", path));
    }
    from.push_back(path);
  }
  ASSIGN_OR_RETURN(const Json image, FindImage(client, image_name));
  const std::string id = base::FindString(image, "id").value_or("");
  const std::string name = base::FindString(image, "name").value_or(id);
  ASSIGN_OR_RETURN(const uint64_t size, SizeOf(image, id));
  if (size > chunkstore::kMaxContentBytes) {
    return Error(Code::kTooLarge, fmt::format("image {} claims to have {} bytes", id, size));
  }
  ASSIGN_OR_RETURN(const std::string images_url, ImagesUrl(client));

  // The part is the image's own: another image's leftovers are never gone on with.
  const std::string part_path = fmt::format("{}.{}.part", path, id);
  ASSIGN_OR_RETURN(const auto file, files.Open(part_path, base::Files::Mode::kCreateOrOpen));
  Pull pull{.client = client,
            .images_url = images_url,
            .id = id,
            .name = name,
            .size = size,
            .part_path = part_path,
            .part = *file,
            .options = options,
            .quiet = options.quiet,
            .totals = {}};
  if (const Result<void> filled = Fill(pull, from); !filled.has_value()) {
    return filled.error().Annotate(fmt::format(
        "pull of image {} broke off; what came lies in {}: the same command goes on there", id,
        part_path));
  }
  ASSIGN_OR_RETURN(const std::optional<bool> verified,
                   Verify(image, *file, size, "verify " + FileName(path), options.quiet));
  if (verified == false) {
    RETURN_IF_ERROR(files.Remove(part_path));
    return Error(
        Code::kCorruption,
        fmt::format("what came is not image {} ({}): its digest differs; nothing was kept. Pull "
                    "again; if it stays so, have its store scrubbed (quarry scrub)",
                    name, id));
  }
  RETURN_IF_ERROR(file->Sync());
  RETURN_IF_ERROR(files.Rename(part_path, path));
  return JsonObject{{"id", id},
                    {"path", path},
                    {"size", size},
                    {"verified", verified.has_value()},
                    {"bytes_total", size},
                    {"bytes_zero", pull.totals.zero_bytes},
                    {"bytes_already_here", pull.totals.here_bytes},
                    {"bytes_fetched", pull.totals.fetched_bytes},
                    {"bytes_from_cache", pull.totals.cached_bytes},
                    {"resumed_bytes", pull.totals.resumed_bytes}};
}

std::string PullSummary(const Json& pulled) {
  const auto number = [&](std::string_view key) { return base::FindUint(pulled, key).value_or(0); };
  const uint64_t total = number("bytes_total");
  const uint64_t data = total - std::min(total, number("bytes_zero"));
  const uint64_t here = number("bytes_already_here");
  if (total == 0) return "empty";
  if (data == 0) return "nothing but zeros";
  const uint64_t cached = number("bytes_from_cache");
  return fmt::format(
      "fetched {} of {}{}{}", base::FormatBytes(number("bytes_fetched")), base::FormatBytes(total),
      here == 0 ? "" : fmt::format("; {} % was here", here * 100 / data),
      cached == 0 ? "" : fmt::format(", {} of it in the host's cache", base::FormatBytes(cached)));
}

}  // namespace controlplane::cli
