#include "base/auth/access_rules.h"

#include <algorithm>
#include <array>
#include <bitset>
#include <optional>
#include <string>

namespace base::auth {
namespace {

// One bit for each place in a pattern: before its first token, ..., behind its last.
using Places = std::bitset<kMaxPatternBytes + 1>;

enum class Part { kLiteral, kWithinSegment, kAnything };

// Cuts off the first part of a pattern that is not empty.
Part TakePart(std::string_view* pattern) {
  size_t taken = 1;
  Part part = Part::kLiteral;
  if (pattern->starts_with("**")) {
    taken = 2;
    part = Part::kAnything;
  } else if (pattern->front() == '*') {
    part = Part::kWithinSegment;
  } else if (pattern->front() == '{' && pattern->find('}') != std::string_view::npos) {
    taken = pattern->find('}') + 1;
    part = Part::kWithinSegment;
  }
  pattern->remove_prefix(taken);
  return part;
}

// A pattern as a machine that reads a path once and is in all places at once where it may be, so
// that no pattern makes it go back.
class Machine {
 public:
  // REQUIRES: at most kMaxPatternBytes.
  explicit Machine(std::string_view pattern) {
    while (!pattern.empty()) {
      const auto literal = static_cast<uint8_t>(pattern.front());
      switch (TakePart(&pattern)) {
        case Part::kLiteral:
          literals_[literal].set(end_++);
          break;
        case Part::kWithinSegment:
          wildcards_.set(end_++);
          stays_within_segment_.set(end_);
          break;
        case Part::kAnything:
          stays_.set(end_);
          break;
      }
    }
  }

  bool Matches(std::string_view path) const {
    Places at;
    at.set(0);
    for (const char c : path) {
      Places next = (at & literals_[static_cast<uint8_t>(c)]) << 1;
      next |= at & stays_;
      if (c != '/') next |= ((at & wildcards_) << 1) | (at & stays_within_segment_);
      if (next.none()) return false;
      at = next;
    }
    return at.test(end_);
  }

 private:
  size_t end_ = 0;
  std::array<Places, 256> literals_;  // from where a byte leads on
  Places wildcards_;                  // from where any byte but a slash leads on
  Places stays_within_segment_;       // where any byte but a slash changes nothing
  Places stays_;                      // where no byte changes anything
};

// The part of the pattern that is about the path behind the prefix.
std::string_view WithoutPrefix(std::string_view pattern, std::string_view prefix) {
  if (!pattern.starts_with(prefix)) return pattern;
  const std::string_view rest = pattern.substr(prefix.size());
  return rest.starts_with('/') ? rest : pattern;
}

}  // namespace

bool PathMatches(std::string_view path, std::string_view pattern) {
  if (pattern.size() > kMaxPatternBytes || path.size() > kMaxRulePathBytes) return false;
  const size_t literal = std::min(pattern.find_first_of("*{"), pattern.size());
  if (!path.starts_with(pattern.substr(0, literal))) return false;
  return Machine(pattern.substr(literal)).Matches(path.substr(literal));
}

Result<void> CheckPattern(std::string_view pattern) {
  if (pattern.size() > kMaxPatternBytes) {
    return Error(Code::kInvalidArgument, "the path of an access rule may have " +
                                             std::to_string(kMaxPatternBytes) + " bytes");
  }
  size_t wildcards = 0;
  while (!pattern.empty())
    if (TakePart(&pattern) != Part::kLiteral) ++wildcards;
  if (wildcards > kMaxPatternWildcards) {
    return Error(Code::kInvalidArgument, "the path of an access rule may have " +
                                             std::to_string(kMaxPatternWildcards) + " wildcards");
  }
  return {};
}

bool Allows(const Caller& caller, std::string_view service_type, std::string_view prefix,
            std::string_view method, std::string_view path) {
  if (!caller.access_rules.has_value()) return true;
  if (service_type.empty()) return false;
  if (service_type == "identity" && method == "GET" && path == "/v3/auth/tokens") return true;
  return std::any_of(caller.access_rules->begin(), caller.access_rules->end(),
                     [&](const AccessRule& rule) {
                       return rule.service == service_type && rule.method == method &&
                              PathMatches(path, WithoutPrefix(rule.path, prefix));
                     });
}

}  // namespace base::auth
