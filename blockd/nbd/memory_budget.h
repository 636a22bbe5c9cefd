#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <utility>

#include "base/fair_shares.h"
#include "base/thread_annotations.h"

namespace blockd::nbd {

// The memory of requests on their way, of all connections of a server together, shared between
// tenants as base::FairShares says. Who finds none stands in line and leaves his socket unread:
// tenants have a line each, so one who has his share holds up nobody else. A tenant who holds
// nothing and wants more than is left is next, before everybody, so that many small requests can't
// keep a large one waiting for ever. Thread-safe.
class MemoryBudget : public std::enable_shared_from_this<MemoryBudget> {
 private:
  struct Owner {
    const std::shared_ptr<MemoryBudget> budget;
    const std::string tenant;
  };

 public:
  // Bytes that are taken until it goes; may outlive the Line it came from. Empty: none. Movable;
  // one thread at a time.
  class Share {
   public:
    Share() = default;
    Share(Share&& other) noexcept { *this = std::move(other); }
    Share& operator=(Share&& other) noexcept {
      std::swap(owner_, other.owner_);
      std::swap(bytes_, other.bytes_);
      return *this;
    }
    ~Share();
    explicit operator bool() const { return owner_ != nullptr; }

   private:
    friend class MemoryBudget;
    Share(std::shared_ptr<const Owner> owner, uint64_t bytes)
        : owner_(std::move(owner)), bytes_(bytes) {}
    std::shared_ptr<const Owner> owner_;
    uint64_t bytes_ = 0;
  };

  // One who takes, a request at a time. One thread.
  class Line {
   public:
    // `wake`: a share has come for who waits. Called from any thread, under the budget's lock.
    Line(std::shared_ptr<MemoryBudget> budget, std::string tenant, std::function<void()> wake);
    ~Line() { Leave(); }
    Line(const Line&) = delete;
    Line& operator=(const Line&) = delete;

    // Empty: wait to be woken, and ask for as much again. `bytes` is above 0, and no more than the
    // budget.
    Share TryTake(uint64_t bytes);
    bool waits() const { return waits_for_bytes_ != 0; }
    // Waits no longer. Idempotent.
    void Leave();

   private:
    friend class MemoryBudget;
    const std::shared_ptr<const Owner> owner_;
    const std::function<void()> wake_;
    uint64_t waits_for_bytes_ = 0;  // written by its thread, under the budget's lock
    bool granted_ = false;          // taken for it, not yet fetched; guarded by that lock
  };

  explicit MemoryBudget(uint64_t limit_bytes) : shares_(limit_bytes) {}

  uint64_t used_bytes() const;

 private:
  struct Queue {
    std::string tenant;
    std::deque<Line*> lines;
  };

  Share TryTake(Line& line, uint64_t bytes);
  void Leave(Line& line);
  void Give(const std::string& tenant, uint64_t bytes);
  void Serve() REQUIRES(mutex_);
  std::list<Queue>::iterator QueueOf(const std::string& tenant) REQUIRES(mutex_);

  mutable base::Mutex mutex_;
  base::FairShares shares_ GUARDED_BY(mutex_);
  std::list<Queue> queues_ GUARDED_BY(mutex_);  // none is empty
  bool exhausted_ GUARDED_BY(mutex_) = false;   // the first in line takes what comes next
};

}  // namespace blockd::nbd
