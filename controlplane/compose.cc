#include "controlplane/compose.h"

#include <algorithm>
#include <optional>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "base/async/pool.h"
#include "base/auth/keystone_verifier.h"
#include "base/clock.h"
#include "base/http/router.h"
#include "base/http/server.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/text.h"
#include "controlplane/admin/admin_service.h"
#include "controlplane/admin/operations.h"
#include "controlplane/admin/schedule.h"
#include "controlplane/admin/scrub_log.h"
#include "controlplane/admin/shared_operations.h"
#include "controlplane/credentials.h"
#include "controlplane/identity/identity.h"
#include "controlplane/layer_names.h"
#include "controlplane/public_url.h"
#include "controlplane/status_service.h"
#include "controlplane/store.h"
#include "controlplane/volume_images.h"
#include "controlplane/volumes.h"
#include "imaged/catalog.h"
#include "imaged/data_path.h"
#include "imaged/metadefs.h"
#include "imaged/service.h"

namespace controlplane {
namespace {

using base::Code;
using base::Error;
using base::Result;

constexpr char kImageEndpoint[] = "$(base_url)s/image";
constexpr char kVolumeEndpoint[] = "$(base_url)s/volume/v3/$(project_id)s";

// Options say 0 where the rooms say "no limit".
std::optional<uint64_t> LimitOf(uint64_t value) {
  return value == 0 ? std::nullopt : std::optional<uint64_t>(value);
}

imaged::QuotaLimits QuotaOf(const Settings& settings) {
  imaged::QuotaLimits limits;
  limits.images = LimitOf(static_cast<uint64_t>(*settings.image_quota_count));
  limits.bytes = LimitOf(*settings.image_quota_bytes);
  limits.staged_bytes = LimitOf(*settings.image_quota_staged_bytes);
  limits.uploads = LimitOf(static_cast<uint64_t>(*settings.image_quota_uploads));
  return limits;
}

Result<imaged::WebFetchOptions> WebFetchOf(const Settings& settings) {
  imaged::WebFetchOptions web;
  web.allowed_schemes = *settings.import_allowed_schemes;
  web.allowed_hosts = *settings.import_allowed_hosts;
  web.disallowed_hosts = *settings.import_disallowed_hosts;
  web.allowed_networks = *settings.import_allowed_networks;
  web.deadline_ms = *settings.import_deadline;
  web.allowed_ports.clear();
  for (const std::string& text : *settings.import_allowed_ports) {
    const uint16_t port = base::ParseNumber<uint16_t>(text).value_or(0);
    if (port == 0) {
      return Error(Code::kInvalidArgument,
                   "import.allowed-ports: '" + text + "' is no port (1 to 65535)");
    }
    web.allowed_ports.push_back(port);
  }
  return web;
}

Result<imaged::DataOptions> DataOptionsOf(const Settings& settings) {
  imaged::DataOptions options;
  options.hash_algorithm = *settings.image_hash_algorithm;
  options.checksum = ChecksumOf(*settings.image_checksum);
  options.max_image_bytes = *settings.image_size_cap;
  options.upload_memory_bytes = *settings.image_upload_memory;
  options.download_memory_bytes = *settings.image_download_memory;
  options.kept_bytes = *settings.image_kept_bytes;
  options.lease_ms = *settings.store_lease;
  options.sole_process = !SharesStore(settings);
  options.import_methods = *settings.image_import_methods;
  options.project_imports = static_cast<size_t>(*settings.import_project_limit);
  ASSIGN_OR_RETURN(options.web, WebFetchOf(settings));
  return options;
}

identity::Options IdentityOptionsOf(const Settings& settings) {
  identity::Options options;
  options.token_lifetime_ms = *settings.identity_token_lifetime;
  options.token_key_rotation_ms = *settings.identity_token_key_rotation;
  options.password_passes = static_cast<uint64_t>(*settings.identity_password_passes);
  options.password_memory_bytes = *settings.identity_password_memory;
  options.password_checks_at_once = static_cast<size_t>(*settings.identity_password_checks);
  options.lockout_failures = *settings.identity_lockout_failures;
  options.lockout_ms = *settings.identity_lockout_duration;
  options.unique_last_passwords = *settings.identity_unique_last_passwords;
  return options;
}

// Members in the order in which they are made; destroyed in the opposite one.
class QuarryImpl : public Quarry {
 public:
  explicit QuarryImpl(const Settings& settings) : settings_(settings) {}
  ~QuarryImpl() override { Stop(); }

