#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/async/pool.h"
#include "base/http/router.h"
#include "base/http/server.h"
#include "base/json.h"
#include "base/metrics.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "chunkstore/layers/caching.h"
#include "controlplane/host/attached_disks.h"
#include "controlplane/host/control.h"
#include "controlplane/host/services.h"

namespace controlplane::host {

struct AgentSettings {
  std::string cache_dir;
  uint64_t cache_bytes = 0;
  // Of the two sockets and the file of what is attached; made with mode 0700 if it isn't there.
  std::string socket_dir;
  std::string metrics_listen;  // HOST:PORT; empty: none
  uint64_t tables_bytes = Tables::kDefaultMemoryBytes;
  Images::Options images;
  blockd::remote::RemoteSettings remote;  // of volumes: TLS
};

// In the socket directory.
constexpr char kControlSocketName[] = "control.sock";
constexpr char kNbdSocketName[] = "nbd.sock";
constexpr char kDisksFileName[] = "attached.json";

// Of one command that copies an image.
constexpr size_t kMaxCopiedChunks = 1024;
// Copies at once; for one more the agent is busy.
constexpr size_t kMaxCopies = 8;

// The agent of a compute host: disks of images, snapshots and volumes for its guests, over NBD on a
// unix socket, read through a cache on its disk. Runs until Stop. Thread-safe.
class Agent {
 public:
  // Opens what was attached before. `services` outlives it. kConflict when another agent has the
  // cache or the sockets.
  static base::Result<std::unique_ptr<Agent>> Start(const AgentSettings& settings,
                                                    Services& services);
  ~Agent();  // Stop

  // Answers what guests have asked, then ends; what is attached is found again by the next one.
  // Idempotent.
  void Stop();

  // Of /metrics; empty: none.
  std::string metrics_address() const;

 private:
  Agent(const AgentSettings& settings, Services& services);
  base::Result<void> Start();
  base::Result<void> StartMetrics();
  base::Result<base::Json> Handle(const base::Json& request, const ControlOutput& output);
  base::Result<base::Json> Attach(const base::Json& request);
  base::Result<base::Json> Detach(const base::Json& request);
  base::Result<base::Json> Copy(const base::Json& request, const ControlOutput& output);
  base::Json List();
  base::Json CacheStats();
  base::Result<base::Json> ChangeCache(const std::string& what, const base::Json& request,
                                       const ControlProgress& progress);
  base::Result<Origin> OriginOf(const base::Json& request);
  void Upkeep();

  const AgentSettings settings_;
  Services& services_;
  base::Metrics metrics_;

  // In the order in which they are made; destroyed in the opposite one.
  std::unique_ptr<chunkstore::layers::BlockDiskCache> cache_;
  std::unique_ptr<Tables> tables_;
  std::unique_ptr<Background> background_;
  std::unique_ptr<Images> images_;
  std::shared_ptr<blockd::nbd::Attachments> exports_;
  std::unique_ptr<blockd::nbd::Server> server_;
  std::unique_ptr<AttachedDisks> disks_;
  std::unique_ptr<ControlServer> control_;
  std::unique_ptr<base::http::Router> router_;
  std::unique_ptr<base::async::Pool> pool_;
  std::unique_ptr<base::http::Server> http_;

  bool stopped_ = false;
  base::Mutex mutex_;
  base::CondVar wake_;
  bool stopping_ GUARDED_BY(mutex_) = false;
  size_t copies_ GUARDED_BY(mutex_) = 0;
  std::thread upkeep_;
};

}  // namespace controlplane::host
