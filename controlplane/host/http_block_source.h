#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/http/client.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "controlplane/host/remote_image.h"

// Images and snapshots as a compute host reads them from a service over HTTP: the client's side of
// imaged/API.md, "Blocks". The service may lie as it likes: what it answers is checked and bounded
// before anything is believed.

namespace controlplane::host {

// What a login gives. The token is secret.
struct ServiceAccess {
  std::string token;
  std::string image_url;   // of the Image API, as the catalog has it
  std::string volume_url;  // of the Block Storage API; empty: there is none
};

struct HttpSourceOptions {
  size_t max_connections = 16;  // at once; who comes then waits for one
  int64_t connect_timeout_ms = 5'000;
  int64_t stall_timeout_ms = 15'000;  // no byte moved, or no answer yet
  int64_t try_timeout_ms = 120'000;   // one try in all: a service may drip
  // How often a read is tried whose connection broke, or that the service had no room for (503);
  // after the first try, the pauses between them grow from this one on.
  int tries = 3;
  int64_t pause_ms = 100;
};

// A login, and connections, for all sources of a host together: one token, made anew when it
// expires. Thread-safe; calls block. Everything that goes through it is a read, or may be done
// twice.
class ServiceSession {
 public:
  // Called from any thread, one at a time.
  using Login = std::function<base::Result<ServiceAccess>()>;

  // Logs in. The login's errors.
  static base::Result<std::shared_ptr<ServiceSession>> Open(Login login,
                                                            const HttpSourceOptions& options);
  ~ServiceSession();

  enum class Api { kImage, kVolume };
  // Sends with the token; `target` is below the API's endpoint. `begin` makes the request, for each
  // try anew: one that broke off may go on where it stood. A status of
  // 400 or more becomes an Error with the service's sentence: kNotFound, kPermissionDenied,
  // kUnauthenticated (a fresh token was refused as well), kUnavailable, kConflict,
  // kInvalidArgument (also 406 and 415: it does not speak this), kIo.
  struct Target {
    Api api = Api::kImage;
    std::string path;
  };
  using Begin = std::function<base::http::ClientRequest()>;
  base::Result<base::http::Response> Call(const Target& target, const Begin& begin);

 private:
  class Lease;
  ServiceSession(Login login, const HttpSourceOptions& options);
  ServiceAccess Access();
  base::Result<void> LogInAgain(const std::string& refused_token);
  std::unique_ptr<base::http::Client> Take();
  void Give(std::unique_ptr<base::http::Client> client);
  base::Result<base::http::Response> Try(const Target& target, const Begin& begin,
                                         const ServiceAccess& access);

  const Login login_;
  const HttpSourceOptions options_;
  base::Mutex login_mutex_;  // before access_mutex_
  base::Mutex access_mutex_;
  ServiceAccess access_ GUARDED_BY(access_mutex_);
  base::Mutex mutex_;
  base::CondVar returned_;
  std::vector<std::unique_ptr<base::http::Client>> idle_ GUARDED_BY(mutex_);
  size_t in_use_ GUARDED_BY(mutex_) = 0;
};

// One image, or one snapshot of a volume. Thread-safe: as many calls at once as the session has
// connections. Errors as of BlockSource; besides kUnauthenticated, and kInvalidArgument from a
// service that does not speak this.
//
// What a Fetch brings has the stored lengths that the service has now. They differ from those of an
// earlier Table only if the chunk was stored anew in between (a damaged one was healed): the reader
// then finds blocks that are not those of its table, and takes the table again.
class HttpBlockSource : public RemoteImage {
 public:
  static std::shared_ptr<HttpBlockSource> OfImage(std::shared_ptr<ServiceSession> session,
                                                  std::string_view image_id);
  static std::shared_ptr<HttpBlockSource> OfSnapshot(std::shared_ptr<ServiceSession> session,
                                                     std::string_view snapshot_id);
  ~HttpBlockSource() override;

  base::Result<std::vector<chunkstore::layers::BlockInfo>> Table(uint64_t index) override;
  // A broken connection is taken up again behind the last block that came.
  base::Result<void> Fetch(uint64_t index, std::span<const size_t> numbers,
                           const Sink& sink) override;

  // Any number of chunks, in any order: as many calls as it takes.
  base::Result<std::vector<RemoteImage::Table>> Tables(std::span<const uint64_t> chunks) override;
  base::Result<Shape> ReadShape() override;

  // Snapshots have none: nothing, and kInvalidArgument for writing. A trace that was recorded of
  // other bytes than the image now has is refused: kConflict. kPermissionDenied for who may neither
  // change the image nor is a service.
  base::Result<std::optional<BootTrace>> ReadTrace() override;
  base::Result<void> WriteTrace(const BootTrace& trace) override;
  base::Result<void> DropTrace();

 private:
  struct Impl;
  explicit HttpBlockSource(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

}  // namespace controlplane::host