  Result<void> Start();
  const std::string& base_url() const override { return base_url_; }
  const std::string& public_url() const override {
    return public_url_.empty() ? base_url_ : public_url_;
  }
  bool first_start() const override { return first_start_; }
  void Stop() override;

 private:
  Result<void> CheckServices();
  bool Serves(std::string_view service) const;
  Result<void> StartIdentity();
  Result<bool> ChoosePassword();
  Result<void> StartImages();
  Result<void> StartVolumes();
  void MakeImageService();
  void StartMaintenance();
  Result<void> Serve();
  // Writes down where it is, and how to log in.
  Result<void> Announce();

  const Settings& settings_;
  std::string password_;
  std::string base_url_;
  std::string public_url_;  // as configured; may be empty
  bool first_start_ = false;
  bool stopped_ = false;

  base::Metrics metrics_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<base::async::Pool> pool_;

  std::unique_ptr<identity::Identity> identity_;
  std::unique_ptr<base::auth::TokenVerifier> keystone_;
  base::auth::TokenVerifier* verifier_ = nullptr;

  std::unique_ptr<imaged::Catalog> catalog_;
  std::unique_ptr<imaged::Metadefs> metadefs_;
  std::unique_ptr<imaged::DataPath> data_path_;

  std::unique_ptr<VolumeImages> volume_images_;
  std::unique_ptr<Volumes> volumes_;

  std::unique_ptr<imaged::ImageService> images_;

  std::unique_ptr<admin::SharedOperations> shared_operations_;  // null: no other process
  std::unique_ptr<admin::Operations> operations_;
  std::unique_ptr<admin::ScrubLog> scrubs_;
  std::unique_ptr<admin::AdminService> admin_;
  std::unique_ptr<admin::Schedule> schedule_;

  // The same for the store that backups are in, where there is one; by command only.
  std::unique_ptr<admin::Operations> backup_operations_;
  std::unique_ptr<admin::ScrubLog> backup_scrubs_;
  std::unique_ptr<admin::AdminService> backup_admin_;

