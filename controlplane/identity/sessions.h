#pragma once

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/auth/caller.h"
#include "base/auth/verifier.h"
#include "base/clock.h"
#include "base/thread_annotations.h"
#include "controlplane/identity/options.h"
#include "controlplane/identity/store.h"
#include "controlplane/identity/token_codec.h"

namespace controlplane::identity {

// A token that holds: who is calling, and the records behind it as they were at one version.
// Immutable.
struct Session {
  base::auth::Caller caller;
  TokenPayload token;
  RecordPtr user;
  RecordPtr user_domain;
  RecordPtr project;                 // or null
  RecordPtr project_domain;          // or null
  RecordPtr domain;                  // or null
  RecordPtr application_credential;  // or null
  RecordPtr trust;                   // or null
  std::vector<RecordPtr> roles;      // implied ones included
  int64_t valid_until_us = 0;        // the token's end, or that of what it was made from

  bool scoped() const { return token.scope != ScopeKind::kUnscoped; }
  // May it make further credentials (application credentials, trusts)? One made from a restricted
  // application credential or from a trust may not.
  bool may_delegate() const;
  // Made from an application credential that allows only some calls of some services.
  bool has_access_rules() const;
};
using SessionPtr = std::shared_ptr<const Session>;

// Ends the tokens of a user, project or domain that were made before now, by whichever process; new
// ones are dated later (auth_api.cc). `body` is the record's.
void VoidTokensBefore(int64_t now_us, base::JsonObject& body);

// Makes tokens and says whom they stand for. What a token stands for is worked out from the
// snapshot each time the snapshot's version moved, and remembered in between; so whatever changes
// (a user disabled, a role taken away, a token revoked) holds from the next request on, and in
// other processes within StoreOptions::refresh_ms. Whatever is given holds there at once: a token
// that a process sees for the first time, and one that seems void, are judged by the latest state.
// Thread-safe.
class Sessions : public base::auth::TokenVerifier {
 public:
  Sessions(const Options& options, Store& store, const base::Clock& clock);

  // For services in this process.
  base::Result<std::shared_ptr<const base::auth::Caller>> Verify(std::string_view token) override;

  base::Result<SessionPtr> Resolve(std::string_view token);

  // What a payload stands for in a snapshot. kUnauthenticated if it is void: expired, revoked, or
  // resting on something that is gone, disabled or changed.
  base::Result<SessionPtr> Evaluate(const Snapshot& now, TokenPayload payload) const;

  // A sealed token; makes a new key first if the newest is old.
  base::Result<std::string> Seal(const TokenPayload& payload);

  // Makes a new key that signs from now on. Older ones verify until the tokens they signed have
  // ended.
  base::Result<void> RotateKeys() { return RotateKeysUnless(INT64_MAX); }

  // Revokes one token, by its audit id, until it would have ended.
  base::Result<void> Revoke(const Session& session);

  // A text made from a session and remembered beside it, for one base URL.
  using Render = std::function<std::string(const Session&, const Snapshot&)>;
  base::Result<std::shared_ptr<const std::string>> Document(std::string_view token,
                                                            std::string_view base_url,
                                                            const Render& render);

 private:
  struct Entry {
    uint64_t version = 0;
    SessionPtr session;
    std::string document_base_url;
    std::shared_ptr<const std::string> document;
  };
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  struct Shard {
    base::Mutex mutex;
    std::unordered_map<std::string, Entry, Hash, std::equal_to<>> entries GUARDED_BY(mutex);
  };
  static constexpr size_t kShards = 16;

  Shard& ShardOf(std::string_view token) { return shards_[Hash()(token) % kShards]; }
  // The same unless there is a key made at this time or later: of several processes that find
  // theirs too old, one makes a new one.
  base::Result<void> RotateKeysUnless(int64_t made_since_us);
  void Remember(std::string_view token, Entry entry);
  bool IsKnown(std::string_view token);
  base::Result<SessionPtr> ResolveIn(const Snapshot& now, std::string_view token);
  base::Result<void> ResolveScope(const Snapshot& now, Session& session) const;
  base::Result<void> ResolveRoles(const Snapshot& now, Session& session) const;
  base::Result<RecordPtr> SigningKey();

  const Options& options_;
  Store& store_;
  const base::Clock& clock_;
  std::array<Shard, kShards> shards_;
};

}  // namespace controlplane::identity
