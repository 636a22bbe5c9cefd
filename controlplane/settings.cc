#include "controlplane/settings.h"

#include "base/bytes.h"
#include "base/http/server.h"
#include "base/limits.h"
#include "blockd/backup/chunk_backups.h"
#include "blockd/chunk/chunk_volume_store.h"
#include "blockd/nbd/server.h"
#include "blockd/rbd/rbd_volume_store.h"
#include "chunkstore/chunk_store.h"
#include "controlplane/convert/to_raw.h"
#include "imaged/data_options.h"

namespace controlplane {
namespace {

constexpr int64_t kMinuteMs = 60'000;
constexpr int64_t kHourMs = 60 * kMinuteMs;
constexpr int64_t kDayMs = 24 * kHourMs;

// The rooms know their defaults; a setting shows them.
const chunkstore::ChunkStoreOptions& StoreDefaults() {
  static const chunkstore::ChunkStoreOptions defaults;
  return defaults;
}
const imaged::DataOptions& ImageDefaults() {
  static const imaged::DataOptions defaults;
  return defaults;
}
const blockd::chunk::ChunkVolumeStoreOptions& VolumeDefaults() {
  static const blockd::chunk::ChunkVolumeStoreOptions defaults;
  return defaults;
}
const blockd::rbd::Options& RbdDefaults() {
  static const blockd::rbd::Options defaults;
  return defaults;
}
const blockd::backup::ChunkBackupsOptions& BackupDefaults() {
  static const blockd::backup::ChunkBackupsOptions defaults;
  return defaults;
}
const convert::Limits& ConvertDefaults() {
  static const convert::Limits defaults;
  return defaults;
}
const blockd::nbd::ServerSettings& NbdDefaults() {
  static const blockd::nbd::ServerSettings defaults;
  return defaults;
}
std::vector<std::string> PortsOf(const imaged::WebFetchOptions& web) {
  std::vector<std::string> ports;
  for (const int64_t port : web.allowed_ports) ports.push_back(std::to_string(port));
  return ports;
}

}  // namespace

Settings::Settings(base::ConfigBuilder& options)
    : data_dir(options.String("data_dir", "quarry-data", "directory for everything that is kept")),
      listen(options.String("listen", "127.0.0.1:9696",
                            "HOST:PORT to serve on; port 0 picks a free one")),
      services(options.List(
          "services", {kIdentityService, kImageService, kVolumeService, kAdminService},
          "what this process serves; the rest is other processes', of the same store")),
      public_url(options.String(
          "public_url", "",
          "base URL that clients reach the service under, for all links; none: as they asked")),
      region(options.String("region", "RegionOne", "region in the catalog")),
      log_level(options.Choice("log.level", "info", {"debug", "info", "warn", "error"},
                               "least urgent lines that are logged")),
      http_io_threads(options.Int("http.io_threads", 2, 1, 64, "threads that serve sockets")),
      http_workers(options.Int("http.workers", 8, 1, 256, "threads that do the requests' work")),
      http_max_connections(options.Int("http.max_connections", base::kMaxConnections, 1, 1'000'000,
                                       "open connections; one more is answered 503")),
      http_idle_timeout(options.DurationMs("http.idle_timeout", base::kIdleTimeoutMs,
                                           "how long an idle connection is kept")),
      http_stall_timeout(options.DurationMs("http.stall_timeout", base::kBodyStallTimeoutMs,
                                            "how long no byte of a body may move, either way")),
      http_min_rate(options.Bytes("http.min_rate", base::kMinBodyBytesPerSecond,
                                  "bytes a second of a body, either way, below which a client is "
                                  "cut off; 0: nobody is cut off")),
      http_body_memory(options.Bytes("http.body_memory", base::http::kBodyMemoryBytes,
                                     "memory of all request bodies that are read whole; one more "
                                     "than fits is answered 503")),
      http_trusted_proxies(options.List(
          "http.trusted_proxies", {},
          "networks (10.1.0.0/16) of proxies whose X-Forwarded-Proto and -Host links follow")),
      http_drain_timeout(options.DurationMs("http.drain_timeout", base::kDrainTimeoutMs,
                                            "how long a stop waits for requests in flight")),
      store_back_end(options.Choice(
          "store.back_end", "embedded", {"embedded", "ceph"},
          "where chunks and records are kept: in data_dir, by this process alone, or in Ceph, by "
          "any number of processes")),
      store_compression_level(options.Int("store.compression_level",
                                          StoreDefaults().compression_level, 0, 19,
                                          "zstd level; 0 stores everything raw")),
      store_cache(
          options.Bytes("store.cache", StoreDefaults().cache_bytes, "memory for decoded blocks")),
      store_reserve(
          options.Bytes("store.reserve", StoreDefaults().reserve_bytes,
                        "disk space kept free for deletions; uploads end with 507 before")),
      store_background_rate(options.Bytes("store.background_rate",
                                          StoreDefaults().background_bytes_per_s,
                                          "bytes a second that collector and scrub may move")),
      store_lease(options.DurationMs("store.lease", StoreDefaults().lease_ms,
                                     "an upload that gave no sign for so long was abandoned")),
      store_gc_interval(options.DurationMs("store.gc_interval", kMinuteMs,
                                           "how often the collector runs by itself; 0s: never")),
      store_scrub_interval(options.DurationMs("store.scrub_interval", 7 * kDayMs,
                                              "how often everything is verified; 0s: never")),
      ceph_conf(options.String(
          "ceph.conf", "",
          "ceph.conf of the cluster; none: $CEPH_CONF, or else where Ceph looks for it")),
      ceph_user(options.String("ceph.user", "admin", "Ceph user, without \"client.\"")),
      ceph_pool(options.String("ceph.pool", "quarry", "pool that chunks are kept in")),
      ceph_meta_pool(options.String(
          "ceph.meta_pool", "",
          "replicated pool that records are kept in, best on flash; none: that of the chunks")),
      ceph_namespace(options.String(
          "ceph.namespace", "quarry",
          "namespace in all pools: services can share them, and a Ceph user be kept to one")),
      ceph_connect_timeout(options.DurationMs("ceph.connect_timeout", kMinuteMs / 6,
                                              "how long a start waits for the cluster")),
      ceph_timeout(options.DurationMs(
          "ceph.timeout", kMinuteMs,
          "how long an operation waits for the cluster before it is an error; Ceph takes some 30 s "
          "to notice that a machine is gone")),
      image_hash_algorithm(options.Choice("image.hash_algorithm", ImageDefaults().hash_algorithm,
                                          {"sha256", "sha512"},
                                          "digest of whole images that the API shows")),
      image_checksum(options.Choice(
          "image.checksum", "background", {"off", "background", "inline"},
          "when the MD5 is made: never, some time after an upload, or as part of it (slower)")),
      image_size_cap(
          options.Bytes("image.size_cap", ImageDefaults().max_image_bytes, "largest image")),
      image_upload_memory(options.Bytes("image.upload_memory", ImageDefaults().upload_memory_bytes,
                                        "buffers of all uploads together")),
      image_download_memory(options.Bytes("image.download_memory",
                                          ImageDefaults().download_memory_bytes,
                                          "decoded pieces of all downloads together")),
      image_kept_bytes(options.Bytes("image.kept_bytes", ImageDefaults().kept_bytes,
                                     "of one project's pushes that broke off, kept for an hour "
                                     "for the next try; 0: nothing is")),
      image_quota_count(options.Int("image.quota_count", 0, 0, 1'000'000'000,
                                    "images of one project; 0: no limit")),
      image_quota_bytes(
          options.Bytes("image.quota_bytes", 0, "bytes of one project's images; 0: no limit")),
      image_quota_staged_bytes(options.Bytes("image.quota_staged_bytes", 0,
                                             "bytes that one project has staged; 0: no limit")),
      image_quota_uploads(options.Int("image.quota_uploads", 16, 0, 1'000'000'000,
                                      "uploads of one project at once; 0: no limit")),
      image_import_methods(options.List("image.import_methods", ImageDefaults().import_methods,
                                        "ways to import that are offered")),
      import_allowed_schemes(options.List("import.allowed_schemes",
                                          ImageDefaults().web.allowed_schemes,
                                          "URL schemes that web-download may fetch")),
      import_allowed_hosts(
          options.List("import.allowed_hosts", {}, "hosts that web-download may ask; none: all")),
      import_disallowed_hosts(
          options.List("import.disallowed_hosts", {}, "hosts that web-download may not ask")),
      import_allowed_ports(options.List("import.allowed_ports", PortsOf(ImageDefaults().web),
                                        "ports that it may ask")),
      import_allowed_networks(
          options.List("import.allowed_networks", {},
                       "private networks (10.1.0.0/16) that it may ask; others never")),
      import_deadline(options.DurationMs("import.deadline", ImageDefaults().web.deadline_ms,
                                         "how long one web-download may take at most")),
      import_project_limit(options.Int("import.project_limit",
                                       static_cast<int64_t>(ImageDefaults().project_imports), 1,
                                       1000, "imports of one project at work; others wait")),
      block_back_ends(options.List(
          "block.back_ends", {},
          "back ends of volumes that types may name: store (layers in data_dir over the chunk "
          "store), rbd; the first is the default. None: store where store.back_end is embedded, "
          "rbd where block.rbd_pool is set")),
      block_rbd_pool(options.String("block.rbd_pool", "",
                                    "pool of Ceph that volumes of the back end rbd are in")),
      block_rbd_parent_idle(options.DurationMs(
          "block.rbd_parent_idle", RbdDefaults().parent_idle_ms,
          "how long an image's copy in that pool, which its volumes are clones of, is kept when "
          "none is left, for the next ones to be made at once")),
      block_nbd_listen(options.String(
          "block.nbd_listen", "",
          "HOST:PORT that compute hosts attach volumes at; none: 127.0.0.1:10809, or any free "
          "port where --listen says 0")),
      block_nbd_host(options.String("block.nbd_host", "",
                                    "host name or address, without a port, that they are told to "
                                    "connect to; none: as block.nbd_listen")),
      block_nbd_port(
          options.Int("block.nbd_port", 0, 0, 65'535,
                      "port that they are told, of a proxy in front; 0: as block.nbd_listen")),
      block_nbd_socket(options.String("block.nbd_socket", "",
                                      "path of a unix socket for clients on this machine as well")),
      block_nbd_tls_cert(options.String("block.nbd_tls_cert", "",
                                        "PEM file with the NBD server's certificate and chain")),
      block_nbd_tls_key(options.String("block.nbd_tls_key", "", "PEM file with its key")),
      block_nbd_tls_client_ca(options.String(
          "block.nbd_tls_client_ca", "",
          "PEM file: only clients whose certificate these sign may attach; none: any")),
      block_nbd_tls_psk(options.String("block.nbd_tls_psk", "",
                                       "file of pre-shared keys, lines of \"name:hex\"")),
      block_nbd_plain_text(options.Bool(
          "block.nbd_plain_text", false,
          "let clients beyond loopback do without TLS, on a network that is secret by itself")),
      block_nbd_max_connections(options.Int("block.nbd_max_connections",
                                            static_cast<int64_t>(NbdDefaults().max_connections), 1,
                                            100'000,
                                            "open NBD connections, shared by projects: one alone "
                                            "has half of them")),
      block_nbd_memory(options.Bytes("block.nbd_memory", NbdDefaults().max_memory_bytes,
                                     "memory for NBD requests on their way, shared by projects")),
      block_nbd_deadline(options.DurationMs("block.nbd_deadline", NbdDefaults().request_deadline_ms,
                                            "a read or write that the disk leaves undone for so "
                                            "long is answered with an I/O error")),
      block_seal_rate(options.Bytes("block.seal_rate", VolumeDefaults().seal_bytes_per_s,
                                    "bytes a second at which snapshots are put into the store")),
      block_live_dir(options.String(
          "block.live_dir", "/dev/shm",
          "directory in memory (tmpfs) for what a kill of the service must not take: 64 KiB for "
          "each GiB of volumes in use; \"none\": a kill loses writes that were not flushed")),
      block_convert_time(options.DurationMs(
          "block.convert_time", ConvertDefaults().time_ms,
          "how long qemu-img may take to make an image of another format into a disk")),
      block_convert_memory(options.Bytes("block.convert_memory", ConvertDefaults().memory_bytes,
                                         "address space that it may take")),
      block_availability_zone(
          options.String("block.availability_zone", "nova", "zone of the volumes")),
      block_backup_dir(options.String(
          "block.backup_dir", "",
          "data directory that backups go to: another disk, or a mounted host; none: no backups")),
      block_backup_rate(options.Bytes("block.backup_rate", BackupDefaults().bytes_per_s,
                                      "bytes a second that backups and restores may move")),
      identity_token_lifetime(
          options.DurationMs("identity.token_lifetime", kHourMs, "how long a token is good for")),
      identity_token_key_rotation(options.DurationMs("identity.token_key_rotation", kDayMs,
                                                     "age at which a signing key is replaced")),
      identity_password_passes(
          options.Int("identity.password_passes", 2, 1, 100, "argon2id: passes over the memory")),
      identity_password_memory(options.Bytes("identity.password_memory", 64 * base::kMiB,
                                             "argon2id: memory of one password check")),
      identity_password_checks(
          options.Int("identity.password_checks", 2, 1, 64, "password checks at once")),
      identity_lockout_failures(options.Int("identity.lockout_failures", 10, 0, 1000,
                                            "wrong passwords in a row that lock a user; 0: never")),
      identity_lockout_duration(options.DurationMs("identity.lockout_duration", kMinuteMs,
                                                   "how long a locked user stays locked")),
      identity_unique_last_passwords(
          options.Int("identity.unique_last_passwords", 0, 0, 10,
                      "last passwords that can't be set again; 0: any can")),
      identity_admin_password(options.Secret(
          "identity.admin_password",
          "password of the user admin, if this start is the first; none: a random one. It is in "
          "clouds.yaml then")),
      auth_mode(options.Choice("auth.mode", "local", {"local", "keystone"},
                               "who vouches for tokens: this process, or a Keystone at auth.url")),
      auth_url(options.String("auth.url", "", "URL of the Keystone: http://host:port/v3")),
      auth_username(options.String("auth.username", "quarry",
                                   "service user that asks Keystone; with the role service")),
      auth_password(options.Secret("auth.password", "password of auth.username")),
      auth_user_domain(options.String("auth.user_domain", "Default", "its domain, by name")),
      auth_project(options.String("auth.project", "service", "its project")),
      auth_project_domain(
          options.String("auth.project_domain", "Default", "its project's domain, by name")) {}

}  // namespace controlplane
