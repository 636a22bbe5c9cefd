#include "controlplane/volumes.h"

#include <algorithm>
#include <atomic>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/coding.h"
#include "base/log.h"
#include "base/text.h"
#include "base/thread_annotations.h"
#include "base/uuid.h"
#include "blockd/back_ends.h"
#include "blockd/backup/chunk_backups.h"
#include "blockd/backup/home.h"
#include "blockd/catalog.h"
#include "blockd/chunk/chunk_volume_store.h"
#include "blockd/discovery/discovery.h"
#include "blockd/jobs.h"
#include "blockd/nbd/attachments.h"
#include "blockd/nbd/server.h"
#include "blockd/nbd/tls.h"
#include "blockd/nbd_exports.h"
#include "blockd/qos/timer.h"
#include "blockd/rbd/rbd_volume_store.h"
#include "blockd/reconcile.h"
#include "blockd/service.h"
#include "blockd/serving.h"
#include "blockd/tenancy/tenancy.h"
#include "blockd/types/handlers.h"
#include "controlplane/convert/to_raw.h"
#include "controlplane/embedded_store.h"
#include "controlplane/public_url.h"
#include "controlplane/snapshot_blocks.h"
#include "imaged/block_names.h"
#include "imaged/policy.h"

namespace controlplane {
namespace {

using base::Code;
using base::Error;
using base::Result;

// How often lanes are measured and statuses proven.
constexpr int64_t kUpkeepMs = 30'000;
// How long a stop waits for what NBD clients have asked.
constexpr int64_t kDrainMs = 10'000;
// What a process that died had begun another one takes up after this.
constexpr int64_t kSharedJobLeaseMs = 8'000;
// In the catalog's partition: this service's id, for ever.
constexpr char kServiceIdKey[] = "S/id";
constexpr std::string_view kBackupDirName = "block.backup-dir";

struct HostPort {
  std::string host;
  uint16_t port = 0;
};

// "127.0.0.1:10809", "[::1]:10809".
Result<HostPort> ParseListen(const std::string& text) {
  const size_t colon = text.rfind(':');
  std::optional<uint16_t> port;
  if (colon != std::string::npos)
    port = base::ParseNumber<uint16_t>(std::string_view(text).substr(colon + 1));
  if (!port.has_value())
    return Error(Code::kInvalidArgument, "block.nbd-listen: '" + text + "' is not HOST:PORT");
  HostPort result;
  result.port = *port;
  result.host = text.substr(0, colon);
  if (result.host.starts_with('[') && result.host.ends_with(']'))
    result.host = result.host.substr(1, result.host.size() - 2);
  return result;
}

// A service that takes any port for its HTTP does so for NBD as well.
bool TakesAnyPort(const Settings& settings) { return settings.listen->ends_with(":0"); }

Result<HostPort> ListenOf(const Settings& settings) {
  if (!settings.block_nbd_listen->empty()) return ParseListen(*settings.block_nbd_listen);
  return HostPort{"127.0.0.1", TakesAnyPort(settings) ? uint16_t{0} : kNbdPort};
}

// A name or an address; that of IPv6 has more than one colon.
Result<void> CheckHost(const std::string& host) {
  if (std::count(host.begin(), host.end(), ':') != 1) return {};
  return Error(Code::kInvalidArgument, "block.nbd-host: '" + host +
                                           "' is not a host alone; the port is block.nbd-listen's");
}

Result<std::shared_ptr<const blockd::nbd::TlsContext>> TlsOf(const Settings& settings) {
  blockd::nbd::TlsSettings tls;
  tls.certificate_path = *settings.block_nbd_tls_cert;
  tls.key_path = *settings.block_nbd_tls_key;
  tls.client_ca_path = *settings.block_nbd_tls_client_ca;
  tls.psk_path = *settings.block_nbd_tls_psk;
  if (tls.certificate_path.empty() && tls.key_path.empty() && tls.psk_path.empty() &&
      tls.client_ca_path.empty())
    return std::shared_ptr<const blockd::nbd::TlsContext>();
  auto context = blockd::nbd::TlsContext::Create(tls);
  if (!context.has_value())
    return Error(context.error().code(), "block.nbd-tls-...: " + context.error().message());
  return context;
}

Error BadBackEnds(std::string_view why) {
  return Error(Code::kInvalidArgument, "block.back-ends: " + std::string(why));
}

// By name; the first is the default.
Result<std::vector<std::string>> BackEndsOf(const Settings& settings) {
  const bool has_rbd = !settings.block_rbd_pool->empty();
  std::vector<std::string> names = *settings.block_back_ends;
  if (names.empty() && !SharesStore(settings)) names.emplace_back(blockd::kBackEndName);
  if (settings.block_back_ends->empty() && has_rbd) names.emplace_back(blockd::kRbdBackEndName);
  if (names.empty()) return BadBackEnds("there is none: block.rbd-pool names the pool of volumes");
  std::set<std::string> seen;
  for (const std::string& name : names) {
    if (!seen.insert(name).second) return BadBackEnds(name + " is there twice");
    if (name == blockd::kRbdBackEndName) {
      if (!has_rbd) return BadBackEnds("rbd needs block.rbd-pool");
    } else if (name != blockd::kBackEndName) {
      return BadBackEnds("there is no '" + name + "'; store and rbd are");
    } else if (SharesStore(settings)) {
      return BadBackEnds(
          "store keeps what is written in data_dir, where the other processes of a "
          "store on Ceph would not find it");
    }
  }
  return names;
}

// This service's id, made at the first start.
Result<std::string> ServiceId(blockd::Catalog& catalog) {
  std::string id;
  RETURN_IF_ERROR(catalog.Transact([&](blockd::Transaction& transaction) -> Result<void> {
    ASSIGN_OR_RETURN(const std::optional<std::string> known, transaction.GetKey(kServiceIdKey));
    id = known.value_or(base::NewUuid());
    if (!known.has_value()) transaction.PutKey(kServiceIdKey, id);
    return {};
  }));
  return id;
}

// Members in the order in which they are made; destroyed in the opposite one.
class VolumesImpl : public Volumes {
 public:
  VolumesImpl(const Settings& settings, const Parts& parts, std::vector<std::string> back_ends)
      : settings_(settings),
        parts_(parts),
        journal_(*parts.store.meta, base::SystemClock(), std::string(blockd::kPartition),
                 base::NewUuid()),
        catalog_(*parts.store.meta, base::SystemClock(), journal_),
        types_(catalog_, back_ends),
        messages_(catalog_),
        transfers_(catalog_, types_) {
    options_.back_ends = std::move(back_ends);
  }
  ~VolumesImpl() override { Stop(); }

