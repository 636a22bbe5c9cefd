#include "blockd/nbd/tls.h"

#include <climits>
#include <cstring>
#include <map>
#include <utility>

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "base/coding.h"
#include "base/files.h"

namespace blockd::nbd {
namespace {

constexpr size_t kMaxPskFileBytes = 1 * base::kMiB;
constexpr size_t kMinPskBytes = 16;   // less could be guessed
constexpr size_t kMaxPskBytes = 256;  // OpenSSL's own is 512
// A key is one of SHA-256 (RFC 8446, 4.2.11), and of no use under a suite with another hash: which
// OpenSSL minds by itself only where there is no certificate.
constexpr char kSuitesWithKeys[] =
    "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_256_GCM_SHA384";

using Keys = std::map<std::string, std::string, std::less<>>;

base::Error TlsError(base::Code code, std::string what) {
  const unsigned long number = ERR_peek_last_error();
  if (number != 0) {
    char text[256];
    ERR_error_string_n(number, text, sizeof(text));
    what += ": ";
    what += text;
  }
  ERR_clear_error();
  return base::Error(code, std::move(what));
}

base::Error BadFile(const std::string& path, const char* what) {
  return TlsError(base::Code::kInvalidArgument, path + ": " + what);
}

base::Result<Keys> ReadKeys(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, base::ReadWholeFile(path, kMaxPskFileBytes));
  Keys keys;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    if (line.empty() || line[0] == '#') continue;
    const size_t colon = line.rfind(':');
    const base::Result<std::string> key =
        colon == std::string::npos ? std::string() : base::FromHex(line.substr(colon + 1));
    if (!key.has_value() || key->empty() || key->size() > kMaxPskBytes) {
      return BadFile(path, "a line is not \"identity:hex key\"");
    }
    if (key->size() < kMinPskBytes) {
      return BadFile(path,
                     "a key is shorter than 16 bytes (32 hex digits); `openssl rand -hex 32` "
                     "makes a good one");
    }
    keys[line.substr(0, colon)] = *key;
  }
  if (keys.empty()) return BadFile(path, "no keys in it");
  return keys;
}

// OpenSSL's callback, for TLS 1.2 and 1.3: the key of an identity; 0 bytes for an unknown one.
unsigned int FindKey(SSL* ssl, const char* identity, unsigned char* key, unsigned int room) {
  const auto* keys = static_cast<const Keys*>(SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl)));
  const auto found = keys->find(std::string_view(identity));
  if (found == keys->end() || found->second.size() > room) return 0;
  std::memcpy(key, found->second.data(), found->second.size());
  return static_cast<unsigned int>(found->second.size());
}

int Clip(size_t size) { return static_cast<int>(std::min<size_t>(size, INT_MAX)); }

class OpenSslSession : public TlsSession {
 public:
  // Owns `ssl`, which owns the two memory buffers.
  OpenSslSession(SSL* ssl, BIO* in, BIO* out) : ssl_(ssl), in_(in), out_(out) {}
  ~OpenSslSession() override { SSL_free(ssl_); }

  void Feed(base::ByteView cipher) override {
    base::MutexLock lock(mutex_);
    BIO_write(in_, cipher.data(), Clip(cipher.size()));  // memory: takes all
  }

  base::Result<bool> Handshake() override {
    base::MutexLock lock(mutex_);
    ERR_clear_error();
    const int result = SSL_accept(ssl_);
    if (result == 1) return true;
    if (SSL_get_error(ssl_, result) == SSL_ERROR_WANT_READ) return false;
    return TlsError(base::Code::kUnauthenticated, "TLS handshake");
  }

  base::Result<size_t> Read(base::MutableByteView plain) override {
    base::MutexLock lock(mutex_);
    ERR_clear_error();
    const int result = SSL_read(ssl_, plain.data(), Clip(plain.size()));
    if (result > 0) return static_cast<size_t>(result);
    if (SSL_get_error(ssl_, result) == SSL_ERROR_WANT_READ) return size_t{0};
    return TlsError(base::Code::kUnavailable, "the TLS stream ended");
  }

