#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace base {

// How much each project holds of something that all of them want: bytes, buffers, connections. A
// project gets more as long as it then holds no more than what is left free (the dynamic threshold
// of shared-memory switches): one alone gets half, two get a third each, and whoever comes next
// finds something left, however long the others hold what they have. Who holds nothing may have the
// last of it.
//
// The bookkeeping alone: what to do with who is refused is its owner's, and so is the lock.
class FairShares {
 public:
  // Why something is not given.
  enum class Refusal {
    kShare,  // the project has its share
    kLimit,  // nothing is left
  };

  explicit FairShares(uint64_t limit) : limit_(limit) {}

  // Nothing: `amount` is the project's until Give. `project` is any name by which to share.
  std::optional<Refusal> TryTake(std::string_view project, uint64_t amount);
  // At most what it holds.
  void Give(std::string_view project, uint64_t amount);

  uint64_t limit() const { return limit_; }
  uint64_t used() const { return used_; }
  uint64_t HeldBy(std::string_view project) const;

 private:
  const uint64_t limit_;
  uint64_t used_ = 0;
  std::map<std::string, uint64_t, std::less<>> held_;  // by project; never 0
};

}  // namespace base
