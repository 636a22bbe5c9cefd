#include "base/http/body_budget.h"

namespace base::http {

Result<void> BodyBudget::Share::GrowTo(size_t bytes) {
  if (bytes <= kFreeBodyBytes || bytes <= held_bytes_) return {};
  if (!budget_.Take(bytes - held_bytes_)) {
    budget_.refused_.Add();
    return Error(Code::kUnavailable,
                 "too many request bodies are being read at once; send this one again later");
  }
  held_bytes_ = bytes;
  return {};
}

bool BodyBudget::Take(size_t bytes) {
  uint64_t used = used_bytes_.load();
  do {
    if (used > limit_bytes_ || bytes > limit_bytes_ - used) return false;
  } while (!used_bytes_.compare_exchange_weak(used, used + bytes));
  used_gauge_.Add(static_cast<double>(bytes));
  return true;
}

void BodyBudget::Return(size_t bytes) {
  if (bytes == 0) return;
  used_bytes_.fetch_sub(bytes);
  used_gauge_.Add(-static_cast<double>(bytes));
}

}  // namespace base::http
