#include <algorithm>
#include <chrono>
#include <utility>

#include "base/log.h"
#include "base/uuid.h"
#include "blockd/chunk/chunk_volume_store.h"

// What the background thread of the store of volumes does, but for sealing.

namespace blockd::chunk {

using base::Result;

namespace {

constexpr int64_t kIdleMs = 1000;  // between rounds that find nothing to seal
// How long the space that trims left is given back of one volume before another has its turn, and
// of all when the service stops: the rest keeps its place until its layer is sealed.
constexpr std::chrono::milliseconds kPunchTurn{200};
constexpr std::chrono::seconds kPunchAtStop{3};

}  // namespace

void ChunkVolumeStore::Run() {
  while (!stopping_) {
    if (Tidy()) continue;
    base::MutexLock lock(mutex_);
    if (!stopping_) wake_.WaitForMs(mutex_, kIdleMs);
  }
}

// By a thread of its own: a sealing takes long, and snapshots that come meanwhile take spares.
void ChunkVolumeStore::RunSpares() {
  while (!stopping_) {
    const bool made = MakeSpares();
    base::MutexLock lock(mutex_);
    // After a failure (a full disk, say) not at once again.
    if (!made && !stopping_) wake_spares_.WaitForMs(mutex_, kIdleMs);
    while (made && !stopping_ && spares_.size() >= kSpareLayers) wake_spares_.Wait(mutex_);
  }
}

// By a thread of its own: on a busy disk a hole takes long.
void ChunkVolumeStore::RunHoles() {
  auto until = std::chrono::steady_clock::time_point::max();
  while (std::chrono::steady_clock::now() < until) {
    const bool punched = PunchHoles();
    base::MutexLock lock(mutex_);
    if (stopping_ && !punched) return;
    if (stopping_) until = std::min(until, std::chrono::steady_clock::now() + kPunchAtStop);
    if (!punched) wake_holes_.WaitForMs(mutex_, kIdleMs);
  }
}

// One turn of each volume; false when there was nothing to do.
bool ChunkVolumeStore::PunchHoles() {
  bool any = false;
  std::string last;
  for (;;) {
    std::shared_ptr<ChunkVolume> volume;
    {
      base::MutexLock lock(mutex_);
      auto next = open_volumes_.upper_bound(last);
      while (next != open_volumes_.end() && !next->second->has_holes()) ++next;
      if (next == open_volumes_.end()) return any;
      last = punched_ = next->first;
      volume = next->second;
    }
    any = true;
    const auto until = std::chrono::steady_clock::now() + kPunchTurn;
    while (volume->PunchSome() && std::chrono::steady_clock::now() < until) {
    }
    base::MutexLock lock(mutex_);
    punched_.clear();
    volume.reset();
  }
}

bool ChunkVolumeStore::Tidy() {
  RemoveDeadFiles();
  ReleaseDeadHolders();
  CloseIdle();
  if (!options_.background) {
    MakeSpares();
    PunchHoles();
  }
  Result<bool> sealed = SealNext();
  if (sealed) return *sealed;
  if (!stopping_) LOG(kWarn, "blockd", "sealing a layer: {}", sealed.error().ToString());
  return false;
}

void ChunkVolumeStore::RemoveDeadFiles() {
  std::vector<std::string> dead;
  {
    base::MutexLock lock(mutex_);
    dead.swap(dead_layers_);
  }
  for (const std::string& id : dead) {
    Result<void> removed = Layer::Remove(files_, options_.dir, id, live_);
    if (removed) continue;
    LOG(kWarn, "blockd", "removing layer {}: {}", id, removed.error().ToString());
    base::MutexLock lock(mutex_);
    dead_layers_.push_back(id);
  }
}

void ChunkVolumeStore::ReleaseDeadHolders() {
  std::vector<DeadHolder> dead;
  {
    base::MutexLock lock(mutex_);
    dead.swap(dead_holders_);
  }
  for (DeadHolder& one : dead) {
    // Nobody comes to read it any more, but who began before may still.
    const bool read = one.content && one.content.use_count() > 1;
    Result<void> released;
    if (!read) released = chunks_.Release(one.holder);
    if (!read && released) continue;
    if (!released) LOG(kWarn, "blockd", "{}: {}", one.holder, released.error().ToString());
    base::MutexLock lock(mutex_);
    dead_holders_.push_back(std::move(one));
  }
}

// Files and contents that no volume in use needs. A layer that isn't clean is flushed, and closed
// in a later round. New references are made under the lock only, so under it a count of one stays.
void ChunkVolumeStore::CloseIdle() {
  std::vector<std::shared_ptr<Layer>> to_flush;
  {
    base::MutexLock lock(mutex_);
    std::erase_if(open_volumes_, [&](const auto& open) {
      if (open.second.use_count() > 1) return false;
      bool clean = !open.second->has_holes();
      for (const std::shared_ptr<Layer>& layer : open.second->stack()->layers()) {
        if (layer->clean()) continue;
        clean = false;
        to_flush.push_back(layer);
      }
      return clean;
    });
    std::erase_if(open_layers_, [&](const auto& open) {
      if (open.second.use_count() > 1) return false;
      if (!open.second->clean()) to_flush.push_back(open.second);
      return open.second->clean();
    });
    std::erase_if(contents_, [](const auto& open) { return open.second.use_count() == 1; });
  }
  for (const std::shared_ptr<Layer>& layer : to_flush) {
    Result<void> flushed = layer->Flush();
    if (!flushed)
      LOG(kError, "blockd", "flushing layer {}: {}", layer->id(), flushed.error().ToString());
  }
}

// False if one could not be made.
bool ChunkVolumeStore::MakeSpares() {
  for (;;) {
    {
      base::MutexLock lock(mutex_);
      if (spares_.size() >= kSpareLayers || stopping_) return true;
    }
    const std::string id = base::NewUuidHex();
    Result<std::shared_ptr<Layer>> made = Layer::Create(files_, options_.dir, id, live_);
    base::MutexLock lock(mutex_);
    if (!made) {
      dead_layers_.push_back(id);
      return false;  // whoever needs one makes it, and is told why it can't be
    }
    spares_.push_back(*std::move(made));
  }
}

}  // namespace blockd::chunk
