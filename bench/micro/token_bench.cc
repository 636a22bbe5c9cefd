#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <benchmark/benchmark.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/hash.h"
#include "chunkstore/memory/memory_meta_store.h"
#include "controlplane/identity/identity.h"
#include "controlplane/identity/sessions.h"
#include "controlplane/identity/store.h"

// What every request pays to learn who is calling: a token of the admin, scoped to its project.

namespace controlplane::identity {
namespace {

// Identity after its first start, with sessions of its own.
struct World {
  explicit World(size_t remembered) {
    options.token_cache_entries = remembered;
    auto identity = Identity::Open(options, meta, base::SystemClock());
    CHECK(identity.has_value());
    CHECK((*identity)->Bootstrap({.admin_password = "of no use here"}).has_value());
    auto opened = Store::Open(options.store, meta, base::SystemClock());
    CHECK(opened.has_value());
    store = std::move(*opened);
    sessions = std::make_unique<Sessions>(options, *store, base::SystemClock());
  }

  std::string Token() {
    const auto now = store->Read();
    CHECK(now.has_value());
    const int64_t now_us = base::SystemClock().NowUs();
    TokenPayload payload{.methods = kMethodPassword,
                         .scope = ScopeKind::kProject,
                         .user_id = (*now)->All(Kind::kUser).front()->id,
                         .issued_at_us = now_us,
                         .expires_at_us = now_us + 3'600'000'000,
                         .audit_id = base::RandomBytes(kAuditIdBytes)};
    for (const RecordPtr& project : (*now)->All(Kind::kProject)) {
      if (base::FindString(project->body, "name").value_or("") == "admin")
        payload.scope_id = project->id;
    }
    auto token = sessions->Seal(payload);
    CHECK(token.has_value());
    return *token;
  }

  Options options;
  chunkstore::MemoryMetaStore meta;
  std::unique_ptr<Store> store;
  std::unique_ptr<Sessions> sessions;
};

// A client that goes on using its token.
void BM_TokenValidate(benchmark::State& state) {
  static World world(Options().token_cache_entries);
  static const std::string token = world.Token();
  for (auto _ : state) CHECK(world.sessions->Verify(token).has_value());
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_TokenValidate)->ThreadRange(1, 2)->UseRealTime();

// A token that nobody remembers: opened, and its user, project and roles looked up. One entry is
// remembered in each shard, so with many tokens in turn nearly every one is new.
void BM_TokenValidateUnseen(benchmark::State& state) {
  World world(1);
  std::vector<std::string> tokens;
  for (int i = 0; i < 1000; ++i) tokens.push_back(world.Token());
  size_t next = 0;
  for (auto _ : state) CHECK(world.sessions->Verify(tokens[next++ % tokens.size()]).has_value());
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_TokenValidateUnseen)->UseRealTime();

}  // namespace
}  // namespace controlplane::identity
