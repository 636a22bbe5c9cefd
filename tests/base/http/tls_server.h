#pragma once

#include <memory>
#include <string>

namespace base::http {

// An HTTPS server with a certificate for "localhost" that it signed itself; answers "secure" to
// each connection's first request, and to a PUT or POST 413 before it has its body. Thread-safe.
class TlsServer {
 public:
  TlsServer();
  ~TlsServer();

  std::string url(const std::string& host) const;
  // The certificate as PEM, for a client that trusts it.
  const std::string& certificate() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace base::http
