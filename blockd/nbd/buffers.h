#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/thread_annotations.h"

namespace blockd::nbd {

// Memory for requests that others run, kept for the next one: fresh pages for each long read cost
// more than its copy. Thread-safe.
class Buffers {
 public:
  // Memory on loan; may outlive the Buffers it came from. Movable; one thread at a time.
  class Loan {
   public:
    Loan() = default;
    Loan(Loan&& other) noexcept { *this = std::move(other); }
    Loan& operator=(Loan&& other) noexcept {
      std::swap(memory_, other.memory_);
      std::swap(owner_, other.owner_);
      size_bytes_ = std::exchange(other.size_bytes_, 0);
      return *this;
    }
    ~Loan();

    uint8_t* data() { return memory_.data(); }
    size_t size() const { return size_bytes_; }
    base::MutableByteView view() { return memory_.view().first(size_bytes_); }
    base::ByteView view() const { return memory_.view().first(size_bytes_); }

   private:
    friend class Buffers;
    base::Buffer memory_;
    size_t size_bytes_ = 0;
    std::shared_ptr<Buffers> owner_;
  };

  // Keeps at most so much that nobody uses.
  static std::shared_ptr<Buffers> Create(size_t max_idle_bytes);

  // What a loan of so much takes in memory.
  static uint64_t MemoryOf(size_t size_bytes);
  // Not zeroed.
  static Loan Take(const std::shared_ptr<Buffers>& buffers, size_t size_bytes);

 private:
  static constexpr size_t kClasses = 11;  // 32 KiB to 32 MiB, by powers of two

  explicit Buffers(size_t max_idle_bytes) : max_idle_bytes_(max_idle_bytes) {}
  static size_t ClassOf(size_t size_bytes);
  void GiveBack(base::Buffer memory);

  const size_t max_idle_bytes_;
  base::Mutex mutex_;
  size_t idle_bytes_ GUARDED_BY(mutex_) = 0;
  std::vector<base::Buffer> idle_[kClasses] GUARDED_BY(mutex_);
};

}  // namespace blockd::nbd