  base::http::Router router_;
  std::unique_ptr<base::http::Server> server_;
};

Result<void> QuarryImpl::CheckServices() {
  const std::set<std::string_view> known = {kIdentityService, kImageService, kVolumeService,
                                            kAdminService};
  for (const std::string& service : *settings_.services) {
    if (known.contains(service)) continue;
    return Error(Code::kInvalidArgument,
                 "services: there is no '" + service + "'; identity, image, volume, admin are");
  }
  return {};
}

bool QuarryImpl::Serves(std::string_view service) const {
  const std::vector<std::string>& all = *settings_.services;
  return std::find(all.begin(), all.end(), service) != all.end();
}

Result<void> QuarryImpl::StartIdentity() {
  if (*settings_.auth_mode == "keystone") {
    if (settings_.auth_url->empty() || settings_.auth_password->empty()) {
      return Error(Code::kInvalidArgument,
                   "auth.mode=keystone needs auth.url and auth.password (in the environment as "
                   "QUARRY_AUTH_PASSWORD, or in the configuration file)");
    }
    base::auth::KeystoneVerifierOptions options;
    options.auth_url = *settings_.auth_url;
    options.username = *settings_.auth_username;
    options.password = *settings_.auth_password;
    options.user_domain = *settings_.auth_user_domain;
    options.project = *settings_.auth_project;
    options.project_domain = *settings_.auth_project_domain;
    // Whatever the Keystone does, half of the workers are left for others.
    options.max_waiting = std::max<size_t>(1, static_cast<size_t>(*settings_.http_workers) / 2);
    keystone_ = base::auth::MakeKeystoneVerifier(options, base::SystemClock());
    verifier_ = keystone_.get();
    return {};
  }
  ASSIGN_OR_RETURN(identity_, identity::Identity::Open(IdentityOptionsOf(settings_), *store_->meta,
                                                       base::SystemClock()));
  identity::BootstrapRequest bootstrap;
  ASSIGN_OR_RETURN(bootstrap.reset_admin_password, ChoosePassword());
  bootstrap.admin_password = password_;
  bootstrap.region = *settings_.region;
  bootstrap.services.push_back({"image", "glance", kImageEndpoint});
  // Clients look for either of the two types.
  bootstrap.services.push_back({"block-storage", "cinder", kVolumeEndpoint});
  bootstrap.services.push_back({"volumev3", "cinderv3", kVolumeEndpoint});
  RETURN_IF_ERROR(identity_->Bootstrap(bootstrap));
  verifier_ = &identity_->verifier();
  return {};
}

// True: it is to be set, whatever it was.
Result<bool> QuarryImpl::ChoosePassword() {
  const std::string& given = *settings_.identity_admin_password;
  ASSIGN_OR_RETURN(const std::optional<std::string> known, ReadAdminPassword(*settings_.data_dir));
  first_start_ = !known.has_value();
  if (known.has_value()) {
    password_ = *known;
    return false;
  }
  password_ = given;
  if (!SharesStore(settings_)) {
    if (given.empty()) password_ = NewPassword();
    // Whoever can take clouds.yaml away owns the directory: that is how a lost one is replaced.
    return true;
  }
  ASSIGN_OR_RETURN(const bool bootstrapped, identity_->IsBootstrapped());
  if (bootstrapped || !given.empty()) return false;
  return Error(Code::kInvalidArgument,
               "identity.admin_password: the processes of one store have one admin: set it for the "
               "first start (in the environment as QUARRY_IDENTITY_ADMIN_PASSWORD)");
}

Result<void> QuarryImpl::StartImages() {
  ASSIGN_OR_RETURN(imaged::DataOptions data, DataOptionsOf(settings_));
  catalog_ =
      std::make_unique<imaged::Catalog>(*store_->meta, base::SystemClock(), QuotaOf(settings_));
  metadefs_ = std::make_unique<imaged::Metadefs>(*store_->meta, base::SystemClock());
  data_path_ = std::make_unique<imaged::DataPath>(std::move(data), *store_->chunks, *store_->meta,
                                                  *catalog_, *pool_, base::SystemClock(), metrics_);
  return data_path_->Start();
}

// After the volumes: an image may be compared with a snapshot.
void QuarryImpl::MakeImageService() {
  const imaged::DataOptions& data = data_path_->options();
  imaged::ServiceOptions options;
  if (identity_ == nullptr) options.auth_url = *settings_.auth_url;
  options.import_methods = data.import_methods;
  options.stores.push_back({data.store_id, "content-addressed chunks", true});
  std::vector<base::http::Route> routes = data_path_->Routes();
  routes.push_back(volumes_->changed_blocks().ImageRoute());
  images_ = std::make_unique<imaged::ImageService>(options, *catalog_, *metadefs_, *verifier_,
                                                   std::move(routes));
}

Result<void> QuarryImpl::StartVolumes() {
  VolumeImagesOptions images;
  images.convert.time_ms = *settings_.block_convert_time;
  images.convert.memory_bytes = *settings_.block_convert_memory;
  volume_images_ = std::make_unique<VolumeImages>(images, *catalog_, *data_path_, metrics_);
  ASSIGN_OR_RETURN(volumes_,
                   Volumes::Start(settings_, {*store_, *verifier_, *volume_images_, *catalog_,
                                              *data_path_, metrics_, Serves(kVolumeService)}));
  return {};
}

Result<void> QuarryImpl::Serve() {
  router_.Mount(StatusService(metrics_, identity_ != nullptr));
  if (identity_ != nullptr && Serves(kIdentityService)) router_.Mount(identity_->service());
  if (Serves(kImageService)) router_.Mount(images_->service());
  if (Serves(kVolumeService)) router_.Mount(volumes_->service());
  if (Serves(kAdminService)) router_.Mount(admin_->service());
  if (Serves(kAdminService) && backup_admin_ != nullptr)
    router_.Mount(backup_admin_->service(admin::kBackupsPrefix));
  base::http::ServerOptions options;
  options.listen = *settings_.listen;
  options.io_threads = static_cast<size_t>(*settings_.http_io_threads);
  if (identity_ == nullptr) options.identity_url = *settings_.auth_url;
  options.max_connections = static_cast<size_t>(*settings_.http_max_connections);
  options.idle_timeout_ms = *settings_.http_idle_timeout;
  options.body_stall_timeout_ms = *settings_.http_stall_timeout;
  options.min_bytes_per_second = static_cast<int64_t>(*settings_.http_min_rate);
  options.body_memory_bytes = *settings_.http_body_memory;
  options.public_url = public_url_;
  options.trusted_proxies = *settings_.http_trusted_proxies;
  options.drain_timeout_ms = *settings_.http_drain_timeout;
  ASSIGN_OR_RETURN(server_, base::http::Server::Start(options, router_, *pool_, metrics_));
  const std::string& address = server_->address();
  const size_t colon = address.rfind(':');
  base_url_ = "http://" + ReachableHost(address.substr(0, colon)) + address.substr(colon);
  return {};
}

Result<void> QuarryImpl::Start() {
  RETURN_IF_ERROR(CheckServices());
  ASSIGN_OR_RETURN(public_url_, ParsePublicUrl(*settings_.public_url));
  ASSIGN_OR_RETURN(store_, OpenStore(settings_, metrics_, StorePurpose::kServe));
  pool_ = std::make_unique<base::async::Pool>(
      "worker", static_cast<size_t>(*settings_.http_workers), base::kMaxQueuedJobs);
  RETURN_IF_ERROR(StartIdentity());
  RETURN_IF_ERROR(StartImages());
  RETURN_IF_ERROR(StartVolumes());
  MakeImageService();
  StartMaintenance();
  RETURN_IF_ERROR(Serve());
  return Announce();
}

void QuarryImpl::StartMaintenance() {
  if (SharesStore(settings_)) {
    shared_operations_ =
        std::make_unique<admin::SharedOperations>(*store_->meta, base::SystemClock());
  }
  operations_ = std::make_unique<admin::Operations>(base::SystemClock(), shared_operations_.get());
  const auto release_first = [this]() -> Result<void> {
    RETURN_IF_ERROR(data_path_->ReleasePending());
    return {};
  };
  scrubs_ = std::make_unique<admin::ScrubLog>(*store_->meta, base::SystemClock());
  admin_ = std::make_unique<admin::AdminService>(
      *store_->chunks, *operations_, *verifier_, *scrubs_, release_first,
      [this](base::Json* report) { return NameLayers(*store_->meta, report); });
  admin::ScheduleOptions schedule;
  schedule.gc_interval_ms = *settings_.store_gc_interval;
  schedule.scrub_interval_ms = *settings_.store_scrub_interval;
  if (SharesStore(settings_)) schedule.shared = store_->meta.get();
  if (Serves(kAdminService)) {
    schedule_ = std::make_unique<admin::Schedule>(schedule, *store_->chunks, *admin_, *scrubs_,
                                                  base::SystemClock());
  }

  Store* backups = volumes_->backup_store();
  if (backups == nullptr) return;
  backup_operations_ = std::make_unique<admin::Operations>(base::SystemClock());
  backup_scrubs_ = std::make_unique<admin::ScrubLog>(*backups->meta, base::SystemClock());
  backup_admin_ = std::make_unique<admin::AdminService>(*backups->chunks, *backup_operations_,
                                                        *verifier_, *backup_scrubs_);
}

Result<void> QuarryImpl::Announce() {
  const std::string& dir = *settings_.data_dir;
  // Another process of the store may have chosen the password.
  if (identity_ != nullptr && !password_.empty())
    RETURN_IF_ERROR(WriteCredentials(dir, public_url(), *settings_.region, password_));
  return WriteEndpoint(dir, base_url_);
}

void QuarryImpl::Stop() {
  if (std::exchange(stopped_, true)) return;
  if (server_ != nullptr) {
    RemoveEndpoint(*settings_.data_dir);
    server_->Stop();
  }
  if (schedule_ != nullptr) schedule_->Stop();
  if (operations_ != nullptr) operations_->Stop();
  if (backup_operations_ != nullptr) backup_operations_->Stop();
  if (volumes_ != nullptr) volumes_->Stop();
  if (volume_images_ != nullptr) volume_images_->Stop();
  if (data_path_ != nullptr) data_path_->Stop();
}

}  // namespace

imaged::ChecksumPolicy ChecksumOf(const std::string& name) {
  if (name == "off") return imaged::ChecksumPolicy::kOff;
  return name == "inline" ? imaged::ChecksumPolicy::kInline : imaged::ChecksumPolicy::kBackground;
}

Result<std::unique_ptr<Quarry>> Quarry::Start(const Settings& settings) {
  auto quarry = std::make_unique<QuarryImpl>(settings);
  RETURN_IF_ERROR(quarry->Start());
  return std::unique_ptr<Quarry>(std::move(quarry));
}

}  // namespace controlplane
