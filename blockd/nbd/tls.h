#pragma once

#include <memory>
#include <string>

#include "base/bytes.h"
#include "base/result.h"
#include "base/thread_annotations.h"

// TLS for NBD's STARTTLS: with certificates, with pre-shared keys, or both. OpenSSL is in tls.cc.

namespace blockd::nbd {

struct TlsSettings {
  std::string certificate_path;  // PEM, the chain; with key_path, or neither
  std::string key_path;
  // PEM: only clients with a certificate that these sign may enter. Empty: any may (what they
  // attach is decided by the export's name).
  std::string client_ca_path;
  // Lines "identity:hex key", as GnuTLS' psktool writes them. Mode 0600 is for the owner to keep.
  std::string psk_path;
};

// One connection's secrets, fed with and giving bytes: no socket. Thread-safe, so that one thread
// may read while another writes.
class TlsSession {
 public:
  virtual ~TlsSession() = default;
  // What came from the socket.
  virtual void Feed(base::ByteView cipher) = 0;
  // True when it is done; false: feed more. An error is final. Output may be waiting in all cases.
  virtual base::Result<bool> Handshake() = 0;
  // How much plain text was there; 0: feed more. kUnavailable at the peer's end.
  virtual base::Result<size_t> Read(base::MutableByteView plain) = 0;
  virtual base::Result<void> Write(base::ByteView plain) = 0;
  // Appends what is to be sent.
  virtual void TakeOutput(std::string* cipher) = 0;
};

// Keys and certificates, read once. Immutable: Thread-safe.
class TlsContext {
 public:
  // kInvalidArgument for files that can't be read or don't fit together; says which.
  static base::Result<std::shared_ptr<const TlsContext>> Create(const TlsSettings& settings);
  ~TlsContext();
  base::Result<std::unique_ptr<TlsSession>> NewSession() const;

 private:
  struct Impl;
  explicit TlsContext(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace blockd::nbd
