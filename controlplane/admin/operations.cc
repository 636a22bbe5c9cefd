#include "controlplane/admin/operations.h"

#include <algorithm>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "base/log.h"
#include "base/uuid.h"

namespace controlplane::admin {

using base::Code;
using base::Error;
using base::Json;
using base::JsonArray;
using base::JsonObject;
using base::MutexLock;
using base::Result;

// Fields but `id`, `kind`, `cancelled` and `thread` are guarded by Operations::mutex_.
struct Operations::Operation {
  std::string id = base::NewUuid();
  std::string kind;
  std::atomic<bool> cancelled = false;
  std::thread thread;

  std::string phase;
  uint64_t done = 0;
  uint64_t total = 0;
  int64_t started_us = 0;
  int64_t ended_us = 0;  // 0: running
  std::optional<Result<Json>> outcome;
};

Operations::~Operations() { Stop(); }

Result<std::string> Operations::Start(const std::string& kind, Work work) {
  auto operation = std::make_shared<Operation>();
  operation->kind = kind;
  operation->started_us = clock_.NowUs();
  MutexLock lock(mutex_);
  if (stopped_) return Error(Code::kUnavailable, "the service is stopping");
  for (const auto& other : operations_) {
    if (other->kind == kind && other->ended_us == 0) {
      return Error(Code::kConflict,
                   fmt::format("a {} is running already: operation {}", kind, other->id));
    }
  }
  operations_.push_back(operation);
  ForgetOld();
  operation->thread =
      std::thread([this, operation, work = std::move(work)] { Run(operation, work); });
  return operation->id;
}

void Operations::Run(const std::shared_ptr<Operation>& operation, const Work& work) {
  const base::ScopedLogContext context(operation->kind + "-" + operation->id);
  LOG(kInfo, "admin", "{} began", operation->kind);
  Result<Json> outcome = work([this, &operation](const chunkstore::Progress& progress) {
    MutexLock lock(mutex_);
    operation->phase = progress.phase;
    operation->done = progress.done;
    operation->total = progress.total;
    return !operation->cancelled;
  });
  if (outcome.has_value()) {
    LOG(kInfo, "admin", "{} ended: {}", operation->kind, base::ToText(*outcome).substr(0, 500));
  } else if (outcome.error().code() == Code::kCancelled) {
    LOG(kInfo, "admin", "{} was called off", operation->kind);
  } else {
    LOG(kWarn, "admin", "{} failed: {}", operation->kind, outcome.error().ToString());
  }
  MutexLock lock(mutex_);
  operation->outcome = std::move(outcome);
  operation->ended_us = clock_.NowUs();
}

// A finished operation's thread has nothing left to do but to return: joining it under the lock is
// short.
void Operations::ForgetOld() {
  size_t finished = 0;
  for (auto it = operations_.end(); it != operations_.begin();) {
    --it;
    if ((*it)->ended_us == 0 || ++finished <= kMaxFinished) continue;
    (*it)->thread.join();
    it = operations_.erase(it);
  }
}

std::shared_ptr<Operations::Operation> Operations::Find(std::string_view id) const {
  for (const auto& operation : operations_) {
    if (operation->id == id) return operation;
  }
  return nullptr;
}

Json Operations::ToJson(const Operation& operation) const {
  const bool running = operation.ended_us == 0;
  const int64_t until_us = running ? clock_.NowUs() : operation.ended_us;
  JsonObject json{
      {"id", operation.id},
      {"kind", operation.kind},
      {"state", running                          ? "running"
                : operation.outcome->has_value() ? "done"
                                                 : "failed"},
      {"phase", operation.phase},
      {"done", operation.done},
      {"total", operation.total},
      {"started_at", base::FormatTimeSeconds(operation.started_us)},
      {"seconds", static_cast<double>(until_us - operation.started_us) / base::kSecondUs}};
  if (running) return json;
  if (operation.outcome->has_value()) {
    json["report"] = **operation.outcome;
  } else {
    json["error"] = operation.outcome->error().message();
  }
  return json;
}

Result<Json> Operations::Describe(std::string_view id) const {
  MutexLock lock(mutex_);
  const auto operation = Find(id);
  if (operation == nullptr) return Error(Code::kNotFound, fmt::format("no operation {}", id));
  return ToJson(*operation);
}

Json Operations::DescribeAll() const {
  MutexLock lock(mutex_);
  JsonArray all;
  for (auto it = operations_.rbegin(); it != operations_.rend(); ++it) all.push_back(ToJson(**it));
  return all;
}

Result<void> Operations::Cancel(std::string_view id) {
  MutexLock lock(mutex_);
  const auto operation = Find(id);
  if (operation == nullptr) return Error(Code::kNotFound, fmt::format("no operation {}", id));
  operation->cancelled = true;
  return {};
}

void Operations::Stop() {
  std::vector<std::shared_ptr<Operation>> all;
  {
    MutexLock lock(mutex_);
    stopped_ = true;
    all = std::exchange(operations_, {});
  }
  for (const auto& operation : all) operation->cancelled = true;
  for (const auto& operation : all) operation->thread.join();
}

}  // namespace controlplane::admin
