#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/thread_annotations.h"
#include "controlplane/identity/options.h"

namespace controlplane::identity {

// Hashes secrets with argon2id (libsodium's crypto_pwhash_str), at most password_checks_at_once at
// a time, so that a flood of logins cannot take the machine's memory. Thread-safe; blocks for tens
// of milliseconds.
class PasswordHasher {
 public:
  // kUnavailable if the system has no memory for the parameters.
  static base::Result<std::unique_ptr<PasswordHasher>> Create(const Options& options);

  // "$argon2id$v=19$m=65536,t=2,p=1$salt$hash". kUnavailable: too many are waiting.
  base::Result<std::string> Hash(std::string_view secret);

  // Does `secret` belong to `hash`? An empty or broken hash costs the same time and belongs to
  // nothing, so that the time of an answer does not tell whether there is such a user.
  base::Result<bool> Verify(std::string_view secret, std::string_view hash);

 private:
  explicit PasswordHasher(const Options& options) : options_(options) {}
  class Turn;
  base::Result<void> Wait() EXCLUDES(mutex_);
  void Done() EXCLUDES(mutex_);
  base::Result<std::string> HashNow(std::string_view secret);

  const Options options_;
  std::string decoy_;  // the hash of a random secret
  base::Mutex mutex_;
  base::CondVar freed_;
  size_t running_ GUARDED_BY(mutex_) = 0;
  size_t waiting_ GUARDED_BY(mutex_) = 0;
};

}  // namespace controlplane::identity
