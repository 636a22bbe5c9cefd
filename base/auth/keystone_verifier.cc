#include "base/auth/keystone_verifier.h"

#include <algorithm>
#include <chrono>
#include <list>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/hash.h"
#include "base/http/client.h"
#include "base/json.h"
#include "base/log.h"
#include "base/thread_annotations.h"

namespace base::auth {
namespace {

// Our own token is renewed this long before it ends.
constexpr int64_t kRenewBeforeUs = 60 * kSecondUs;
constexpr size_t kMaxIdleClients = 8;
constexpr size_t kMaxTokenBytes = 16 * 1024;

using Answer = Result<std::shared_ptr<const Caller>>;
using Time = std::chrono::steady_clock::time_point;

int64_t LeftMs(Time until) {
  using std::chrono::milliseconds;
  return std::chrono::ceil<milliseconds>(until - std::chrono::steady_clock::now()).count();
}

Error NoAnswer() { return Error(Code::kUnavailable, "identity service: no answer in time"); }

std::string StringIn(const Json* value, std::string_view key) {
  return value == nullptr ? "" : FindString(*value, key).value_or("");
}

// Keystone lists what a role implies, too; one that is configured without that still means the same
// here.
void AddImpliedRoles(std::vector<std::string>* roles) {
  const auto has = [roles](std::string_view role) {
    return std::find(roles->begin(), roles->end(), role) != roles->end();
  };
  if (has("admin") && !has("member")) roles->push_back("member");
  if (has("member") && !has("reader")) roles->push_back("reader");
}

// What of an unknown form is no rule that allows anything.
void ReadAccessRules(const Json& token, Caller* caller) {
  const Json* credential = Find(token, "application_credential");
  const Json* rules = credential == nullptr ? nullptr : Find(*credential, "access_rules");
  if (rules == nullptr || rules->is_null()) return;
  caller->access_rules.emplace();
  if (!rules->is_array()) return;
  for (const Json& rule : rules->get_array()) {
    caller->access_rules->push_back(
        {StringIn(&rule, "service"), StringIn(&rule, "method"), StringIn(&rule, "path")});
  }
}

Result<std::shared_ptr<const Caller>> CallerOf(std::string_view text) {
  const Error unreadable(Code::kUnavailable, "the identity service's answer can't be read");
  const Result<Json> body = ParseJson(text);
  if (!body.has_value()) return unreadable;
  const Json* token = Find(*body, "token");
  const Json* user = token == nullptr ? nullptr : Find(*token, "user");
  if (user == nullptr) return unreadable;
  auto caller = std::make_shared<Caller>();
  caller->user_id = StringIn(user, "id");
  caller->user_name = StringIn(user, "name");
  caller->user_domain_id = StringIn(Find(*user, "domain"), "id");
  if (const Json* project = Find(*token, "project")) {
    caller->project_id = StringIn(project, "id");
    caller->project_name = StringIn(project, "name");
    caller->project_domain_id = StringIn(Find(*project, "domain"), "id");
  }
  caller->domain_id = StringIn(Find(*token, "domain"), "id");
  ReadAccessRules(*token, caller.get());
  caller->system_scope = Find(*token, "system") != nullptr;
  const Json* roles = Find(*token, "roles");
  if (roles != nullptr && roles->is_array()) {
    for (const Json& role : roles->get_array()) caller->roles.push_back(StringIn(&role, "name"));
  }
  AddImpliedRoles(&caller->roles);
  const Result<int64_t> expires_at = ParseTime(StringIn(token, "expires_at"));
  if (caller->user_id.empty() || !expires_at.has_value()) return unreadable;
  caller->expires_at_us = *expires_at;
  return std::shared_ptr<const Caller>(std::move(caller));
}

// Answers by the hash of their token: a memory image of this process tells no tokens. The caller
// locks.
class AnswerCache {
 public:
  AnswerCache(size_t max_entries, int64_t keep_ms)
      : max_entries_(max_entries), keep_ns_(keep_ms * 1'000'000) {}

