#include "chunkstore/layers/flights.h"

#include "base/check.h"

namespace chunkstore::layers {

using base::MutexLock;
using base::Result;

void Flight::Land(std::vector<uint8_t> plain) {
  MutexLock lock(mutex_);
  CHECK(!done_);
  plain_ = std::move(plain);
  done_ = true;
  changed_.NotifyAll();
}

void Flight::Fail(base::Error error) {
  MutexLock lock(mutex_);
  CHECK(!done_);
  error_ = std::move(error);
  done_ = true;
  changed_.NotifyAll();
}

bool Flight::done() const {
  MutexLock lock(mutex_);
  return done_;
}

Result<base::ByteView> Flight::Wait() {
  MutexLock lock(mutex_);
  while (!done_) changed_.Wait(mutex_);
  if (error_) return *error_;
  return base::ByteView(plain_);
}

void Flight::WaitEnded() {
  MutexLock lock(mutex_);
  while (!ended_) changed_.Wait(mutex_);
}

void Flights::End(std::span<const std::shared_ptr<Flight>> flights) {
  MutexLock lock(mutex_);
  for (const auto& flight : flights) {
    CHECK(flight->done());
    CHECK(flights_.erase(KeyOf(flight->info().name)) == 1);
    MutexLock ending(flight->mutex_);
    flight->ended_ = true;
    flight->changed_.NotifyAll();
  }
}

}  // namespace chunkstore::layers
