#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/thread_annotations.h"
#include "controlplane/host/image_volume.h"
#include "controlplane/host/replay.h"

namespace controlplane::host {

// What a disk is read from.
struct Origin {
  enum class Kind { kImage, kSnapshot };
  Kind kind = Kind::kImage;
  std::string id;
  auto operator<=>(const Origin&) const = default;
};

// The images and snapshots that are open on this host: each once, however many guests read it;
// their boot traces; and what the cache is told to do with them. Thread-safe; calls block.
class Images {
 public:
  // Makes what reads one from the service. kNotFound, kPermissionDenied, kUnavailable.
  using OpenRemote = std::function<base::Result<std::shared_ptr<RemoteImage>>(const Origin&)>;

  struct Options {
    int64_t patience_ms = ImageVolume::kDefaultPatienceMs;
    bool traces = true;  // recorded, sent, and brought ahead of a boot
    int64_t trace_window_ms = 60'000;
  };

  Images(OpenRemote open_remote, const HostParts& parts, Options options);
  ~Images();

  // Opens it, or shares what is open. If a trace is kept with it, that is brought in the background
  // from now on; if none is, the first reads are recorded.
  base::Result<std::shared_ptr<ImageVolume>> Open(const Origin& origin);

  // Sends the traces that are complete. Called now and then.
  void Upkeep();

  // What is done in an image, in batches; false calls it off.
  using Progress = std::function<bool(uint64_t done, uint64_t total)>;
  // Brings a whole image into the cache, or what its trace names (kNotFound without one).
  base::Result<void> Warm(const Origin& origin, bool trace_only, const Progress& progress);
  // See BlockDiskCache. Unpin works without the service.
  base::Result<void> Pin(const Origin& origin, const Progress& progress);
  base::Result<void> Unpin(const Origin& origin);
  base::Result<chunkstore::layers::BlockDiskCache::Dropped> Drop(const Origin& origin,
                                                                 const Progress& progress);

  // Reads that wait for the service give up; new ones fail at once where it is down.
  void GiveUp();

 private:
  struct Opening {
    base::Mutex mutex;  // held while it is opened
    std::weak_ptr<ImageVolume> volume GUARDED_BY(mutex);
    bool Expired() {
      base::MutexLock lock(mutex);
      return volume.expired();
    }
  };

  base::Result<std::shared_ptr<ImageVolume>> OpenAnew(const Origin& origin);
  void BringTrace(const std::shared_ptr<ImageVolume>& volume, const BootTrace& trace);
  using TableVisitor = std::function<base::Result<void>(const ChunkTable& table)>;
  base::Result<void> VisitTables(const Origin& origin, const Progress& progress,
                                 const TableVisitor& visit);
  base::Result<void> RunToEnd(const std::shared_ptr<Replay>& replay, const Progress& progress);

  const OpenRemote open_remote_;
  const HostParts parts_;
  const Options options_;
  base::Counter& traces_sent_;
  base::Counter& traces_brought_;

  // Taken before that of an Opening, and that before the last.
  base::Mutex mutex_;
  std::map<Origin, std::shared_ptr<Opening>> openings_ GUARDED_BY(mutex_);
  base::Mutex opened_mutex_;
  bool gives_up_ GUARDED_BY(opened_mutex_) = false;
  std::vector<std::shared_ptr<ImageVolume>> recording_ GUARDED_BY(opened_mutex_);
};

}  // namespace controlplane::host
