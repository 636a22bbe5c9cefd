#include "controlplane/settings.h"

#include "base/bytes.h"
#include "base/limits.h"

namespace controlplane {
namespace {

constexpr int64_t kMinuteMs = 60'000;
constexpr int64_t kDayMs = 24 * 60 * kMinuteMs;

}  // namespace

Settings::Settings(base::ConfigBuilder& options)
    : data_dir(options.String("data-dir", "quarry-data", "directory for everything that is kept")),
      listen(options.String("listen", "127.0.0.1:9696",
                            "HOST:PORT to serve on; port 0 picks a free one")),
      public_url(options.String(
          "public-url", "",
          "base URL that clients reach the service under, if not the one they asked")),
      region(options.String("region", "RegionOne", "region in the catalog")),
      log_level(options.Choice("log.level", "info", {"debug", "info", "warn", "error"},
                               "least urgent lines that are logged")),
      http_io_threads(options.Int("http.io-threads", 2, 1, 64, "threads that serve sockets")),
      http_workers(options.Int("http.workers", 8, 1, 256, "threads that do the requests' work")),
      http_max_connections(options.Int("http.max-connections", base::kMaxConnections, 1, 1'000'000,
                                       "open connections; one more is answered 503")),
      http_idle_timeout(options.DurationMs("http.idle-timeout", base::kIdleTimeoutMs,
                                           "how long an idle connection is kept")),
      http_drain_timeout(options.DurationMs("http.drain-timeout", base::kDrainTimeoutMs,
                                            "how long a stop waits for requests in flight")),
      store_compression_level(
          options.Int("store.compression-level", 1, 0, 19, "zstd level; 0 stores everything raw")),
      store_cache(options.Bytes("store.cache", 128 * base::kMiB, "memory for decoded blocks")),
      store_reserve(
          options.Bytes("store.reserve", 64 * base::kMiB,
                        "disk space kept free for deletions; uploads end with 507 before")),
      store_background_rate(options.Bytes("store.background-rate", 200 * base::kMiB,
                                          "bytes a second that collector and scrub may move")),
      store_lease(options.DurationMs("store.lease", kMinuteMs,
                                     "an upload that gave no sign for so long was abandoned")),
      store_gc_interval(options.DurationMs("store.gc-interval", kMinuteMs,
                                           "how often the collector runs by itself; 0s: never")),
      store_scrub_interval(options.DurationMs("store.scrub-interval", 7 * kDayMs,
                                              "how often everything is verified; 0s: never")),
      auth_mode(options.Choice("auth.mode", "local", {"local", "keystone"},
                               "who vouches for tokens: this process, or a Keystone at auth.url")),
      auth_url(options.String("auth.url", "", "of the Keystone: http://host:port/v3")),
      auth_username(options.String("auth.username", "quarry", "service user that asks Keystone")),
      auth_password(options.Secret("auth.password", "its password")),
      auth_project(options.String("auth.project", "service", "its project")) {}

}  // namespace controlplane
