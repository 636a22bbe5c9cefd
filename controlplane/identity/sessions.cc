#include "controlplane/identity/sessions.h"

#include <algorithm>

#include "base/coding.h"
#include "base/hash.h"
#include "base/log.h"
#include "controlplane/identity/roles.h"

namespace controlplane::identity {

using base::Code;
using base::Error;
using base::Result;

namespace {

Error Void(std::string_view why) {
  return Error(Code::kUnauthenticated, "the token does not hold any more: " + std::string(why));
}

// Tokens from before this instant are void: the record was disabled, or its password changed.
bool Outdated(const Record& record, const TokenPayload& token) {
  return token.issued_at_us <= Number(record, "_tokens_from_us");
}

Result<void> CheckUser(const Snapshot& now, const Record* user, const TokenPayload& token) {
  if (user == nullptr) return Void("its user is gone");
  if (!Flag(*user, "enabled")) return Void("its user is disabled");
  RecordPtr domain = now.Get(Kind::kProject, Text(*user, "domain_id"));
  if (!DomainIsUsable(domain.get())) return Void("its user's domain is disabled");
  if (Outdated(*user, token) || Outdated(*domain, token)) return Void("it was revoked");
  return {};
}

std::vector<base::auth::AccessRule> AccessRulesOf(const Snapshot& now, const Record& credential) {
  std::vector<base::auth::AccessRule> rules;
  for (const std::string& id : Strings(credential.body, "_access_rule_ids")) {
    RecordPtr rule = now.Get(Kind::kAccessRule, id);
    if (rule == nullptr) continue;
    rules.push_back({std::string(Text(*rule, "service")), std::string(Text(*rule, "method")),
                     std::string(Text(*rule, "path"))});
  }
  return rules;
}

}  // namespace

void VoidTokensBefore(int64_t now_us, base::JsonObject& body) {
  body["_tokens_from_us"] = std::max(now_us + kMaxClockSkewUs, Number(body, "_tokens_from_us") + 1);
}

bool Session::may_delegate() const {
  if (trust != nullptr) return false;
  return application_credential == nullptr || Flag(*application_credential, "unrestricted");
}

bool Session::has_access_rules() const {
  return application_credential != nullptr &&
         application_credential->body.if_contains("_access_rule_ids") != nullptr;
}

Sessions::Sessions(const Options& options, Store& store, const base::Clock& clock)
    : options_(options), store_(store), clock_(clock) {}

Result<std::shared_ptr<const base::auth::Caller>> Sessions::Verify(std::string_view token) {
  ASSIGN_OR_RETURN(SessionPtr session, Resolve(token));
  const base::auth::Caller* caller = &session->caller;
  return std::shared_ptr<const base::auth::Caller>(std::move(session), caller);
}

Result<SessionPtr> Sessions::Resolve(std::string_view token) {
  // Another process may have made it just now, after changes that we have not seen yet.
  if (!IsKnown(token)) {
    ASSIGN_OR_RETURN(const SnapshotPtr latest, store_.Read(Store::kLatest));
    return ResolveIn(*latest, token);
  }
  ASSIGN_OR_RETURN(SnapshotPtr now, store_.Read());
  auto session = ResolveIn(*now, token);
  if (session.has_value() || session.error().code() != Code::kUnauthenticated) return session;
  // It may hold again. One look each few milliseconds settles it.
  constexpr int64_t kRetryAgeMs = 5;
  uint64_t seen = now->version();
  ASSIGN_OR_RETURN(now, store_.Read(kRetryAgeMs));
  return now->version() == seen ? session : ResolveIn(*now, token);
}

Result<SessionPtr> Sessions::ResolveIn(const Snapshot& now, std::string_view token) {
  if (token.size() > kMaxTokenBytes) return Void("it is no token");
  int64_t now_us = clock_.NowUs();
  {
    Shard& shard = ShardOf(token);
    base::MutexLock lock(shard.mutex);
    auto found = shard.entries.find(token);
    if (found != shard.entries.end() && found->second.version == now.version() &&
        now_us < found->second.session->valid_until_us)
      return found->second.session;
  }
  ASSIGN_OR_RETURN(std::string key_id, TokenKeyId(token));
  RecordPtr key = now.Get(Kind::kTokenKey, base::ToHex(key_id));
  if (key == nullptr) return Void("its key is gone");
  ASSIGN_OR_RETURN(std::string secret, base::FromHex(Text(*key, "_secret")));
  if (secret.size() != kTokenKeyBytes)
    return Error(Code::kCorruption, "a stored token key is damaged");
  ASSIGN_OR_RETURN(TokenPayload payload, OpenToken(token, secret));
  ASSIGN_OR_RETURN(SessionPtr session, Evaluate(now, std::move(payload)));
  Remember(token, Entry{now.version(), session, {}, nullptr});
  return session;
}

bool Sessions::IsKnown(std::string_view token) {
  Shard& shard = ShardOf(token);
  base::MutexLock lock(shard.mutex);
  return shard.entries.contains(token);
}

void Sessions::Remember(std::string_view token, Entry entry) {
  Shard& shard = ShardOf(token);
  base::MutexLock lock(shard.mutex);
  // Full: forget all. What is in use is back within a request each.
  if (shard.entries.size() >= std::max<size_t>(1, options_.token_cache_entries / kShards))
    shard.entries.clear();
  shard.entries.insert_or_assign(std::string(token), std::move(entry));
}

Result<std::shared_ptr<const std::string>> Sessions::Document(std::string_view token,
                                                              std::string_view base_url,
                                                              const Render& render) {
  ASSIGN_OR_RETURN(SessionPtr session, Resolve(token));
  ASSIGN_OR_RETURN(SnapshotPtr now, store_.Read());
  Shard& shard = ShardOf(token);
  {
    base::MutexLock lock(shard.mutex);
    auto found = shard.entries.find(token);
    if (found != shard.entries.end() && found->second.version == now->version() &&
        found->second.document != nullptr && found->second.document_base_url == base_url)
      return found->second.document;
  }
  auto document = std::make_shared<const std::string>(render(*session, *now));
  Remember(token, Entry{now->version(), std::move(session), std::string(base_url), document});
  return document;
}

Result<SessionPtr> Sessions::Evaluate(const Snapshot& now, TokenPayload payload) const {
  auto session = std::make_shared<Session>();
  session->token = std::move(payload);
  const TokenPayload& token = session->token;
  int64_t now_us = clock_.NowUs();
  if (token.expires_at_us <= now_us) return Void("it has expired");
  if (now.Get(Kind::kRevocation, base::ToHex(token.audit_id)) != nullptr)
    return Void("it was revoked");
  session->valid_until_us = token.expires_at_us;
  session->user = now.Get(Kind::kUser, token.user_id);
  RETURN_IF_ERROR(CheckUser(now, session->user.get(), token));
  session->user_domain = now.Get(Kind::kProject, Text(*session->user, "domain_id"));
  RETURN_IF_ERROR(ResolveScope(now, *session));
  if (session->scoped()) RETURN_IF_ERROR(ResolveRoles(now, *session));
  if (session->valid_until_us <= now_us) return Void("what it was made from has expired");

  base::auth::Caller& caller = session->caller;
  caller.user_id = session->user->id;
  caller.user_name = Text(*session->user, "name");
  caller.user_domain_id = Text(*session->user, "domain_id");
  if (session->project != nullptr) {
    caller.project_id = session->project->id;
    caller.project_name = Text(*session->project, "name");
    caller.project_domain_id = Text(*session->project, "domain_id");
  }
  if (session->domain != nullptr) caller.domain_id = session->domain->id;
  caller.system_scope = token.scope == ScopeKind::kSystem;
  for (const RecordPtr& role : session->roles) caller.roles.emplace_back(Text(*role, "name"));
  caller.expires_at_us = session->valid_until_us;
  if (session->has_access_rules())
    caller.access_rules = AccessRulesOf(now, *session->application_credential);
  return SessionPtr(std::move(session));
}

Result<void> Sessions::ResolveScope(const Snapshot& now, Session& session) const {
  const TokenPayload& token = session.token;
  if (token.scope == ScopeKind::kProject) {
    session.project = now.Get(Kind::kProject, token.scope_id);
    if (session.project == nullptr || !ProjectIsUsable(now, *session.project))
      return Void("its project is gone or disabled");
    session.project_domain = now.Get(Kind::kProject, Text(*session.project, "domain_id"));
    if (Outdated(*session.project, token) || Outdated(*session.project_domain, token))
      return Void("it was revoked");
  } else if (token.scope == ScopeKind::kDomain) {
    session.domain = now.Get(Kind::kProject, token.scope_id);
    if (!DomainIsUsable(session.domain.get())) return Void("its domain is gone or disabled");
    if (Outdated(*session.domain, token)) return Void("it was revoked");
  }
  auto limit = [&](const Record& source) {
    int64_t until_us = Number(source, "_expires_us");
    if (until_us > 0) session.valid_until_us = std::min(session.valid_until_us, until_us);
  };
  if (!token.application_credential_id.empty()) {
    session.application_credential =
        now.Get(Kind::kApplicationCredential, token.application_credential_id);
    if (session.application_credential == nullptr)
      return Void("its application credential is gone");
    limit(*session.application_credential);
  }
  if (!token.trust_id.empty()) {
    session.trust = now.Get(Kind::kTrust, token.trust_id);
    if (session.trust == nullptr) return Void("its trust is gone");
    limit(*session.trust);
    for (std::string_view side : {"trustor_user_id", "trustee_user_id"})
      RETURN_IF_ERROR(
          CheckUser(now, now.Get(Kind::kUser, Text(*session.trust, side)).get(), token));
  }
  return {};
}

Result<void> Sessions::ResolveRoles(const Snapshot& now, Session& session) const {
  const TokenPayload& token = session.token;
  Target target{token.scope, token.scope_id};
  std::string_view holder =
      session.trust != nullptr ? Text(*session.trust, "trustor_user_id") : token.user_id;
  std::set<std::string> held = AssignedRoleIds(now, holder, target);
  const Record* part =
      session.trust != nullptr ? session.trust.get() : session.application_credential.get();
  if (part != nullptr) {
    std::set<std::string> all = WithImplied(now, std::move(held));
    held.clear();
    for (std::string& id : Strings(part->body, "_role_ids")) {
      if (all.contains(id))
        held.insert(std::move(id));
      else
        return Void("a role that it passes on was taken away");
    }
  }
  session.roles = TokenRoles(now, held);
  if (session.roles.empty()) return Void("its user has no role there");
  return {};
}

Result<RecordPtr> Sessions::SigningKey() {
  int64_t now_us = clock_.NowUs();
  auto newest = [](const Snapshot& now) {
    RecordPtr best;
    for (RecordPtr& key : now.All(Kind::kTokenKey))
      if (best == nullptr || Number(*key, "_created_us") > Number(*best, "_created_us"))
        best = std::move(key);
    return best;
  };
  ASSIGN_OR_RETURN(SnapshotPtr now, store_.Read());
  RecordPtr key = newest(*now);
  int64_t oldest_us = now_us - options_.token_key_rotation_ms * 1000;
  if (key != nullptr && Number(*key, "_created_us") >= oldest_us) return key;
  RETURN_IF_ERROR(RotateKeysUnless(oldest_us));
  ASSIGN_OR_RETURN(now, store_.Read());
  key = newest(*now);
  if (key == nullptr) return Error(Code::kUnavailable, "there is no token key; try again");
  return key;
}

Result<void> Sessions::RotateKeysUnless(int64_t made_since_us) {
  int64_t now_us = clock_.NowUs();
  std::string id = base::ToHex(base::RandomBytes(kTokenKeyIdBytes));
  std::string secret = base::ToHex(base::RandomBytes(kTokenKeyBytes));
  return store_.Transact([&](Transaction& tx) -> Result<void> {
    // A key has signed nothing since the one after it was made, or not for long; a token's lifetime
    // later it is of no use.
    std::vector<RecordPtr> keys = tx.now().All(Kind::kTokenKey);
    std::sort(keys.begin(), keys.end(), [](const RecordPtr& a, const RecordPtr& b) {
      return Number(*a, "_created_us") < Number(*b, "_created_us");
    });
    if (!keys.empty() && Number(*keys.back(), "_created_us") >= made_since_us) return {};
    LOG(kInfo, "identity", "a new token key {} signs from now on", id);
    int64_t dead_us = now_us - options_.token_lifetime_ms * 1000 - kKeySlackUs;
    for (size_t i = 0; i + 1 < keys.size(); ++i)
      if (Number(*keys[i + 1], "_created_us") < dead_us) tx.Remove(Kind::kTokenKey, keys[i]->id);
    tx.Put(Kind::kTokenKey, id, {{"_secret", secret}, {"_created_us", now_us}});
    return {};
  });
}

Result<std::string> Sessions::Seal(const TokenPayload& payload) {
  ASSIGN_OR_RETURN(RecordPtr key, SigningKey());
  ASSIGN_OR_RETURN(std::string key_id, base::FromHex(key->id));
  ASSIGN_OR_RETURN(std::string secret, base::FromHex(Text(*key, "_secret")));
  if (key_id.size() != kTokenKeyIdBytes || secret.size() != kTokenKeyBytes)
    return Error(Code::kCorruption, "a stored token key is damaged");
  return SealToken(payload, secret, key_id, base::RandomBytes(kTokenNonceBytes));
}

Result<void> Sessions::Revoke(const Session& session) {
  constexpr size_t kPruneAtOnce = 64;
  int64_t now_us = clock_.NowUs();
  return store_.Transact([&](Transaction& tx) -> Result<void> {
    size_t pruned = 0;
    for (const RecordPtr& old : tx.now().All(Kind::kRevocation)) {
      if (pruned == kPruneAtOnce) break;
      if (Number(*old, "_until_us") >= now_us) continue;
      tx.Remove(Kind::kRevocation, old->id);
      ++pruned;
    }
    const Record& user = *session.user;
    std::vector<RecordPtr> others = tx.now().Where(Index::kRevocationUser, {user.id});
    RecordPtr current = tx.now().Get(Kind::kUser, user.id);
    if (others.size() >= kMaxRevocationsOfUser && current != nullptr) {
      // One stamp in place of a thousand records: all tokens of this user end.
      for (const RecordPtr& other : others) tx.Remove(Kind::kRevocation, other->id);
      base::JsonObject body = current->body;
      VoidTokensBefore(now_us, body);
      tx.Put(Kind::kUser, user.id, std::move(body));
      return {};
    }
    tx.Put(Kind::kRevocation, base::ToHex(session.token.audit_id),
           {{"user_id", user.id}, {"_until_us", session.token.expires_at_us}});
    return {};
  });
}

}  // namespace controlplane::identity
