#include "controlplane/admin/shared_operations.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/text.h"

namespace controlplane::admin {
namespace {

using base::Code;
using base::Error;
using base::Json;
using base::JsonObject;
using base::Result;

constexpr char kPartition[] = "admin";
constexpr char kSeenAt[] = "seen_at_us";

std::string StateKey(std::string_view id) { return std::string("o/").append(id); }
std::string KindKey(std::string_view kind) { return std::string("k/").append(kind); }
std::string CancelKey(std::string_view id) { return std::string("c/").append(id); }

bool IsRunning(const Json& state) { return base::FindString(state, "state") == "running"; }

Result<std::string> GetOr(chunkstore::MetaStore& meta, const std::string& key) {
  Result<std::string> value = meta.Get(kPartition, key);
  if (!value.has_value() && value.error().code() == Code::kNotFound) return std::string();
  return value;
}

// An empty value stands for none.
void Expect(chunkstore::MetaBatch* batch, const std::string& key, const std::string& value) {
  if (value.empty()) {
    batch->ExpectAbsent(key);
  } else {
    batch->ExpectValue(key, value);
  }
}

}  // namespace

std::string SharedOperations::Encode(const Json& state) const {
  JsonObject object = state.as_object();
  object[kSeenAt] = clock_.NowUs();
  return base::ToText(object);
}

// As it is now: what is not heard of any more has failed.
Result<Json> SharedOperations::Decode(std::string_view bytes) const {
  ASSIGN_OR_RETURN(Json state, base::ParseJson(bytes));
  if (!state.is_object()) return Error(Code::kCorruption, "an operation's record is not readable");
  const Json* seen = base::Find(state, kSeenAt);
  const int64_t seen_us = seen != nullptr && seen->is_int64() ? seen->as_int64() : 0;
  state.as_object().erase(kSeenAt);
  if (IsRunning(state) && clock_.NowUs() - seen_us > kOperationLeaseUs) {
    state.as_object()["state"] = "failed";
    state.as_object()["error"] = "the process that ran it has not been heard of for long";
  }
  return state;
}

Result<void> SharedOperations::Begin(const std::string& kind, const std::string& id,
                                     const Json& state) {
  RETURN_IF_ERROR(ForgetOld());
  ASSIGN_OR_RETURN(const std::string other, GetOr(meta_, KindKey(kind)));
  if (!other.empty()) {
    const Result<Json> described = Describe(other);
    if (!described.has_value() && described.error().code() != Code::kNotFound)
      return described.error();
    if (described.has_value() && IsRunning(*described))
      return Error(Code::kConflict,
                   fmt::format("a {} is running already: operation {}", kind, other));
  }
  chunkstore::MetaBatch batch;
  Expect(&batch, KindKey(kind), other);
  batch.Put(KindKey(kind), id).Put(StateKey(id), Encode(state));
  const Result<void> begun = meta_.Commit(kPartition, batch);
  if (!begun.has_value() && begun.error().code() == Code::kConflict)
    return Error(Code::kConflict, fmt::format("another process begins a {} just now", kind));
  return begun;
}

Result<bool> SharedOperations::Report(const std::string& kind, const std::string& id,
                                      const Json& state) {
  ASSIGN_OR_RETURN(const std::string cancelled, GetOr(meta_, CancelKey(id)));
  if (!cancelled.empty()) return false;
  chunkstore::MetaBatch batch;
  batch.ExpectValue(KindKey(kind), id).Put(StateKey(id), Encode(state));
  const Result<void> written = meta_.Commit(kPartition, batch);
  if (!written.has_value() && written.error().code() == Code::kConflict) return false;
  RETURN_IF_ERROR(written);
  return true;
}

Result<void> SharedOperations::End(const std::string& kind, const std::string& id,
                                   const Json& state) {
  chunkstore::MetaBatch batch;
  batch.ExpectValue(KindKey(kind), id).Delete(KindKey(kind));
  batch.Put(StateKey(id), Encode(state)).Delete(CancelKey(id));
  const Result<void> ended = meta_.Commit(kPartition, batch);
  if (ended.has_value() || ended.error().code() != Code::kConflict) return ended;
  // It was held for dead, and another one runs.
  chunkstore::MetaBatch late;
  late.Put(StateKey(id), Encode(state)).Delete(CancelKey(id));
  return meta_.Commit(kPartition, late);
}

Result<Json> SharedOperations::Describe(std::string_view id) {
  const Result<std::string> bytes = meta_.Get(kPartition, StateKey(id));
  if (bytes.has_value()) return Decode(*bytes);
  if (bytes.error().code() == Code::kNotFound)
    return Error(Code::kNotFound, fmt::format("no operation {}", id));
  return bytes.error();
}

Result<std::vector<Json>> SharedOperations::DescribeAll() {
  std::vector<Json> all;
  Result<void> bad;
  const std::string prefix = StateKey("");
  RETURN_IF_ERROR(meta_.Scan(kPartition, prefix, chunkstore::PrefixEnd(prefix), SIZE_MAX,
                             [&](std::string_view, std::string_view value) {
                               Result<Json> state = Decode(value);
                               if (state.has_value())
                                 all.push_back(*std::move(state));
                               else
                                 bad = state.error();
                               return bad.has_value();
                             }));
  RETURN_IF_ERROR(bad);
  return all;
}

Result<void> SharedOperations::Cancel(std::string_view id) {
  ASSIGN_OR_RETURN(const Json state, Describe(id));
  if (!IsRunning(state)) return {};
  chunkstore::MetaBatch batch;
  batch.Put(CancelKey(id), "1");
  return meta_.Commit(kPartition, batch);
}

Result<void> SharedOperations::ForgetOld() {
  ASSIGN_OR_RETURN(std::vector<Json> all, DescribeAll());
  if (all.size() < kMaxKept) return {};
  std::erase_if(all, IsRunning);
  const auto began = [](const Json& state) {
    return base::FindString(state, "started_at").value_or("");
  };
  std::ranges::sort(all, {}, began);
  constexpr size_t kKeep = kMaxKept / 2;
  if (all.size() <= kKeep) return {};
  all.resize(all.size() - kKeep);
  chunkstore::MetaBatch batch;
  for (const Json& state : all) {
    const std::string id = base::FindString(state, "id").value_or("");
    batch.Delete(StateKey(id)).Delete(CancelKey(id));
  }
  return meta_.Commit(kPartition, batch);
}

Result<bool> SharedTurn::Take(int64_t for_ms) {
  if (meta_ == nullptr) return true;
  const int64_t now_us = clock_.NowUs();
  ASSIGN_OR_RETURN(const std::string taken, GetOr(*meta_, key_));
  // A clock that was set back must not put it off for long.
  const int64_t until_us = base::ParseNumber<int64_t>(taken).value_or(0);
  if (until_us > now_us && until_us - now_us <= for_ms * 1000) return false;
  chunkstore::MetaBatch batch;
  Expect(&batch, key_, taken);
  batch.Put(key_, std::to_string(now_us + for_ms * 1000));
  const Result<void> got = meta_->Commit(kPartition, batch);
  if (!got.has_value() && got.error().code() == Code::kConflict) return false;
  RETURN_IF_ERROR(got);
  return true;
}

}  // namespace controlplane::admin
