#include "controlplane/admin/operations.h"

#include <algorithm>
#include <optional>
#include <set>
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
  int64_t reported_us = 0;  // to other processes; of its own thread

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
  if (shared_ != nullptr) RETURN_IF_ERROR(shared_->Begin(kind, operation->id, ToJson(*operation)));
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
    {
      MutexLock lock(mutex_);
      operation->phase = progress.phase;
      operation->done = progress.done;
      operation->total = progress.total;
    }
    return !operation->cancelled && Report(*operation);
  });
  if (outcome.has_value()) {
    LOG(kInfo, "admin", "{} ended: {}", operation->kind, base::ToText(*outcome).substr(0, 500));
  } else if (outcome.error().code() == Code::kCancelled) {
    LOG(kInfo, "admin", "{} was called off", operation->kind);
  } else {
    LOG(kWarn, "admin", "{} failed: {}", operation->kind, outcome.error().ToString());
  }
  {
    MutexLock lock(mutex_);
    operation->outcome = std::move(outcome);
    operation->ended_us = clock_.NowUs();
  }
  if (shared_ == nullptr) return;
  const Result<void> told = shared_->End(operation->kind, operation->id, StateOf(*operation));
  if (!told.has_value())
    LOG(kWarn, "admin", "others will take {} for dead: {}", operation->id, told.error().ToString());
}

Json Operations::StateOf(const Operation& operation) const {
  MutexLock lock(mutex_);
  return ToJson(operation);
}

bool Operations::Report(Operation& operation) {
  const int64_t now_us = clock_.NowUs();
  if (shared_ == nullptr || now_us - operation.reported_us < SharedOperations::kReportUs)
    return true;
  operation.reported_us = now_us;
  const Result<bool> goes_on = shared_->Report(operation.kind, operation.id, StateOf(operation));
  // What can't be told now is told next time.
  return !goes_on.has_value() || *goes_on;
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
  {
    MutexLock lock(mutex_);
    const auto operation = Find(id);
    if (operation != nullptr) return ToJson(*operation);
  }
  if (shared_ != nullptr) return shared_->Describe(id);
  return Error(Code::kNotFound, fmt::format("no operation {}", id));
}

Result<Json> Operations::DescribeAll() const {
  std::vector<Json> others;
  if (shared_ != nullptr) {
    ASSIGN_OR_RETURN(others, shared_->DescribeAll());
  }
  MutexLock lock(mutex_);
  std::set<std::string> ours;
  for (const auto& operation : operations_) ours.insert(operation->id);
  std::erase_if(others, [&ours](const Json& other) {
    return ours.contains(base::FindString(other, "id").value_or(""));
  });
  for (const auto& operation : operations_) others.push_back(ToJson(*operation));
  const auto began = [](const Json& state) {
    return base::FindString(state, "started_at").value_or("");
  };
  if (shared_ != nullptr) std::ranges::sort(others, {}, began);
  return JsonArray(others.rbegin(), others.rend());
}

Result<void> Operations::Cancel(std::string_view id) {
  {
    MutexLock lock(mutex_);
    const auto operation = Find(id);
    if (operation != nullptr) {
      operation->cancelled = true;
      return {};
    }
  }
  if (shared_ != nullptr) return shared_->Cancel(id);
  return Error(Code::kNotFound, fmt::format("no operation {}", id));
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
