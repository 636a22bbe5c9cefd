#include "controlplane/identity/password.h"

#include <sodium.h>

#include "base/hash.h"

namespace controlplane::identity {

using base::Code;
using base::Error;
using base::Result;

// Holds one of the places; gives it back when it goes.
class PasswordHasher::Turn {
 public:
  explicit Turn(PasswordHasher& hasher) : hasher_(hasher) {}
  ~Turn() { hasher_.Done(); }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

 private:
  PasswordHasher& hasher_;
};

Result<std::unique_ptr<PasswordHasher>> PasswordHasher::Create(const Options& options) {
  if (sodium_init() < 0) return Error(Code::kUnavailable, "libsodium does not start");
  std::unique_ptr<PasswordHasher> hasher(new PasswordHasher(options));
  ASSIGN_OR_RETURN(hasher->decoy_, hasher->HashNow(base::RandomBytes(32)));
  return hasher;
}

Result<void> PasswordHasher::Wait() {
  base::MutexLock lock(mutex_);
  if (running_ >= options_.password_checks_at_once && waiting_ >= options_.password_checks_waiting)
    return Error(Code::kUnavailable, "too many logins at once; try again in a moment");
  ++waiting_;
  while (running_ >= options_.password_checks_at_once) freed_.Wait(mutex_);
  --waiting_;
  ++running_;
  return {};
}

void PasswordHasher::Done() {
  base::MutexLock lock(mutex_);
  --running_;
  freed_.NotifyOne();
}

Result<std::string> PasswordHasher::HashNow(std::string_view secret) {
  std::string hash(crypto_pwhash_STRBYTES, '\0');
  if (crypto_pwhash_str(hash.data(), secret.data(), secret.size(), options_.password_passes,
                        options_.password_memory_bytes) != 0)
    return Error(Code::kUnavailable, "not enough memory to hash a password");
  hash.resize(hash.find('\0'));
  return hash;
}

Result<std::string> PasswordHasher::Hash(std::string_view secret) {
  RETURN_IF_ERROR(Wait());
  Turn turn(*this);
  return HashNow(secret);
}

Result<bool> PasswordHasher::Verify(std::string_view secret, std::string_view hash) {
  RETURN_IF_ERROR(Wait());
  Turn turn(*this);
  bool real = hash.starts_with("$argon2id$") && hash.size() < crypto_pwhash_STRBYTES;
  std::string stored(real ? hash : std::string_view(decoy_));
  bool same = crypto_pwhash_str_verify(stored.c_str(), secret.data(), secret.size()) == 0;
  return same && real;
}

}  // namespace controlplane::identity
