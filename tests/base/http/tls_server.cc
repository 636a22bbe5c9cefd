#include "tests/base/http/tls_server.h"

#include <thread>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"

namespace base::http {

struct TlsServer::Impl {
  int listener = -1;
  uint16_t port = 0;
  SSL_CTX* context = nullptr;
  std::string pem;
  std::thread thread;

  void MakeCertificate();
  void Listen();
  void Serve();
};

void TlsServer::Impl::MakeCertificate() {
  EVP_PKEY* key = EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "P-256");
  X509* made = X509_new();
  ASN1_INTEGER_set(X509_get_serialNumber(made), 1);
  X509_gmtime_adj(X509_getm_notBefore(made), -3600);
  X509_gmtime_adj(X509_getm_notAfter(made), 3600);
  X509_set_version(made, 2);
  X509_set_pubkey(made, key);
  X509_NAME* name = X509_get_subject_name(made);
  const auto* text = reinterpret_cast<const unsigned char*>("localhost");
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, text, -1, -1, 0);
  X509_set_issuer_name(made, name);
  X509_EXTENSION* names =
      X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name, "DNS:localhost");
  X509_add_ext(made, names, -1);
  X509_EXTENSION_free(names);
  CHECK(X509_sign(made, key, EVP_sha256()) > 0);
  context = SSL_CTX_new(TLS_server_method());
  CHECK(SSL_CTX_use_certificate(context, made) == 1);
  CHECK(SSL_CTX_use_PrivateKey(context, key) == 1);
  BIO* memory = BIO_new(BIO_s_mem());
  PEM_write_bio_X509(memory, made);
  char* data = nullptr;
  const long size = BIO_get_mem_data(memory, &data);
  pem.assign(data, static_cast<size_t>(size));
  BIO_free(memory);
  X509_free(made);
  EVP_PKEY_free(key);
}

void TlsServer::Impl::Listen() {
  listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  CHECK(::bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
  CHECK(::listen(listener, 8) == 0);
  socklen_t size = sizeof(address);
  CHECK(::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) == 0);
  port = ntohs(address.sin_port);
}

void TlsServer::Impl::Serve() {
  while (true) {
    const int client = ::accept(listener, nullptr, nullptr);
    if (client < 0) return;
    SSL* ssl = SSL_new(context);
    SSL_set_fd(ssl, client);
    char buffer[4096];
    if (SSL_accept(ssl) == 1 && SSL_read(ssl, buffer, sizeof(buffer)) > 0) {
      const bool refused = buffer[0] == 'P';
      const std::string answer = std::string(refused ? "HTTP/1.1 413 Large" : "HTTP/1.1 200 OK") +
                                 "\r\nContent-Length: 6\r\n\r\nsecure";
      SSL_write(ssl, answer.data(), static_cast<int>(answer.size()));
      while (refused && SSL_read(ssl, buffer, sizeof(buffer)) > 0) {
      }
      SSL_shutdown(ssl);
    }
    SSL_free(ssl);
    ::close(client);
  }
}

TlsServer::TlsServer() : impl_(std::make_unique<Impl>()) {
  impl_->MakeCertificate();
  impl_->Listen();
  impl_->thread = std::thread([this] { impl_->Serve(); });
}

TlsServer::~TlsServer() {
  ::shutdown(impl_->listener, SHUT_RDWR);
  impl_->thread.join();
  ::close(impl_->listener);
  SSL_CTX_free(impl_->context);
}

std::string TlsServer::url(const std::string& host) const {
  return "https://" + host + ":" + std::to_string(impl_->port) + "/";
}

const std::string& TlsServer::certificate() const { return impl_->pem; }

}  // namespace base::http