  const Answer* Find(const Digest256& key, int64_t now_ns) {
    auto found = entries_.find(key);
    if (found == entries_.end() || now_ns - found->second->made_ns >= keep_ns_) return nullptr;
    order_.splice(order_.begin(), order_, found->second);
    return &found->second->answer;
  }

  void Put(const Digest256& key, int64_t now_ns, const Answer& answer) {
    auto found = entries_.find(key);
    if (found != entries_.end()) order_.erase(found->second);
    order_.push_front(Entry{key, now_ns, answer});
    entries_[key] = order_.begin();
    while (entries_.size() > max_entries_) {
      entries_.erase(order_.back().key);
      order_.pop_back();
    }
  }

 private:
  struct Entry {
    Digest256 key;
    int64_t made_ns = 0;
    Answer answer;
  };
  const size_t max_entries_;
  const int64_t keep_ns_;
  std::list<Entry> order_;  // the last used first
  std::unordered_map<Digest256, std::list<Entry>::iterator> entries_;
};

class KeystoneVerifier final : public TokenVerifier {
 public:
  KeystoneVerifier(KeystoneVerifierOptions options, const Clock& clock)
      : options_(std::move(options)),
        clock_(clock),
        cache_(std::max<size_t>(options_.cache_entries, 1), options_.cache_ms) {}

  Answer Verify(std::string_view token) override;

 private:
  // Someone asks about a token; others who want the same wait for his answer.
  struct Flight {
    bool done = false;
    Answer answer;
  };
  // One who waits for Keystone, himself or on a flight.
  struct Wait {
    Time until;
    bool patient = false;  // counts in patient_
    uint64_t logins = 0;   // that had ended before: what a later one comes to is shared
    bool probes = false;   // finds out, for all, whether Keystone answers again
  };
  struct Login {
    std::string token;
    int64_t expires_at_us = 0;
  };

  // What can be said without asking: from the cache, or that Keystone does not answer.
  std::optional<Answer> AtOnce(const Digest256& key) REQUIRES(mutex_);
  Wait BeginWait() REQUIRES(mutex_);
  void NoteFailure(const Error& error) REQUIRES(mutex_);
  Answer Join(const Flight& flight, Time until) REQUIRES(mutex_);
  // `answered` becomes true when Keystone said anything about the token, if only 500.
  Answer Ask(std::string_view token, const Wait& wait, bool* answered);
  Result<http::Response> Call(http::ClientRequest* request, Time until);
  // Our own token; a new one if it is nearly over, or is still `refused`. One logs in and all share
  // what comes of it.
  Result<std::string> OwnToken(std::string_view refused, const Wait& wait);
  Result<Login> LogIn(Time until);
  std::string LoginBody() const;

  const KeystoneVerifierOptions options_;
  const Clock& clock_;

  Mutex mutex_;
  CondVar changed_;  // a flight or a login has ended
  AnswerCache cache_ GUARDED_BY(mutex_);
  std::unordered_map<Digest256, std::shared_ptr<Flight>> flights_ GUARDED_BY(mutex_);
  size_t patient_ GUARDED_BY(mutex_) = 0;
  std::optional<Error> failure_ GUARDED_BY(mutex_);  // until Keystone answers
  int64_t failed_ns_ GUARDED_BY(mutex_) = 0;
  bool probing_ GUARDED_BY(mutex_) = false;

  Login own_ GUARDED_BY(mutex_);
  bool logging_in_ GUARDED_BY(mutex_) = false;
  uint64_t logins_ GUARDED_BY(mutex_) = 0;                 // that have ended
  std::optional<Error> login_failure_ GUARDED_BY(mutex_);  // of the last

