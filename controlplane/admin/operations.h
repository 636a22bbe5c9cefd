#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/json.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "chunkstore/chunk_store.h"
#include "controlplane/admin/shared_operations.h"

namespace controlplane::admin {

// Long maintenance passes, each on a thread of its own, at most one of a kind at a time. Who starts
// one gets an id and asks for the state; the last kMaxFinished that ended stay known. Where several
// processes use the store, each answers for all of them (SharedOperations). Thread-safe. The
// destructor cancels and joins.
class Operations {
 public:
  static constexpr size_t kMaxFinished = 32;

  // Runs to the end or to a cancellation (progress answers false); gives the report.
  using Work = std::function<base::Result<base::Json>(const chunkstore::ProgressFn&)>;

  // `shared`: null where no other process uses the store. Both are borrowed and outlive it.
  explicit Operations(const base::Clock& clock, SharedOperations* shared = nullptr)
      : clock_(clock), shared_(shared) {}
  ~Operations();

  // The new operation's id. kConflict, naming the one that runs, if one of this kind does;
  // kUnavailable once stopped.
  base::Result<std::string> Start(const std::string& kind, Work work);

  // {"id", "kind", "state": "running"|"done"|"failed", "phase", "done", "total", "report"|"error",
  // "started_at", "seconds"}. kNotFound.
  base::Result<base::Json> Describe(std::string_view id) const;
  // The latest first.
  base::Result<base::Json> DescribeAll() const;

  // Asks it to end; fine if it has. kNotFound.
  base::Result<void> Cancel(std::string_view id);

  // Cancels all and waits for them. Idempotent.
  void Stop();

 private:
  struct Operation;
  std::shared_ptr<Operation> Find(std::string_view id) const REQUIRES(mutex_);
  void Run(const std::shared_ptr<Operation>& operation, const Work& work);
  void ForgetOld() REQUIRES(mutex_);
  base::Json StateOf(const Operation& operation) const;
  // Tells the others. False: it is to end.
  bool Report(Operation& operation);
  base::Json ToJson(const Operation& operation) const REQUIRES(mutex_);

  const base::Clock& clock_;
  SharedOperations* const shared_;
  mutable base::Mutex mutex_;
  std::vector<std::shared_ptr<Operation>> operations_ GUARDED_BY(mutex_);
  bool stopped_ GUARDED_BY(mutex_) = false;
};

}  // namespace controlplane::admin
