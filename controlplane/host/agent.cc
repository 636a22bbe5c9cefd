#include "controlplane/host/agent.h"

#include <cerrno>
#include <cstdlib>
#include <system_error>
#include <utility>

#include <fmt/format.h>
#include <sys/stat.h>

#include "base/files.h"
#include "base/log.h"
#include "base/uuid.h"
#include "controlplane/host/chunk_copy.h"
#include "controlplane/status_service.h"

namespace controlplane::host {

using base::Code;
using base::Error;
using base::Json;
using base::JsonArray;
using base::JsonObject;
using base::Result;
using chunkstore::layers::BlockDiskCache;

namespace {

constexpr int64_t kUpkeepMs = 1'000;
constexpr int64_t kDrainMs = 10'000;
// More than a remote volume waits for its server, and a read of an image for its service: what
// these say is answered, not that it took long.
constexpr int64_t kRequestDeadlineMs = 60'000;
constexpr uint64_t kNbdMemoryBytes = 512 * base::kMiB;
constexpr mode_t kPrivateDirectory = 0700;
constexpr size_t kMetricsThreads = 1;
constexpr size_t kMaxMetricsQueue = 64;

// Its own, or one that is there; never one that others may write to. Its absolute path: guests are
// told it.
Result<std::string> MakePrivateDirectory(const std::string& path) {
  const bool made = ::mkdir(path.c_str(), kPrivateDirectory) == 0;
  if (!made && errno != EEXIST)
    return base::ErrnoError(errno, "make " + path + " (--socket-dir names another)");
  struct stat there{};
  if (::stat(path.c_str(), &there) != 0) return base::ErrnoError(errno, "look at " + path);
  if (!S_ISDIR(there.st_mode)) return Error(Code::kInvalidArgument, path + " is no directory");
  if ((there.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return Error(Code::kInvalidArgument,
                 path +
                     " can be written to by others: name a directory of the agent's own with "
                     "--socket-dir");
  }
  const std::unique_ptr<char, void (*)(void*)> absolute(::realpath(path.c_str(), nullptr),
                                                        std::free);
  if (absolute == nullptr) return base::ErrnoError(errno, "look at " + path);
  return std::string(absolute.get());
}

JsonObject ViewOf(const BlockDiskCache::Dropped& dropped) {
  return {{"blocks", dropped.blocks},
          {"bytes", dropped.bytes},
          {"pinned_blocks", dropped.pinned_blocks}};
}

// Those that a copy wants; each has bytes.
Result<std::vector<uint64_t>> ChunksOf(const Json& request, const Shape& shape) {
  const Json* const list = base::Find(request, "chunks");
  if (list == nullptr || !list->is_array() || list->get_array().size() > kMaxCopiedChunks)
    return Error(Code::kInvalidArgument, fmt::format("a copy is of {} chunks", kMaxCopiedChunks));
  std::vector<uint64_t> chunks;
  for (const Json& member : list->get_array()) {
    std::error_code error;
    const auto number = member.to_number<uint64_t>(error);
    if (error || number >= shape.holes.size() || shape.holes[number])
      return Error(Code::kInvalidArgument, "the image has no such chunk");
    chunks.push_back(number);
  }
  return chunks;
}

}  // namespace

Agent::Agent(const AgentSettings& settings, Services& services)
    : settings_(settings), services_(services) {}

Agent::~Agent() { Stop(); }

Result<std::unique_ptr<Agent>> Agent::Start(const AgentSettings& settings, Services& services) {
  std::unique_ptr<Agent> agent(new Agent(settings, services));
  RETURN_IF_ERROR(agent->Start());
  return agent;
}

Result<void> Agent::Start() {
  ASSIGN_OR_RETURN(std::string dir, MakePrivateDirectory(settings_.socket_dir));
  dir += "/";
  chunkstore::layers::BlockDiskCacheOptions options;
  options.directory = settings_.cache_dir;
  options.limit_bytes = settings_.cache_bytes;
  ASSIGN_OR_RETURN(
      cache_, BlockDiskCache::Open(options, metrics_, base::SystemFiles(), base::SystemClock()));
  tables_ = std::make_unique<Tables>(settings_.tables_bytes, metrics_);
  background_ = std::make_unique<Background>();
  const HostParts parts{*cache_, *tables_, *background_, base::SystemClock(), metrics_};
  images_ = std::make_unique<Images>(
      [this](const Origin& origin) { return services_.OpenRemote(origin); }, parts,
      settings_.images);

  exports_ = std::make_shared<blockd::nbd::Attachments>();
  blockd::nbd::ServerSettings server;
  server.request_deadline_ms = kRequestDeadlineMs;
  server.max_memory_bytes = kNbdMemoryBytes;
  ASSIGN_OR_RETURN(server_, blockd::nbd::Server::Create(server, exports_, metrics_));
  // The control socket first: it tells whether another agent lives. Its commands wait for mutex_.
  base::MutexLock lock(mutex_);
  ASSIGN_OR_RETURN(control_,
                   ControlServer::Start(dir + kControlSocketName,
                                        [this](const Json& request, const ControlOutput& output) {
                                          return Handle(request, output);
                                        }));
  ASSIGN_OR_RETURN(disks_, AttachedDisks::Open(dir + kDisksFileName, dir + kNbdSocketName,
                                               {*exports_, *server_, *images_, services_,
                                                *background_, settings_.remote}));
  // Only now, when every disk is there to be found.
  RETURN_IF_ERROR(server_->ListenUnix(dir + kNbdSocketName));
  RETURN_IF_ERROR(StartMetrics());
  upkeep_ = std::thread([this] { Upkeep(); });
  return {};
}

Result<void> Agent::StartMetrics() {
  if (settings_.metrics_listen.empty()) return {};
  router_ = std::make_unique<base::http::Router>();
  router_->Mount(StatusService(metrics_, false));
  pool_ = std::make_unique<base::async::Pool>("metrics", kMetricsThreads, kMaxMetricsQueue);
  base::http::ServerOptions options;
  options.listen = settings_.metrics_listen;
  options.io_threads = 1;
  ASSIGN_OR_RETURN(http_, base::http::Server::Start(options, *router_, *pool_, metrics_));
  return {};
}

std::string Agent::metrics_address() const { return http_ == nullptr ? "" : http_->address(); }

void Agent::Upkeep() {
  while (true) {
    images_->Upkeep();
    base::MutexLock lock(mutex_);
    if (!stopping_) wake_.WaitForMs(mutex_, kUpkeepMs);
    if (stopping_) return;
  }
}

void Agent::Stop() {
  if (std::exchange(stopped_, true)) return;
  {
    base::MutexLock lock(mutex_);
    stopping_ = true;
    wake_.NotifyAll();
  }
  if (upkeep_.joinable()) upkeep_.join();
  if (http_ != nullptr) http_->Stop();
  if (images_ != nullptr) images_->GiveUp();
  if (control_ != nullptr) control_->Stop();
  const bool drained = server_ == nullptr || server_->Stop(kDrainMs);
  if (background_ != nullptr) background_->Stop();
  if (drained) return;
  // A thread of the server is still in a volume, and what it stands on must not go from under it.
  // What guests were answered is as durable as they were told.
  LOG(kError, "host", "a request hangs at the service: leaving without it");
  std::_Exit(EXIT_FAILURE);
}

Result<Json> Agent::Handle(const Json& request, const ControlOutput& output) {
  {
    base::MutexLock lock(mutex_);
    if (disks_ == nullptr || stopping_)
      return Error(Code::kUnavailable, "the agent is starting, or stopping: try again");
  }
  const std::string what = base::FindString(request, "do").value_or("");
  if (what == "attach") return Attach(request);
  if (what == "detach") return Detach(request);
  if (what == "ls") return List();
  if (what == "stats") return CacheStats();
  if (what == "copy") return Copy(request, output);
  return ChangeCache(what, request, output.progress);
}

Result<Json> Agent::Attach(const Json& request) {
  for (const auto kind : {AttachedDisks::Kind::kImage, AttachedDisks::Kind::kSnapshot,
                          AttachedDisks::Kind::kVolume}) {
    const std::optional<std::string> name = base::FindString(request, NameOf(kind));
    if (!name.has_value()) continue;
    ASSIGN_OR_RETURN(const AttachedDisks::Disk disk, disks_->Attach(kind, *name));
    LOG(kInfo, "host", "attached {} {} as {}", NameOf(kind), disk.object_id, disk.id);
    return Json(controlplane::host::ViewOf(disk, disks_->UriOf(disk)));
  }
  return Error(Code::kInvalidArgument, "what to attach is missing");
}

Result<Json> Agent::Detach(const Json& request) {
  ASSIGN_OR_RETURN(const AttachedDisks::Disk disk,
                   disks_->Detach(base::FindString(request, "disk").value_or("")));
  LOG(kInfo, "host", "detached {} {}, which was {}", NameOf(disk.kind), disk.object_id, disk.id);
  return Json(controlplane::host::ViewOf(disk, disks_->UriOf(disk)));
}

// Whoever asks says the image by its id, and checks what it gets: `quarry image pull`.
Result<Json> Agent::Copy(const Json& request, const ControlOutput& output) {
  const std::string image = base::FindString(request, "image").value_or("");
  if (!base::IsUuid(image)) return Error(Code::kInvalidArgument, "a copy needs an image's id");
  {
    base::MutexLock lock(mutex_);
    if (copies_ == kMaxCopies)
      return Error(Code::kUnavailable, fmt::format("{} images are being copied", kMaxCopies));
    ++copies_;
  }
  const auto copied = [&]() -> Result<void> {
    ASSIGN_OR_RETURN(const auto volume, images_->Open({Origin::Kind::kImage, image}));
    ASSIGN_OR_RETURN(const std::vector<uint64_t> chunks, ChunksOf(request, volume->shape()));
    return CopyChunks(*volume, chunks, [&](const CopiedChunk& chunk) {
      return output.bytes({{"chunk", chunk.number},
                           {"fetched_bytes", chunk.fetched.bytes},
                           {"fetched_plain_bytes", chunk.fetched.plain_bytes}},
                          chunk.bytes);
    });
  }();
  base::MutexLock lock(mutex_);
  --copies_;
  if (!copied.has_value()) return copied.error();
  return Json(JsonObject{{"image", image}});
}

Json Agent::List() {
  JsonArray list;
  for (const AttachedDisks::Listed& listed : disks_->List()) {
    JsonObject view = controlplane::host::ViewOf(listed.disk, disks_->UriOf(listed.disk));
    view["connected"] = listed.connected;
    list.push_back(std::move(view));
  }
  return list;
}

Json Agent::CacheStats() {
  const BlockDiskCache::Stats stats = cache_->stats();
  JsonArray pinned;
  for (const BlockDiskCache::PinnedGroup& group : cache_->PinnedGroups())
    pinned.push_back({{"name", group.name}, {"blocks", group.blocks}, {"bytes", group.bytes}});
  return JsonObject{{"limit_bytes", stats.limit_bytes},
                    {"disk_bytes", stats.disk_bytes},
                    {"blocks", stats.blocks},
                    {"used_bytes", stats.used_bytes},
                    {"pinned_blocks", stats.pinned_blocks},
                    {"pinned_bytes", stats.pinned_bytes},
                    {"hit_blocks", stats.hit_blocks},
                    {"hit_plain_bytes", stats.hit_plain_bytes},
                    {"ahead_blocks", stats.ahead_blocks},
                    {"ahead_plain_bytes", stats.ahead_plain_bytes},
                    {"miss_blocks", stats.miss_blocks},
                    {"miss_plain_bytes", stats.miss_plain_bytes},
                    {"fetched_blocks", stats.fetched_blocks},
                    {"fetched_bytes", stats.fetched_bytes},
                    {"ahead_fetched_bytes", stats.ahead_fetched_bytes},
                    {"evicted_blocks", stats.evicted_blocks},
                    {"damaged_blocks", stats.damaged_blocks},
                    {"unkept_blocks", stats.unkept_blocks},
                    {"writing", stats.writing},
                    {"tables_bytes", tables_->used_bytes()},
                    {"pinned", std::move(pinned)}};
}

Result<Origin> Agent::OriginOf(const Json& request) {
  const std::string image = base::FindString(request, "image").value_or("");
  ASSIGN_OR_RETURN(const Found found, services_.FindImage(image));
  return Origin{Origin::Kind::kImage, found.id};
}

Result<Json> Agent::ChangeCache(const std::string& what, const Json& request,
                                const ControlProgress& progress) {
  if (what == "drop" && base::Find(request, "image") == nullptr) {
    ASSIGN_OR_RETURN(const BlockDiskCache::Dropped dropped, cache_->DropAll());
    return Json(ViewOf(dropped));
  }
  if (what == "unpin") {
    // An image that is gone is named by its id.
    const std::string image = base::FindString(request, "image").value_or("");
    const Result<void> unpinned = images_->Unpin({Origin::Kind::kImage, image});
    if (unpinned.has_value()) return Json(JsonObject{{"image", image}});
  }
  if (what != "warm" && what != "pin" && what != "unpin" && what != "drop")
    return Error(Code::kInvalidArgument, "the agent knows no command '" + what + "'");
  ASSIGN_OR_RETURN(const Origin origin, OriginOf(request));
  JsonObject answer = {{"image", origin.id}};
  if (what == "drop") {
    ASSIGN_OR_RETURN(const BlockDiskCache::Dropped dropped, images_->Drop(origin, progress));
    for (const auto& member : ViewOf(dropped)) answer.emplace(member.key(), member.value());
    return Json(std::move(answer));
  }
  if (what == "unpin") {
    Result<void> unpinned = images_->Unpin(origin);
    if (!unpinned.has_value() && unpinned.error().code() == Code::kNotFound)
      return Error(Code::kNotFound,
                   "that image is not pinned; `quarry cache stats` shows which are");
    RETURN_IF_ERROR(unpinned);
    return Json(std::move(answer));
  }
  if (what == "pin") {
    RETURN_IF_ERROR(images_->Pin(origin, progress));
    return Json(std::move(answer));
  }
  const Json* trace = base::Find(request, "trace");
  const bool trace_only = trace != nullptr && trace->is_bool() && trace->as_bool();
  const uint64_t before = cache_->stats().fetched_bytes;
  RETURN_IF_ERROR(images_->Warm(origin, trace_only, progress));
  answer["fetched_bytes"] = cache_->stats().fetched_bytes - before;
  return Json(std::move(answer));
}

}  // namespace controlplane::host
