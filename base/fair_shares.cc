#include "base/fair_shares.h"

#include "base/check.h"

namespace base {

std::optional<FairShares::Refusal> FairShares::TryTake(std::string_view project, uint64_t amount) {
  const uint64_t left = limit_ - used_;
  const auto found = held_.find(project);
  const uint64_t held = found == held_.end() ? 0 : found->second;
  if (held == 0 && amount > left) return Refusal::kLimit;
  if (held != 0 && (amount > left || held + amount > left - amount)) return Refusal::kShare;
  if (amount == 0) return std::nullopt;
  used_ += amount;
  if (found == held_.end()) {
    held_.emplace(project, amount);
  } else {
    found->second += amount;
  }
  return std::nullopt;
}

void FairShares::Give(std::string_view project, uint64_t amount) {
  if (amount == 0) return;
  const auto found = held_.find(project);
  CHECK(found != held_.end() && found->second >= amount);
  used_ -= amount;
  found->second -= amount;
  if (found->second == 0) held_.erase(found);
}

uint64_t FairShares::HeldBy(std::string_view project) const {
  const auto found = held_.find(project);
  return found == held_.end() ? 0 : found->second;
}

}  // namespace base
