#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/config.h"

namespace controlplane {

// Of NBD, as IANA assigned it.
constexpr uint16_t kNbdPort = 10809;

// What the setting `services` may name. Maintenance (gc, scrub) is admin's.
constexpr char kIdentityService[] = "identity";
constexpr char kImageService[] = "image";
constexpr char kVolumeService[] = "volume";
constexpr char kAdminService[] = "admin";

// Every option of the service, declared once, in the order in which `quarry serve --help` prints
// them. Borrows the builder, which holds the values and must outlive it.
struct Settings {
  template <typename T>
  using Option = base::ConfigBuilder::Option<T>;

  explicit Settings(base::ConfigBuilder& options);

  Option<std::string>& data_dir;
  Option<std::string>& listen;
  Option<std::vector<std::string>>& services;
  Option<std::string>& public_url;
  Option<std::string>& region;
  Option<std::string>& log_level;

  Option<int64_t>& http_io_threads;
  Option<int64_t>& http_workers;
  Option<int64_t>& http_max_connections;
  Option<int64_t>& http_idle_timeout;
  Option<int64_t>& http_stall_timeout;
  Option<uint64_t>& http_min_rate;
  Option<uint64_t>& http_body_memory;
  Option<std::vector<std::string>>& http_trusted_proxies;
  Option<int64_t>& http_drain_timeout;

  Option<std::string>& store_back_end;
  Option<int64_t>& store_compression_level;
  Option<uint64_t>& store_cache;
  Option<uint64_t>& store_reserve;
  Option<uint64_t>& store_background_rate;
  Option<int64_t>& store_lease;
  Option<int64_t>& store_gc_interval;
  Option<int64_t>& store_scrub_interval;

  Option<std::string>& ceph_conf;
  Option<std::string>& ceph_user;
  Option<std::string>& ceph_pool;
  Option<std::string>& ceph_meta_pool;
  Option<std::string>& ceph_namespace;
  Option<int64_t>& ceph_connect_timeout;
  Option<int64_t>& ceph_timeout;

  Option<std::string>& image_hash_algorithm;
  Option<std::string>& image_checksum;
  Option<uint64_t>& image_size_cap;
  Option<uint64_t>& image_upload_memory;
  Option<uint64_t>& image_download_memory;
  Option<uint64_t>& image_kept_bytes;
  Option<int64_t>& image_quota_count;
  Option<uint64_t>& image_quota_bytes;
  Option<uint64_t>& image_quota_staged_bytes;
  Option<int64_t>& image_quota_uploads;
  Option<std::vector<std::string>>& image_import_methods;
  Option<std::vector<std::string>>& import_allowed_schemes;
  Option<std::vector<std::string>>& import_allowed_hosts;
  Option<std::vector<std::string>>& import_disallowed_hosts;
  Option<std::vector<std::string>>& import_allowed_ports;
  Option<std::vector<std::string>>& import_allowed_networks;
  Option<int64_t>& import_deadline;
  Option<int64_t>& import_project_limit;

  Option<std::vector<std::string>>& block_back_ends;
  Option<std::string>& block_rbd_pool;
  Option<int64_t>& block_rbd_parent_idle;
  Option<std::string>& block_nbd_listen;
  Option<std::string>& block_nbd_host;
  Option<int64_t>& block_nbd_port;
  Option<std::string>& block_nbd_socket;
  Option<std::string>& block_nbd_tls_cert;
  Option<std::string>& block_nbd_tls_key;
  Option<std::string>& block_nbd_tls_client_ca;
  Option<std::string>& block_nbd_tls_psk;
  Option<bool>& block_nbd_plain_text;
  Option<int64_t>& block_nbd_max_connections;
  Option<uint64_t>& block_nbd_memory;
  Option<int64_t>& block_nbd_deadline;
  Option<uint64_t>& block_seal_rate;
  Option<std::string>& block_live_dir;
  Option<int64_t>& block_convert_time;
  Option<uint64_t>& block_convert_memory;
  Option<std::string>& block_availability_zone;
  Option<std::string>& block_backup_dir;
  Option<uint64_t>& block_backup_rate;

  Option<int64_t>& identity_token_lifetime;
  Option<int64_t>& identity_token_key_rotation;
  Option<int64_t>& identity_password_passes;
  Option<uint64_t>& identity_password_memory;
  Option<int64_t>& identity_password_checks;
  Option<int64_t>& identity_lockout_failures;
  Option<int64_t>& identity_lockout_duration;
  Option<int64_t>& identity_unique_last_passwords;
  Option<std::string>& identity_admin_password;

  Option<std::string>& auth_mode;
  Option<std::string>& auth_url;
  Option<std::string>& auth_username;
  Option<std::string>& auth_password;
  Option<std::string>& auth_user_domain;
  Option<std::string>& auth_project;
  Option<std::string>& auth_project_domain;
};

}  // namespace controlplane
