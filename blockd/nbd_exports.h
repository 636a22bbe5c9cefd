#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/metrics.h"
#include "base/thread_annotations.h"
#include "blockd/exports.h"
#include "blockd/nbd/attachments.h"
#include "blockd/nbd/server.h"
#include "blockd/qos/project.h"
#include "blockd/volume_store.h"

namespace blockd {

// How clients reach the server.
struct NbdAddress {
  std::string host;  // as compute hosts know it
  uint16_t port = 0;
  bool tls = false;  // clients must use it
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
  // Borrowed, all of it: outlives the exports. `attachments` is what the server serves.
  NbdExports(NbdAddress address, VolumeStore& store, nbd::Attachments& attachments,
             nbd::Server& server, Pace pace)
      : address_(std::move(address)),
        store_(store),
        attachments_(attachments),
        server_(server),
        pace_(pace) {}

  base::Result<base::JsonObject> Publish(const ExportSpec& spec) override;
  // kUnavailable while a write of a client that was cut off is still at the back end: again later.
  base::Result<void> Withdraw(std::string_view attachment_id) override;
  bool IsConnected(std::string_view attachment_id) override;
  base::Result<void> SetLimits(std::string_view volume_id, uint64_t size_gb,
                               const std::map<std::string, std::string>& qos) override;

 private:
  struct Published {
    std::string name;  // of the export: a secret
    std::string volume_id;
    bool withdrawn = false;  // the name is refused, its clients are being cut off
    // Alive while a client is connected.
    std::shared_ptr<std::weak_ptr<void>> connected;
  };

  std::shared_ptr<qos::VolumeLimiter> LimiterOf(const ExportSpec& spec, const qos::Limits& limits)
      REQUIRES(mutex_);
  base::JsonObject DataOf(const ExportSpec& spec, const std::string& name) const;

  const NbdAddress address_;
  VolumeStore& store_;
  nbd::Attachments& attachments_;
  nbd::Server& server_;
  const Pace pace_;

  base::Mutex mutex_;
  std::map<std::string, Published, std::less<>> published_ GUARDED_BY(mutex_);
  // Kept while the process runs, so that to attach again is no way to a new budget; bounded.
  std::map<std::string, std::shared_ptr<qos::VolumeLimiter>, std::less<>> limiters_
      GUARDED_BY(mutex_);
  std::map<std::string, std::shared_ptr<qos::Project>, std::less<>> projects_ GUARDED_BY(mutex_);
};

}  // namespace blockd