  Result<void> Start();
  base::http::Service service() const override { return service_->service(); }
  ChangedBlocks& changed_blocks() override { return *changed_blocks_; }
  Store* backup_store() const override { return backup_store_.get(); }
  void Stop() override;

 private:
  Result<void> OpenVolumes();
  Result<std::unique_ptr<blockd::VolumeStore>> OpenLayers();
  Result<std::unique_ptr<blockd::VolumeStore>> OpenRbd();
  Result<void> OpenBackups();
  Result<void> TakeBackups();
  Result<void> StartNbd();
  Result<void> StartServing();
  Result<void> Listen();
  // What compute hosts are told to connect to.
  std::string HostOf(const HostPort& listen) const {
    return settings_.block_nbd_host->empty() ? ReachableHost(listen.host)
                                             : *settings_.block_nbd_host;
  }
  SnapshotLookup snapshots() { return {*parts_.store.chunks, catalog_, *store_}; }
  void MakeChangedBlocks();
  void MakeService();
  Result<std::string> HolderOfImage(std::string_view project_id, std::string_view image_and_data);
  Result<bool> HasSnapshot(std::string_view project_id, std::string_view snapshot_id);
  Result<std::optional<blockd::discovery::Capacity>> Space(const std::string& back_end);
  blockd::Jobs::World world() {
    return {catalog_,       *store_,    *exports_,    parts_.images, types_,
            backups_.get(), &messages_, store_.get(), serving_.get()};
  }
  void Upkeep();

