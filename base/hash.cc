#include "base/hash.h"

#include <cerrno>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <sys/random.h>
#ifdef __x86_64__
#include <xxh_x86dispatch.h>  // picks AVX2 or AVX-512 where there is; includes xxhash.h
#else
#include <xxhash.h>
#endif

#include "base/check.h"
#include "base/coding.h"

namespace base {
namespace {

// Looked up once: OpenSSL's own look-up by name costs as much as hashing a small page.
const EVP_MD* Sha256Method() {
  static const EVP_MD* method = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  CHECK(method != nullptr);
  return method;
}

const char* OpensslName(std::string_view algorithm) {
  if (algorithm == "md5") return "MD5";
  if (algorithm == "sha1") return "SHA1";
  if (algorithm == "sha256") return "SHA256";
  if (algorithm == "sha512") return "SHA512";
  if (algorithm == "blake2b") return "BLAKE2B512";
  return nullptr;
}

}  // namespace

std::string Digest256::hex() const { return ToHex(view()); }

Result<Digest256> Digest256::FromHex(std::string_view hex) {
  ASSIGN_OR_RETURN(std::string raw, base::FromHex(hex));
  return FromBytes(raw);
}

Result<Digest256> Digest256::FromBytes(std::string_view raw) {
  Digest256 digest;
  if (raw.size() != digest.bytes.size())
    return Error(Code::kInvalidArgument, "a SHA-256 has 32 bytes (64 hex digits)");
  std::memcpy(digest.bytes.data(), raw.data(), raw.size());
  return digest;
}

Digest256 Sha256(ByteView bytes) {
  Digest256 digest;
  CHECK(EVP_Digest(bytes.data(), bytes.size(), digest.bytes.data(), nullptr, Sha256Method(),
                   nullptr) == 1);
  return digest;
}

Hash128 Xxh3(ByteView bytes) {
  XXH128_hash_t hash = XXH3_128bits(bytes.data(), bytes.size());
  return {hash.low64, hash.high64};
}

struct Digester::Impl {
  EVP_MD* method = nullptr;
  EVP_MD_CTX* context = nullptr;
  bool finished = false;

  ~Impl() {
    EVP_MD_CTX_free(context);
    EVP_MD_free(method);
  }
};

Digester::Digester(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Digester::~Digester() = default;

Result<std::unique_ptr<Digester>> Digester::Create(std::string_view algorithm) {
  const char* name = OpensslName(algorithm);
  if (name == nullptr) {
    return Error(Code::kInvalidArgument, "'" + std::string(algorithm) +
                                             "' is no digest known here; choose one of md5, sha1, "
                                             "sha256, sha512, blake2b");
  }
  auto impl = std::make_unique<Impl>();
  impl->method = EVP_MD_fetch(nullptr, name, nullptr);
  impl->context = EVP_MD_CTX_new();
  // A system's crypto policy (FIPS) may forbid MD5: that is no broken promise of ours.
  if (impl->method == nullptr || impl->context == nullptr ||
      EVP_DigestInit_ex2(impl->context, impl->method, nullptr) != 1) {
    return Error(Code::kInvalidArgument,
                 "this machine's OpenSSL does not allow the digest " + std::string(algorithm));
  }
  return std::unique_ptr<Digester>(new Digester(std::move(impl)));
}

void Digester::Update(ByteView bytes) {
  CHECK(!impl_->finished);
  CHECK(EVP_DigestUpdate(impl_->context, bytes.data(), bytes.size()) == 1);
}

std::string Digester::FinishHex() {
  CHECK(!impl_->finished);
  impl_->finished = true;
  std::array<unsigned char, EVP_MAX_MD_SIZE> raw;
  unsigned size_bytes = 0;
  CHECK(EVP_DigestFinal_ex(impl_->context, raw.data(), &size_bytes) == 1);
  return ToHex(AsText(ByteView(raw.data(), size_bytes)));
}

std::array<uint8_t, 32> HmacSha256(std::string_view key, std::string_view message) {
  std::array<uint8_t, 32> mac;
  unsigned size_bytes = 0;
  CHECK(HMAC(Sha256Method(), key.data(), static_cast<int>(key.size()), AsBytes(message).data(),
             message.size(), mac.data(), &size_bytes) != nullptr);
  CHECK(size_bytes == mac.size());
  return mac;
}

bool SecretsEqual(std::string_view a, std::string_view b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

void FillRandom(MutableByteView out) {
  while (!out.empty()) {
    ssize_t got = getrandom(out.data(), out.size(), 0);
    if (got < 0 && errno == EINTR) continue;
    CHECK(got > 0);
    out = out.subspan(static_cast<size_t>(got));
  }
}

std::string RandomBytes(size_t count) {
  std::string bytes(count, '\0');
  FillRandom({reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()});
  return bytes;
}

}  // namespace base