  base::Result<void> Write(base::ByteView plain) override {
    if (plain.empty()) return {};
    base::MutexLock lock(mutex_);
    ERR_clear_error();
    if (SSL_write(ssl_, plain.data(), Clip(plain.size())) == Clip(plain.size())) return {};
    return TlsError(base::Code::kUnavailable, "can't encrypt");
  }

  void TakeOutput(std::string* cipher) override {
    base::MutexLock lock(mutex_);
    const size_t before = cipher->size();
    const size_t waiting = BIO_ctrl_pending(out_);
    if (waiting == 0) return;
    cipher->resize(before + waiting);
    BIO_read(out_, cipher->data() + before, Clip(waiting));
  }

 private:
  base::Mutex mutex_;
  SSL* const ssl_;
  BIO* const in_;
  BIO* const out_;
};

}  // namespace

struct TlsContext::Impl {
  SSL_CTX* context = nullptr;
  Keys keys;
  ~Impl() { SSL_CTX_free(context); }

  base::Result<void> Load(const TlsSettings& settings) {
    if (!settings.certificate_path.empty()) {
      if (SSL_CTX_use_certificate_chain_file(context, settings.certificate_path.c_str()) != 1) {
        return BadFile(settings.certificate_path, "no certificate chain that can be read");
      }
      if (SSL_CTX_use_PrivateKey_file(context, settings.key_path.c_str(), SSL_FILETYPE_PEM) != 1 ||
          SSL_CTX_check_private_key(context) != 1) {
        return BadFile(settings.key_path, "no private key of that certificate");
      }
    }
    if (!settings.client_ca_path.empty()) {
      if (SSL_CTX_load_verify_locations(context, settings.client_ca_path.c_str(), nullptr) != 1) {
        return BadFile(settings.client_ca_path, "no certificates that can be read");
      }
      SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
    }
    if (!settings.psk_path.empty()) {
      ASSIGN_OR_RETURN(keys, ReadKeys(settings.psk_path));
      SSL_CTX_set_app_data(context, &keys);
      SSL_CTX_set_psk_server_callback(context, FindKey);
      if (SSL_CTX_set_ciphersuites(context, kSuitesWithKeys) != 1)
        return TlsError(base::Code::kUnavailable, "can't start TLS with keys");
    }
    return {};
  }
};

TlsContext::TlsContext(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TlsContext::~TlsContext() = default;

base::Result<std::shared_ptr<const TlsContext>> TlsContext::Create(const TlsSettings& settings) {
  if (settings.certificate_path.empty() != settings.key_path.empty()) {
    return base::Error(base::Code::kInvalidArgument, "a certificate and its key belong together");
  }
  if (settings.certificate_path.empty() && settings.psk_path.empty()) {
    return base::Error(base::Code::kInvalidArgument, "TLS needs a certificate or a file of keys");
  }
  auto impl = std::make_unique<Impl>();
  impl->context = SSL_CTX_new(TLS_server_method());
  if (impl->context == nullptr) return TlsError(base::Code::kUnavailable, "can't start TLS");
  SSL_CTX_set_min_proto_version(impl->context, TLS1_2_VERSION);
  SSL_CTX_set_options(impl->context, SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_session_cache_mode(impl->context, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_num_tickets(impl->context, 0);
  RETURN_IF_ERROR(impl->Load(settings));
  return std::shared_ptr<const TlsContext>(new TlsContext(std::move(impl)));
}

base::Result<std::unique_ptr<TlsSession>> TlsContext::NewSession() const {
  SSL* ssl = SSL_new(impl_->context);
  BIO* in = BIO_new(BIO_s_mem());
  BIO* out = BIO_new(BIO_s_mem());
  if (ssl == nullptr || in == nullptr || out == nullptr) {
    SSL_free(ssl);
    BIO_free(in);
    BIO_free(out);
    return TlsError(base::Code::kUnavailable, "can't start TLS");
  }
  SSL_set_bio(ssl, in, out);
  SSL_set_accept_state(ssl);
  return std::unique_ptr<TlsSession>(new OpenSslSession(ssl, in, out));
}

}  // namespace blockd::nbd
