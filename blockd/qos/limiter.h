#pragma once

#include <cstdint>
#include <memory>

namespace blockd::qos {

enum class Direction { kRead, kWrite };

// An I/O that had to wait.
class Waiter {
 public:
  virtual ~Waiter() = default;
  // False: nobody wants it any more; it is dropped and costs nothing.
  virtual bool Wanted() const = 0;
  // Its time has come. Called once, without a lock held, from whatever thread; must not block.
  virtual void Go() = 0;
};

// The budget of one volume. Thread-safe.
class Limiter {
 public:
  virtual ~Limiter() = default;
  // True, and charged, if the I/O may go now; false: hand a Waiter to Wait.
  virtual bool TryPass(Direction direction, uint64_t bytes) = 0;
  virtual void Wait(Direction direction, uint64_t bytes, std::shared_ptr<Waiter> waiter) = 0;
};

}  // namespace blockd::qos
