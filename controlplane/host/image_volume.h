#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/metrics.h"
#include "base/result.h"
#include "blockd/volume.h"
#include "chunkstore/layers/caching.h"
#include "controlplane/host/background.h"
#include "controlplane/host/readahead.h"
#include "controlplane/host/remote_image.h"
#include "controlplane/host/tables.h"
#include "controlplane/host/trace_recorder.h"

namespace controlplane::host {

// What the images that are open on a host share. All of it is borrowed and outlives them.
struct HostParts {
  chunkstore::layers::BlockDiskCache& cache;
  Tables& tables;
  Background& background;
  const base::Clock& clock;
  base::Metrics& metrics;
};

// An image or snapshot as a disk to read: holes are zeros without asking, all else comes through
// the cache of the host. Any number of guests share one.
//
// A block that is not here is asked for as long as `patience_ms` says while the service is down or
// busy; then the read fails (kUnavailable, EIO for a guest), and the next one asks anew. An image
// that was deleted meanwhile goes on as far as it is cached, and fails beyond with kNotFound.
//
// Thread-safe. Writes are kPermissionDenied. Other errors as of BlockSource.
class ImageVolume : public blockd::Volume, public std::enable_shared_from_this<ImageVolume> {
 public:
  static constexpr int64_t kDefaultPatienceMs = 20'000;

  struct Options {
    std::string id;  // for logs
    int64_t patience_ms = kDefaultPatienceMs;
    int64_t trace_window_ms = 0;  // 0: not recorded
  };
  static base::Result<std::shared_ptr<ImageVolume>> Open(std::shared_ptr<RemoteImage> remote,
                                                         const HostParts& parts, Options options);
  ~ImageVolume() override;

  // The image's, made up to whole sectors by zeros.
  uint64_t size_bytes() const override { return size_bytes_; }
  base::Result<void> Read(uint64_t offset, base::MutableByteView into) override;
  base::Result<bool> TryRead(uint64_t offset, base::MutableByteView into) override;
  base::Result<void> Write(uint64_t offset, base::ByteView data) override;
  base::Result<void> Zero(uint64_t offset, uint64_t length, bool free_space) override;
  base::Result<void> Flush() override { return {}; }
  void Prefetch(uint64_t offset, uint64_t length) override;
  base::Result<void> VisitExtents(uint64_t offset, uint64_t length,
                                  const ExtentVisitor& visit) override;

  const std::string& id() const { return options_.id; }
  const Shape& shape() const { return shape_; }
  RemoteImage& remote() { return *remote_; }
  // Null: nothing is recorded.
  TraceRecorder* recorder() { return recorder_.get(); }

  // A chunk that is no hole; kept in memory like those that are read.
  base::Result<Tables::Ref> TableOf(uint64_t chunk);
  // Brings blocks of one chunk into the cache, as far as they are not there; numbers ascend, and
  // what the chunk doesn't have is passed over. Not patient.
  base::Result<void> Warm(uint64_t chunk, std::span<const size_t> numbers);

  // What was brought from the service, and not taken from the cache.
  struct Fetched {
    uint64_t bytes = 0;        // as they came
    uint64_t plain_bytes = 0;  // that they are
  };
  // A whole chunk that is no hole, through the cache, for nobody who waits: it is not recorded, and
  // not patient. REQUIRES: `into` has the chunk's length.
  base::Result<Fetched> CopyChunk(uint64_t chunk, base::MutableByteView into);

  // From now on calls give up at once instead of being patient: the host stops.
  void GiveUp();

 private:
  class Asked;
  class Metered;

  ImageVolume(std::shared_ptr<RemoteImage> remote, const HostParts& parts, Options options,
              Shape shape);
  base::Result<void> ReadPiece(uint64_t chunk, uint32_t offset, base::MutableByteView into);
  base::Result<void> ReadOnce(uint64_t chunk, uint32_t offset, base::MutableByteView into);
  bool Wait(int64_t pause_ms, int64_t until_ns);
  void Record(uint64_t chunk, const ChunkTable& table, uint32_t offset, uint32_t length);
  void WarmRange(uint64_t chunk, uint32_t offset, uint32_t length);
  void BringAhead(uint64_t offset, uint64_t length);
  base::Result<void> CheckRange(uint64_t offset, uint64_t length) const;

  const std::shared_ptr<RemoteImage> remote_;
  const HostParts parts_;
  const Options options_;
  const Shape shape_;
  const uint64_t size_bytes_;
  const uint64_t number_;                     // of this opening: no other has it
  const std::unique_ptr<RemoteImage> asked_;  // remote_, for a reader that waits
  const std::unique_ptr<TraceRecorder> recorder_;
  base::Counter& read_bytes_;
  base::Counter& failed_reads_;
  Readahead readahead_;
  base::Mutex mutex_;
  base::CondVar given_up_;
  bool gives_up_ GUARDED_BY(mutex_) = false;
};

}  // namespace controlplane::host
