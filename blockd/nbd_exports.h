#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "base/clock.h"
#include "base/metrics.h"
#include "base/thread_annotations.h"
#include "blockd/exports.h"
#include "blockd/nbd/attachments.h"
#include "blockd/nbd/metrics.h"
#include "blockd/nbd/server.h"
#include "blockd/qos/project.h"
#include "blockd/volume_store.h"

namespace blockd {

// How clients reach the server.
struct NbdAddress {
  std::string host;  // as compute hosts know it
  uint16_t port = 0;
  bool tls = false;    // clients must use it
  std::string socket;  // a path, for clients on this machine; may be empty
};

// Exports of volumes by the NBD server beside us. The name of one is "<attachment>.<secret>":
// whoever has it is who attached. Thread-safe.
class NbdExports : public Exports {
 public:
  // What limits the volumes: the clock and, to let go what waits, the timer.
  struct Pace {
    const base::Clock& clock;
    qos::Timer* timer = nullptr;  // may be null in tests
    base::Metrics* metrics = nullptr;
  };
  // Whether a snapshot is one of this project, who may then learn what changed since; null: any is.
  // (A volume that went to another project may have left its snapshots behind.)
  using SnapshotRight =
      std::function<base::Result<bool>(std::string_view project_id, std::string_view snapshot_id)>;
  // The holder in the chunk store of an image's bytes, as its file has them, for who may read it in
  // this project; kNotFound otherwise, and for one whose file is not a disk's bytes. Null: none is.
  using ImageHolder = std::function<base::Result<std::string>(std::string_view project_id,
                                                              std::string_view image_id)>;
  // Borrowed, all of it: outlives the exports. `attachments` is what the server serves.
  NbdExports(NbdAddress address, VolumeStore& store, nbd::Attachments& attachments,
             nbd::Server& server, Pace pace, SnapshotRight snapshot_right = nullptr,
             ImageHolder image_holder = nullptr)
      : address_(std::move(address)),
        store_(store),
        attachments_(attachments),
        server_(server),
        pace_(pace),
        snapshot_right_(std::move(snapshot_right)),
        image_holder_(std::move(image_holder)) {}

  // Asked before an attachment's volume is opened for its first client; an error refuses him. Set
  // before the server listens.
  using BeforeOpen = std::function<base::Result<void>(const std::string& attachment_id)>;
  void SetBeforeOpen(BeforeOpen before_open) { before_open_ = std::move(before_open); }

  // The port is known: that of clients which ask from now on. Where `address` has one it may be
  // left out.
  void ListensOn(uint16_t port);

  base::Result<base::JsonObject> Publish(const ExportSpec& spec) override;
  // kUnavailable while a write of a client that was cut off is still at the back end: again later.
  base::Result<void> Withdraw(std::string_view attachment_id) override;
  bool IsConnected(std::string_view attachment_id) override;
  std::vector<std::string> Published() override;
  base::Result<void> SetLimits(std::string_view volume_id, uint64_t size_gb,
                               const std::map<std::string, std::string>& qos) override;
  base::Result<void> SetProjectLimits(std::string_view project_id,
                                      const std::map<std::string, std::string>& qos) override;
  void Forget(std::string_view volume_id) override;

 private:
  struct Entry {
    std::string name;  // of the export: a secret
    std::string volume_id;
    bool withdrawn = false;  // the name is refused, its clients are being cut off
    // Alive while a client is connected.
    std::shared_ptr<std::weak_ptr<void>> connected;
  };

  // Kept from the first attachment until the volume is forgotten, so that to attach again is no way
  // to a new budget, and counters don't begin again; bounded.
  struct Kept {
    std::string project_id;
    std::shared_ptr<qos::VolumeLimiter> limiter;
    std::shared_ptr<nbd::VolumeMetrics> metrics;  // may be null
  };
  // Kept while it has limits or volumes.
  struct KeptProject {
    std::shared_ptr<qos::Project> project;
    bool limited = false;
  };

  std::shared_ptr<qos::VolumeLimiter> LimiterOf(const ExportSpec& spec, const qos::Limits& limits)
      REQUIRES(mutex_);
  KeptProject& ProjectOf(std::string_view project_id) REQUIRES(mutex_);
  void MakeRoom() REQUIRES(mutex_);
  base::Result<std::shared_ptr<ChangedBlocks>> ChangedSince(const std::string& project_id,
                                                            const std::string& volume_id,
                                                            std::string_view snapshot_id);
  base::Result<std::shared_ptr<ChangedBlocks>> ChangedSinceImage(const std::string& project_id,
                                                                 const std::string& volume_id,
                                                                 std::string_view image_id);
  base::JsonObject DataOf(const ExportSpec& spec, const std::string& name) const REQUIRES(mutex_);

  NbdAddress address_ GUARDED_BY(mutex_);
  VolumeStore& store_;
  nbd::Attachments& attachments_;
  nbd::Server& server_;
  const Pace pace_;
  const SnapshotRight snapshot_right_;
  const ImageHolder image_holder_;
  BeforeOpen before_open_;

  base::Mutex mutex_;
  std::map<std::string, Entry, std::less<>> published_ GUARDED_BY(mutex_);
  std::map<std::string, Kept, std::less<>> volumes_ GUARDED_BY(mutex_);
  std::map<std::string, KeptProject, std::less<>> projects_ GUARDED_BY(mutex_);
};

}  // namespace blockd
