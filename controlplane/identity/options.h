#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "base/clock.h"
#include "controlplane/identity/store.h"

namespace controlplane::identity {

// What may be set. Of these, controlplane/settings.cc offers an operator what it declares under
// "identity."; the rest is for tests.
struct Options {
  // How long a token is good for.
  int64_t token_lifetime_ms = 3'600'000;
  // A new signing key is made when the newest is this old; older keys verify until their tokens
  // have ended.
  int64_t token_key_rotation_ms = 24 * 3'600'000;
  // Tokens whose verification is remembered.
  size_t token_cache_entries = 10'000;

  // argon2id: passes over the memory, and memory for each password check.
  uint64_t password_passes = 2;
  uint64_t password_memory_bytes = 64 * base::kMiB;
  // Password checks at once (each takes password_memory_bytes), and how many may wait; beyond it:
  // 503.
  size_t password_checks_at_once = 2;
  size_t password_checks_waiting = 64;

  // Wrong passwords in a row that lock a user; 0: never.
  int64_t lockout_failures = 10;
  // How long a locked user stays locked.
  int64_t lockout_ms = 60'000;
  // A user cannot set one of this many last passwords again, the current one counted; 0 or 1: any
  // is fine.
  int64_t unique_last_passwords = 0;

  StoreOptions store;
};

// Limits of the interface itself.
constexpr size_t kMaxPasswordBytes = 4096;
constexpr size_t kMaxTextBytes = 64 * 1024;  // a description, a policy's or a credential's blob
constexpr size_t kMaxIdBytes = 255;          // a region's id, which clients choose
constexpr size_t kMaxOwnedByUser = 1000;     // credentials, application credentials, trusts: each
constexpr size_t kMaxRevocationsOfUser = 1000;  // single tokens; one more ends all its tokens
constexpr size_t kMaxTags = 80;                 // of a project
constexpr size_t kMaxExtraMembers = 64;         // that Keystone knows nothing of, in one object
constexpr size_t kMaxListItems = 10'000;        // in one answer; then "truncated": true
constexpr size_t kMaxAccessRules = 64;          // of an application credential
constexpr size_t kMaxPasswordHistory = 10;      // unique_last_passwords is at most this
constexpr size_t kMaxProjectDepth = 16;         // project under project
constexpr size_t kMaxAuthBodyBytes = 16 * 1024;
constexpr size_t kMaxTokenBytes = 255;  // as text; longer ones are refused unread
// By how much the clocks of two processes may differ: what ends tokens by time counts so much more.
constexpr int64_t kMaxClockSkewUs = base::kSecondUs;
// How long a signing key may be used after a newer one was made: by a process that stood still.
constexpr int64_t kKeySlackUs = 60 * base::kSecondUs;

}  // namespace controlplane::identity