  const Settings& settings_;
  const Parts parts_;
  bool stopped_ = false;

  chunkstore::jobs::Journal journal_;
  blockd::Catalog catalog_;
  blockd::types::TypeStore types_;
  blockd::tenancy::Messages messages_;
  blockd::tenancy::Transfers transfers_;
  blockd::ServiceOptions options_;

  std::vector<std::unique_ptr<blockd::VolumeStore>> stores_;
  std::unique_ptr<blockd::BackEnds> store_;  // all of them
  // Of a directory of its own; its metrics would be taken for the main store's.
  base::Metrics backup_metrics_;
  std::unique_ptr<Store> backup_store_;
  std::unique_ptr<blockd::backup::ChunkBackups> backups_;
  std::unique_ptr<blockd::qos::Timer> timer_;
  std::shared_ptr<blockd::nbd::Attachments> attachments_;
  std::unique_ptr<blockd::nbd::Server> server_;
  std::unique_ptr<blockd::NbdExports> exports_;
  std::unique_ptr<blockd::Serving> serving_;  // null: no other process uses the records
  std::unique_ptr<blockd::Jobs> jobs_;
  std::unique_ptr<ChangedBlocks> changed_blocks_;
  std::unique_ptr<blockd::BlockService> service_;

  base::Mutex mutex_;
  base::CondVar wake_;
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::thread upkeep_;
};

Result<void> VolumesImpl::OpenVolumes() {
  std::vector<blockd::BackEnds::BackEnd> all;
  for (const std::string& name : options_.back_ends) {
    ASSIGN_OR_RETURN(std::unique_ptr<blockd::VolumeStore> store,
                     name == blockd::kBackEndName ? OpenLayers() : OpenRbd());
    all.push_back({name, store.get()});
    stores_.push_back(std::move(store));
  }
  store_ = std::make_unique<blockd::BackEnds>(std::move(all));
  return {};
}

Result<std::unique_ptr<blockd::VolumeStore>> VolumesImpl::OpenLayers() {
  blockd::chunk::ChunkVolumeStoreOptions options;
  options.dir = LayersDir(*settings_.data_dir);
  options.seal_bytes_per_s = *settings_.block_seal_rate;
  options.reserve_bytes = *settings_.store_reserve;
  if (*settings_.block_live_dir != "none") options.live_dir = *settings_.block_live_dir;
  ASSIGN_OR_RETURN(auto store, blockd::chunk::ChunkVolumeStore::Open(
                                   options, base::SystemFiles(), *parts_.store.chunks,
                                   *parts_.store.meta, parts_.metrics));
  return std::unique_ptr<blockd::VolumeStore>(std::move(store));
}

Result<std::unique_ptr<blockd::VolumeStore>> VolumesImpl::OpenRbd() {
  blockd::rbd::Options options;
  options.cluster.conf_path = *settings_.ceph_conf;
  options.cluster.user = *settings_.ceph_user;
  options.cluster.pool = *settings_.block_rbd_pool;
  options.cluster.space = *settings_.ceph_namespace;
  options.background = parts_.serve;
  options.parent_idle_ms = *settings_.block_rbd_parent_idle;
  options.seal_bytes_per_s = *settings_.block_seal_rate;
  ASSIGN_OR_RETURN(auto store, blockd::rbd::RbdVolumeStore::Open(
                                   options, *parts_.store.chunks, *parts_.store.meta,
                                   base::SystemClock(), parts_.metrics));
  return std::unique_ptr<blockd::VolumeStore>(std::move(store));
}

Result<void> VolumesImpl::TakeBackups() {
  const std::string& dir = *settings_.block_backup_dir;
  RETURN_IF_ERROR(blockd::backup::CheckHome(catalog_, dir));
  ASSIGN_OR_RETURN(auto store, OpenStore(settings_, backup_metrics_, StorePurpose::kBackups));
  RETURN_IF_ERROR(blockd::backup::RememberHome(catalog_, dir));
  backup_store_ = std::move(store);
  blockd::backup::ChunkBackupsOptions options;
  options.bytes_per_s = *settings_.block_backup_rate;
  backups_ = std::make_unique<blockd::backup::ChunkBackups>(options, *parts_.store.chunks,
                                                            *backup_store_->chunks, parts_.metrics);
  return {};
}

// Who sets the directory for the first time is told at once what is wrong with it. Later, volumes
// go on without, whatever has become of it: calls that need backups answer 503.
Result<void> VolumesImpl::OpenBackups() {
  const std::string& dir = *settings_.block_backup_dir;
  if (dir.empty()) return {};
  options_.backup_service = blockd::BackupService::kUp;
  const Result<void> taken = TakeBackups();
  if (taken.has_value()) return {};
  Error error = ExplainDamage(taken.error(), dir);
  if (!error.message().starts_with(kBackupDirName))
    error = Error(error.code(), std::string(kBackupDirName) + ": " + error.message());
  ASSIGN_OR_RETURN(const bool was_there, blockd::backup::HasHome(catalog_));
  // Of another code than damage of the main store, which has other advice.
  if (!was_there) return Error(Code::kInvalidArgument, error.message());
  LOG(kError, "blockd", "there are no backups until this is mended: {}", error.message());
  options_.backup_service = blockd::BackupService::kDown;
  return {};
}

Result<void> VolumesImpl::StartNbd() {
  ASSIGN_OR_RETURN(timer_, blockd::qos::Timer::Create());
  attachments_ = std::make_shared<blockd::nbd::Attachments>();
  blockd::nbd::ServerSettings server;
  ASSIGN_OR_RETURN(server.tls, TlsOf(settings_));
  server.max_connections = static_cast<size_t>(*settings_.block_nbd_max_connections);
  server.max_memory_bytes = *settings_.block_nbd_memory;
  server.request_deadline_ms = *settings_.block_nbd_deadline;
  server.plain_text_beyond_loopback = *settings_.block_nbd_plain_text;
  ASSIGN_OR_RETURN(HostPort listen, ListenOf(settings_));
  RETURN_IF_ERROR(CheckHost(*settings_.block_nbd_host));
  ASSIGN_OR_RETURN(server_, blockd::nbd::Server::Create(server, attachments_, parts_.metrics));

  blockd::NbdAddress address;
  address.host = HostOf(listen);
  address.port = listen.port;
  address.tls = server.tls != nullptr;
  address.socket = *settings_.block_nbd_socket;
  exports_ = std::make_unique<blockd::NbdExports>(
      std::move(address), *store_, *attachments_, *server_,
      blockd::NbdExports::Pace{base::SystemClock(), timer_.get(), &parts_.metrics},
      [this](std::string_view project_id, std::string_view snapshot_id) {
        return HasSnapshot(project_id, snapshot_id);
      },
      [this](std::string_view project_id, std::string_view image_id) {
        return HolderOfImage(project_id, image_id);
      });
  return {};
}

// Other processes use the records, too.
Result<void> VolumesImpl::StartServing() {
  blockd::ServingOptions options;
  options.process = base::NewUuidHex();
  serving_ = std::make_unique<blockd::Serving>(catalog_, *store_, *exports_, types_, options);
  exports_->SetBeforeOpen([this](const std::string& id) { return serving_->Begin(id); });
  attachments_->SetFinder([this](const std::string& id) { serving_->PublishIfThere(id); });
  return serving_->Start();
}

Result<bool> VolumesImpl::HasSnapshot(std::string_view project_id, std::string_view snapshot_id) {
  const Result<blockd::SnapshotRecord> snapshot = catalog_.GetSnapshot(snapshot_id);
  if (snapshot.has_value()) return snapshot->project_id == project_id;
  if (snapshot.error().code() == Code::kNotFound) return false;
  return snapshot.error();
}

// Whoever is attached acts for the volume's project, without a role. Behind the id there may be a
// "/" and the name of the data that the image must have: who keeps blocks of it asks so, as
// somebody may delete an image and make another one with its id.
Result<std::string> VolumesImpl::HolderOfImage(std::string_view project_id,
                                               std::string_view image_and_data) {
  const size_t slash = image_and_data.find('/');
  ASSIGN_OR_RETURN(const imaged::Image image,
                   parts_.image_catalog.Get(image_and_data.substr(0, slash)));
  base::auth::Caller project;
  project.project_id = project_id;
  const bool readable = imaged::CheckDownload(project, image).has_value();
  const bool is_disk = !convert::IsConvertible(image.disk_format.value_or(""));
  if (!readable || !is_disk || !image.data.has_value())
    return Error(Code::kNotFound, "no such image, or none whose file is a disk's bytes");
  if (slash == std::string_view::npos) return image.data->holder;
  ASSIGN_OR_RETURN(const auto names, imaged::BlockNames::Open(*parts_.store.meta));
  const imaged::DataName name = names.OfData(image.data->root);
  const std::string_view bytes(reinterpret_cast<const char*>(name.bytes.data()), name.bytes.size());
  if (base::ToHex(bytes) == image_and_data.substr(slash + 1)) return image.data->holder;
  return Error(Code::kNotFound, "the image has other bytes");
}

// Only now, when every attached volume is there to be found: who comes back after a restart must
// not be told that his export is unknown.
Result<void> VolumesImpl::Listen() {
  ASSIGN_OR_RETURN(const HostPort listen, ListenOf(settings_));
  const Result<uint16_t> port = server_->ListenTcp(listen.host, listen.port);
  if (!port.has_value()) {
    const bool plain = port.error().code() == Code::kInvalidArgument;
    return Error(port.error().code(),
                 port.error().message() +
                     (plain ? " (block.nbd-tls-cert and -key, or block.nbd-tls-psk; or "
                              "block.nbd-plain-text, on a network that is secret by itself)"
                            : " (block.nbd-listen chooses where; port 0: any)"));
  }
  const auto told = static_cast<uint16_t>(*settings_.block_nbd_port);
  exports_->ListensOn(told != 0 ? told : *port);
  const std::string host = HostOf(listen);
  std::string backups = "are off (block.backup-dir)";
  if (options_.backup_service == blockd::BackupService::kDown) backups = "are down";
  if (backups_ != nullptr) backups = "go to " + *settings_.block_backup_dir;
  LOG(kInfo, "blockd", "volumes are attached at {}:{}; backups {}", host, *port, backups);
  if (host != listen.host && settings_.block_nbd_host->empty()) {
    LOG(kWarn, "blockd",
        "NBD listens on every address, but compute hosts are told {}: say block.nbd-host", host);
  }
  if (settings_.block_nbd_socket->empty()) return {};
  return server_->ListenUnix(*settings_.block_nbd_socket);
}

// Of RBD's pool nothing is known but by a manager of the cluster.
Result<std::optional<blockd::discovery::Capacity>> VolumesImpl::Space(const std::string& back_end) {
  if (back_end != blockd::kBackEndName) return std::optional<blockd::discovery::Capacity>();
  ASSIGN_OR_RETURN(const base::SpaceInfo space,
                   base::SystemFiles().Space(LayersDir(*settings_.data_dir)));
  return std::make_optional(
      blockd::discovery::Capacity{space.capacity_bytes, space.available_bytes});
}

void VolumesImpl::MakeChangedBlocks() {
  changed_blocks_ = std::make_unique<ChangedBlocks>(ChangedBlocks::Parts{
      *parts_.store.chunks, parts_.image_catalog, snapshots(), base::SystemClock()});
}

void VolumesImpl::MakeService() {
  blockd::Routes more;
  blockd::types::AppendRoutes({catalog_, types_, *exports_}, &more);
  blockd::tenancy::AppendRoutes({catalog_, types_, messages_, transfers_}, &more);
  blockd::discovery::AppendServiceRoutes(
      {options_, catalog_, [this](const std::string& back_end) { return Space(back_end); }}, &more);
  blockd::discovery::AppendListRoutes(&more);
  MakeChangedBlocks();
  more.push_back(changed_blocks_->SnapshotRoute());
  for (blockd::api::Route& route : SnapshotBlockRoutes(snapshots(), parts_.image_data))
    more.push_back(std::move(route));
  std::vector<base::http::Route> versions;
  blockd::discovery::AppendVersionRoutes(options_.prefix, &versions);
  const blockd::Context context = {options_, catalog_,  *jobs_,        types_,
                                   *store_,  *exports_, parts_.images, backups_.get()};
  service_ = std::make_unique<blockd::BlockService>(options_, context, parts_.verifier,
                                                    std::move(more), std::move(versions));
}

Result<void> VolumesImpl::Start() {
  if (!parts_.serve) {
    RETURN_IF_ERROR(OpenVolumes());
    MakeChangedBlocks();
    return {};
  }
  RETURN_IF_ERROR(types_.Start());
  ASSIGN_OR_RETURN(options_.service_id, ServiceId(catalog_));
  options_.availability_zone = *settings_.block_availability_zone;
  if (*settings_.auth_mode == "keystone") options_.auth_url = *settings_.auth_url;
  RETURN_IF_ERROR(OpenVolumes());
  RETURN_IF_ERROR(OpenBackups());
  RETURN_IF_ERROR(StartNbd());
  if (SharesStore(settings_)) RETURN_IF_ERROR(StartServing());
  blockd::JobOptions jobs;
  if (SharesStore(settings_)) jobs.lease_ms = kSharedJobLeaseMs;
  jobs_ = std::make_unique<blockd::Jobs>(world(), parts_.metrics, jobs);
  ASSIGN_OR_RETURN(const blockd::ReconcileReport found, blockd::ReconcileAtStart(world(), *jobs_));
  if (found.settled > 0 || found.published > 0) {
    LOG(kInfo, "blockd", "{} attachments are open again, {} statuses were put right",
        found.published, found.settled);
  }
  RETURN_IF_ERROR(Listen());
  MakeService();
  jobs_->Start();
  upkeep_ = std::thread([this] { Upkeep(); });
  return {};
}

void VolumesImpl::Upkeep() {
  while (true) {
    const Result<void> measured = jobs_->Measure();
    if (!measured.has_value())
      LOG(kWarn, "blockd", "jobs can't be counted: {}", measured.error().ToString());
    const auto report = blockd::Reconcile(world(), *jobs_, options_.attach_lease_ms);
    if (!report.has_value())
      LOG(kWarn, "blockd", "statuses can't be checked: {}", report.error().ToString());
    base::MutexLock lock(mutex_);
    if (!stopping_) wake_.WaitForMs(mutex_, kUpkeepMs);
    if (stopping_) return;
  }
}

void VolumesImpl::Stop() {
  if (std::exchange(stopped_, true)) return;
  {
    base::MutexLock lock(mutex_);
    stopping_ = true;
    wake_.NotifyAll();
  }
  if (upkeep_.joinable()) upkeep_.join();
  if (jobs_ != nullptr) jobs_->Stop();
  const bool drained = server_ == nullptr || server_->Stop(kDrainMs);
  if (drained && serving_ != nullptr) serving_->Stop();
  if (drained) return;
  // A thread of the server is still in the volume, and what it stands on must not go from under it.
  // Leaving like a kill loses nothing that was acknowledged.
  LOG(kError, "blockd", "a request of an NBD client hangs at the disk: leaving without it");
  std::_Exit(EXIT_FAILURE);
}

}  // namespace

Result<std::unique_ptr<Volumes>> Volumes::Start(const Settings& settings, const Parts& parts) {
  ASSIGN_OR_RETURN(std::vector<std::string> back_ends, BackEndsOf(settings));
  auto volumes = std::make_unique<VolumesImpl>(settings, parts, std::move(back_ends));
  RETURN_IF_ERROR(volumes->Start());
  return std::unique_ptr<Volumes>(std::move(volumes));
}

}  // namespace controlplane
