#include "controlplane/host/images.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/config.h"
#include "base/log.h"

namespace controlplane::host {

using base::Code;
using base::Error;
using base::Result;
using chunkstore::layers::BlockDiskCache;

namespace {

constexpr int64_t kProgressMs = 100;

// What the cache calls the blocks of an image that are pinned.
std::string GroupOf(const Origin& origin) {
  return (origin.kind == Origin::Kind::kImage ? "image/" : "snapshot/") + origin.id;
}

}  // namespace

Images::Images(OpenRemote open_remote, const HostParts& parts, Options options)
    : open_remote_(std::move(open_remote)),
      parts_(parts),
      options_(options),
      traces_sent_(parts_.metrics.GetCounter("quarry_host_traces_sent_total",
                                             "Boot traces that this host recorded and sent")),
      traces_brought_(parts_.metrics.GetCounter(
          "quarry_host_traces_brought_total",
          "Boot traces whose blocks this host brought ahead of a boot")) {}

Images::~Images() = default;

Result<std::shared_ptr<ImageVolume>> Images::Open(const Origin& origin) {
  std::shared_ptr<Opening> opening;
  {
    base::MutexLock lock(mutex_);
    // What nobody else has in hand, and nobody has open.
    std::erase_if(openings_, [&](const auto& entry) {
      return entry.first != origin && entry.second.use_count() == 1 && entry.second->Expired();
    });
    std::shared_ptr<Opening>& place = openings_[origin];
    if (place == nullptr) place = std::make_shared<Opening>();
    opening = place;
  }
  base::MutexLock lock(opening->mutex);
  if (std::shared_ptr<ImageVolume> there = opening->volume.lock()) return there;
  ASSIGN_OR_RETURN(std::shared_ptr<ImageVolume> volume, OpenAnew(origin));
  opening->volume = volume;
  return volume;
}

Result<std::shared_ptr<ImageVolume>> Images::OpenAnew(const Origin& origin) {
  ASSIGN_OR_RETURN(std::shared_ptr<RemoteImage> remote, open_remote_(origin));
  std::optional<BootTrace> trace;
  bool record = false;
  if (options_.traces) {
    Result<std::optional<BootTrace>> kept = remote->ReadTrace();
    if (kept.has_value()) {
      trace = *std::move(kept);
      // A snapshot keeps none.
      record = !trace.has_value() && origin.kind == Origin::Kind::kImage;
    } else {
      LOG(kWarn, "host", "image {}: its boot trace can't be read: {}", origin.id,
          kept.error().ToString());
    }
  }
  ImageVolume::Options options;
  options.id = origin.id;
  options.patience_ms = options_.patience_ms;
  options.trace_window_ms = record ? options_.trace_window_ms : 0;
  ASSIGN_OR_RETURN(std::shared_ptr<ImageVolume> volume,
                   ImageVolume::Open(std::move(remote), parts_, std::move(options)));
  if (trace.has_value()) BringTrace(volume, *trace);
  base::MutexLock lock(opened_mutex_);
  if (record) recording_.push_back(volume);
  if (gives_up_) volume->GiveUp();
  return volume;
}

void Images::BringTrace(const std::shared_ptr<ImageVolume>& volume, const BootTrace& trace) {
  const auto replay = std::make_shared<Replay>(volume, parts_.background, Replay::OfTrace(trace));
  replay->Start();
  traces_brought_.Add();
  LOG(kInfo, "host", "image {}: bringing what a boot of it reads", volume->id());
}

void Images::Upkeep() {
  std::vector<std::shared_ptr<ImageVolume>> complete;
  {
    base::MutexLock lock(opened_mutex_);
    std::erase_if(recording_, [&](std::shared_ptr<ImageVolume>& volume) {
      const bool ended = volume->recorder()->ended();
      if (ended) complete.push_back(volume);
      // Nobody has it open, and nobody read it.
      return ended || (volume.use_count() == 1 && !volume->recorder()->begun());
    });
  }
  for (const std::shared_ptr<ImageVolume>& volume : complete) {
    const std::optional<BootTrace> trace = volume->recorder()->Take();
    if (!trace.has_value()) continue;
    const Result<void> sent = volume->remote().WriteTrace(*trace);
    if (sent.has_value()) {
      traces_sent_.Add();
      LOG(kInfo, "host", "image {}: sent what its boot read, {} runs of blocks", volume->id(),
          trace->size());
    } else {
      LOG(kWarn, "host", "image {}: its boot trace is not kept: {}", volume->id(),
          sent.error().ToString());
    }
  }
}

Result<void> Images::RunToEnd(const std::shared_ptr<Replay>& replay, const Progress& progress) {
  replay->Start();
  while (true) {
    const Replay::State state = replay->Wait(kProgressMs);
    if (state.ended) {
      if (state.outcome.has_value()) progress(state.done, state.total);
      return state.outcome;
    }
    if (!progress(state.done, state.total)) replay->Cancel();
  }
}

Result<void> Images::Warm(const Origin& origin, bool trace_only, const Progress& progress) {
  ASSIGN_OR_RETURN(const std::shared_ptr<ImageVolume> volume, Open(origin));
  std::vector<Replay::Batch> batches;
  if (trace_only) {
    ASSIGN_OR_RETURN(const std::optional<BootTrace> trace, volume->remote().ReadTrace());
    if (!trace.has_value()) {
      return Error(Code::kNotFound,
                   "no boot trace is kept with this image yet: a host that attaches it records "
                   "one; or warm all of it, without --trace");
    }
    batches = Replay::OfTrace(*trace);
  } else {
    batches = Replay::OfAll(volume->shape());
  }
  return RunToEnd(std::make_shared<Replay>(volume, parts_.background, std::move(batches)),
                  progress);
}

// Several chunks' tables come with one call; one after the other is quick enough.
Result<void> Images::VisitTables(const Origin& origin, const Progress& progress,
                                 const TableVisitor& visit) {
  ASSIGN_OR_RETURN(const std::shared_ptr<ImageVolume> volume, Open(origin));
  const uint64_t chunks = volume->shape().holes.size();
  for (uint64_t chunk = 0; chunk < chunks; ++chunk) {
    if (!progress(chunk, chunks)) return Error(Code::kCancelled, "called off");
    if (volume->shape().holes[chunk]) continue;
    ASSIGN_OR_RETURN(const Tables::Ref table, volume->TableOf(chunk));
    RETURN_IF_ERROR(visit(*table));
  }
  progress(chunks, chunks);
  return {};
}

Result<void> Images::Pin(const Origin& origin, const Progress& progress) {
  RemoteImage::Table blocks;
  uint64_t bytes = 0;
  const uint64_t most = parts_.cache.stats().limit_bytes / BlockDiskCache::kPinnedDivisor;
  RETURN_IF_ERROR(VisitTables(origin, progress, [&](const ChunkTable& table) -> Result<void> {
    for (const chunkstore::layers::BlockInfo& block : table.blocks) bytes += block.stored_length;
    if (bytes > most) {
      return Error(Code::kTooLarge,
                   fmt::format("the image takes more than half of the cache, {}: give it a larger "
                               "--cache-size",
                               base::FormatBytes(most)));
    }
    blocks.insert(blocks.end(), table.blocks.begin(), table.blocks.end());
    return {};
  }));
  return parts_.cache.Pin(GroupOf(origin), blocks);
}

Result<void> Images::Unpin(const Origin& origin) { return parts_.cache.Unpin(GroupOf(origin)); }

Result<BlockDiskCache::Dropped> Images::Drop(const Origin& origin, const Progress& progress) {
  BlockDiskCache::Dropped dropped;
  RETURN_IF_ERROR(VisitTables(origin, progress, [&](const ChunkTable& table) -> Result<void> {
    std::vector<chunkstore::layers::BlockName> names;
    for (const chunkstore::layers::BlockInfo& block : table.blocks) names.push_back(block.name);
    ASSIGN_OR_RETURN(const BlockDiskCache::Dropped some, parts_.cache.Drop(names));
    dropped.blocks += some.blocks;
    dropped.bytes += some.bytes;
    dropped.pinned_blocks += some.pinned_blocks;
    return {};
  }));
  return dropped;
}

void Images::GiveUp() {
  std::vector<std::shared_ptr<Opening>> openings;
  {
    base::MutexLock lock(opened_mutex_);
    gives_up_ = true;
  }
  {
    base::MutexLock lock(mutex_);
    for (const auto& [origin, opening] : openings_) openings.push_back(opening);
  }
  for (const std::shared_ptr<Opening>& opening : openings) {
    base::MutexLock lock(opening->mutex);
    if (const std::shared_ptr<ImageVolume> volume = opening->volume.lock()) volume->GiveUp();
  }
}

}  // namespace controlplane::host