  Mutex clients_mutex_;
  std::vector<std::unique_ptr<http::Client>> clients_ GUARDED_BY(clients_mutex_);
};

Answer KeystoneVerifier::Verify(std::string_view token) {
  const bool printable =
      std::all_of(token.begin(), token.end(), [](char c) { return c > ' ' && c < 0x7f; });
  if (token.empty() || token.size() > kMaxTokenBytes || !printable)
    return Error(Code::kUnauthenticated, "the token is malformed");
  const Digest256 key = Sha256(AsBytes(token));
  std::shared_ptr<Flight> flight;
  Wait wait;
  {
    MutexLock lock(mutex_);
    std::optional<Answer> known = AtOnce(key);
    if (known) return std::move(*known);
    wait = BeginWait();
    auto found = flights_.find(key);
    if (found != flights_.end()) {
      flight = found->second;
      Answer answer = Join(*flight, wait.until);
      if (wait.patient) --patient_;
      return answer;
    }
    flight = std::make_shared<Flight>();
    flights_[key] = flight;
    wait.probes = failure_.has_value();
    if (wait.probes) probing_ = true;
  }

  // The time before asking: what changes while the question is under way is not covered by the
  // answer.
  const int64_t asked_ns = clock_.MonotonicNs();
  bool answered = false;
  Answer answer = Ask(token, wait, &answered);
  const bool known = answer.has_value() || answer.error().code() == Code::kUnauthenticated;
  if (!known) LOG(kWarn, "auth", "can't verify a token: {}", answer.error().message());
  MutexLock lock(mutex_);
  if (known) cache_.Put(key, asked_ns, answer);
  // A connection that breaks off costs nobody time, and a token can be made to bring it about (some
  // Keystones close on a header that is too long): that is no reason to turn others away.
  if (answered) failure_.reset();
  if (!answered && LeftMs(wait.until) <= 0) NoteFailure(answer.error());
  if (wait.probes) probing_ = false;
  if (wait.patient) --patient_;
  flight->answer = answer;
  flight->done = true;
  flights_.erase(key);
  changed_.NotifyAll();
  return answer;
}

std::optional<Answer> KeystoneVerifier::AtOnce(const Digest256& key) {
  const int64_t now_ns = clock_.MonotonicNs();
  const Answer* cached = cache_.Find(key, now_ns);
  if (cached != nullptr) {
    if (!cached->has_value() || (**cached)->expires_at_us > clock_.NowUs()) return *cached;
    return Answer(Error(Code::kUnauthenticated, "the token has expired"));
  }
  const bool fails_fast =
      failure_ && (probing_ || now_ns - failed_ns_ < kKeystoneFailFastMs * 1'000'000);
  if (fails_fast) return Answer(*failure_);
  return std::nullopt;
}

KeystoneVerifier::Wait KeystoneVerifier::BeginWait() {
  Wait wait;
  wait.logins = logins_;
  wait.patient = patient_ < options_.max_waiting;
  if (wait.patient) ++patient_;
  const int64_t timeout_ms =
      wait.patient ? options_.timeout_ms : std::min(options_.timeout_ms, kKeystonePatienceMs);
  wait.until = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
  return wait;
}

void KeystoneVerifier::NoteFailure(const Error& error) {
  failure_ = error;
  failed_ns_ = clock_.MonotonicNs();
}

Answer KeystoneVerifier::Join(const Flight& flight, Time until) {
  while (!flight.done) {
    const int64_t left_ms = LeftMs(until);
    if (left_ms <= 0) return NoAnswer();
    changed_.WaitForMs(mutex_, left_ms);
  }
  return flight.answer;
}

Answer KeystoneVerifier::Ask(std::string_view token, const Wait& wait, bool* answered) {
  std::string refused;
  for (int attempt = 0; attempt < 2; ++attempt) {
    ASSIGN_OR_RETURN(const std::string own, OwnToken(refused, wait));
    http::ClientRequest request;
    request.url = options_.auth_url + "/auth/tokens?nocatalog";
    request.headers.Add("X-Auth-Token", own);
    request.headers.Add("X-Subject-Token", token);
    // Without it a token with access rules is not shown: whoever asks must keep to them.
    request.headers.Add("OpenStack-Identity-Access-Rules", "1.0");
    ASSIGN_OR_RETURN(const http::Response response, Call(&request, wait.until));
    if (response.status == 401) {
      refused = own;
      continue;
    }
    *answered = true;
    if (response.status == 404)
      return Error(Code::kUnauthenticated, "the identity service does not know this token");
    if (response.status != 200) {
      return Error(Code::kUnavailable, "the identity service answers " +
                                           std::to_string(response.status) + " to a validation");
    }
    return CallerOf(response.body);
  }
  return Error(Code::kUnavailable, "the identity service refuses our own token");
}

Result<http::Response> KeystoneVerifier::Call(http::ClientRequest* request, Time until) {
  request->total_timeout_ms = LeftMs(until);
  if (request->total_timeout_ms <= 0) return NoAnswer();
  std::unique_ptr<http::Client> client;
  {
    MutexLock lock(clients_mutex_);
    if (!clients_.empty()) {
      client = std::move(clients_.back());
      clients_.pop_back();
    }
  }
  if (client == nullptr) {
    http::ClientOptions client_options;
    client_options.connect_timeout_ms = options_.timeout_ms;
    client_options.stall_timeout_ms = options_.timeout_ms;
    client = std::make_unique<http::Client>(client_options);
  }
  Result<http::Response> response = client->Do(*request);
  MutexLock lock(clients_mutex_);
  if (clients_.size() < kMaxIdleClients) clients_.push_back(std::move(client));
  if (response.has_value()) return response;
  // Whatever kept it from answering is not the caller's fault.
  return Error(Code::kUnavailable, "identity service: " + response.error().message());
}

Result<std::string> KeystoneVerifier::OwnToken(std::string_view refused, const Wait& wait) {
  {
    MutexLock lock(mutex_);
    while (true) {
      const bool usable = !own_.token.empty() && own_.token != refused &&
                          clock_.NowUs() < own_.expires_at_us - kRenewBeforeUs;
      if (usable) return own_.token;
      if (login_failure_ && logins_ != wait.logins) return *login_failure_;
      if (!logging_in_) break;
      const int64_t left_ms = LeftMs(wait.until);
      if (left_ms <= 0) return NoAnswer();
      changed_.WaitForMs(mutex_, left_ms);
    }
    logging_in_ = true;
  }
  Result<Login> login = LogIn(wait.until);
  MutexLock lock(mutex_);
  logging_in_ = false;
  ++logins_;
  login_failure_.reset();
  changed_.NotifyAll();
  if (!login.has_value()) {
    login_failure_ = login.error();
    NoteFailure(login.error());
    return std::move(login).error();
  }
  own_ = std::move(*login);
  return own_.token;
}

Result<KeystoneVerifier::Login> KeystoneVerifier::LogIn(Time until) {
  http::ClientRequest request;
  request.method = "POST";
  request.url = options_.auth_url + "/auth/tokens";
  request.headers.Add("Content-Type", "application/json");
  request.body = LoginBody();
  ASSIGN_OR_RETURN(const http::Response response, Call(&request, until));
  if (response.status != 201) {
    return Error(Code::kUnavailable, "the identity service answers " +
                                         std::to_string(response.status) + " to the login of \"" +
                                         options_.username + "\"; check the service user");
  }
  ASSIGN_OR_RETURN(const std::shared_ptr<const Caller> self, CallerOf(response.body));
  Login login{std::string(response.headers.Get("X-Subject-Token")), self->expires_at_us};
  if (login.token.empty())
    return Error(Code::kUnavailable, "the identity service's login answer has no token");
  return login;
}

std::string KeystoneVerifier::LoginBody() const {
  const JsonObject user = {{"name", options_.username},
                           {"password", options_.password},
                           {"domain", {{"name", options_.user_domain}}}};
  const JsonObject project = {{"name", options_.project},
                              {"domain", {{"name", options_.project_domain}}}};
  const Json body = {
      {"auth",
       {{"identity", {{"methods", JsonArray{"password"}}, {"password", {{"user", user}}}}},
        {"scope", {{"project", project}}}}}};
  return ToText(body);
}

}  // namespace

std::unique_ptr<TokenVerifier> MakeKeystoneVerifier(KeystoneVerifierOptions options,
                                                    const Clock& clock) {
  while (options.auth_url.ends_with('/')) options.auth_url.pop_back();
  if (!options.auth_url.ends_with("/v3")) options.auth_url += "/v3";
  return std::make_unique<KeystoneVerifier>(std::move(options), clock);
}

}  // namespace base::auth
