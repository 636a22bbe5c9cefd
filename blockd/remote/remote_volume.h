#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "blockd/volume.h"

namespace blockd::remote {

struct RemoteSettings {
  // Of libnbd: nbd://HOST:PORT/NAME, nbds:// (TLS, never without), nbd+unix:///NAME?socket=PATH.
  // What comes after a "?" names no files: they are named below. A secret, as the name is one.
  std::string uri;
  // For nbds://; empty: the system's certificate authorities, no client certificate.
  std::string tls_certificates_dir;  // ca-cert.pem, client-cert.pem, client-key.pem
  std::string tls_psk_file;          // instead; lines of name:hex
  std::string tls_username;          // the name in it

  // A metadata context to ask for beside base:allocation; empty: none. See HasContext.
  std::string context;
  // As many as the server lets share one cache (multi-conn), else one.
  size_t connections = 4;
  // How long calls wait for a server that is gone before they fail; it is looked for after that,
  // too, and what comes once it is back is served.
  int64_t reconnect_ms = 30'000;
  // For one attempt to connect, with its handshake.
  int64_t connect_timeout_ms = 10'000;
  // A request that is not answered for so long breaks its connection: the server, or what is
  // between, hangs. More than the server's own deadline (30 s of Quarry's), as that answers EIO.
  int64_t request_timeout_ms = 60'000;
};

// A volume that is served over NBD elsewhere: every call is requests to the server, pieces of a
// long one and calls of many threads beside each other on each connection. Nothing is cached.
//
// A connection that breaks is made anew, and what was not answered is asked again, writes as well:
// right as long as nobody else writes this volume, and as durable as the server's memory of what
// it acknowledged without a flush. README.md says which breaks are safe, and why.
//
// Thread-safe. A call that waits for the server is in the caller's thread; one thread of our own
// for each connection. Errors besides those of Volume: kUnavailable when no connection came about
// in reconnect_ms (the server is down, or does not know the name any more).
class RemoteVolume : public Volume {
 public:
  // Connects, one attempt for each connection. kNotFound: the server has no such export;
  // kUnavailable: nobody there; kInvalidArgument: a URI that means nothing, a server with blocks
  // larger than a sector; kPermissionDenied: TLS.
  static base::Result<std::shared_ptr<RemoteVolume>> Open(RemoteSettings settings);
  // Cuts the connections. REQUIRES: no call is under way.
  ~RemoteVolume() override;

  // Of the server's last answer: a volume that grew is seen after a reconnection.
  uint64_t size_bytes() const override;
  base::Result<void> Read(uint64_t offset, base::MutableByteView into) override;
  base::Result<bool> TryRead(uint64_t offset, base::MutableByteView into) override;  // false
  base::Result<void> Write(uint64_t offset, base::ByteView data) override;
  base::Result<void> Zero(uint64_t offset, uint64_t length, bool free_space) override;
  base::Result<void> Flush() override;
  void Prefetch(uint64_t offset, uint64_t length) override;  // nothing
  base::Result<void> VisitExtents(uint64_t offset, uint64_t length,
                                  const ExtentVisitor& visit) override;

  // Several ranges, asked for at once.
  struct Part {
    uint64_t offset = 0;
    base::MutableByteView into;
  };
  base::Result<void> ReadParts(std::span<const Part> parts);

  bool read_only() const;

  // Whether the server knows the context that the settings name.
  bool HasContext() const;
  // What it says of [offset, offset + length): runs in order, without a gap. kNotFound without it.
  using StatusVisitor = std::function<bool(uint64_t length, uint32_t flags)>;
  base::Result<void> VisitContext(uint64_t offset, uint64_t length, const StatusVisitor& visit);

 private:
  struct Impl;
  explicit RemoteVolume(std::unique_ptr<Impl> impl);
  base::Result<void> VisitStatus(const std::string& context, uint64_t offset, uint64_t length,
                                 const StatusVisitor& visit);
  const std::unique_ptr<Impl> impl_;
};

}  // namespace blockd::remote
