#include <algorithm>
#include <numeric>
#include <utility>

#include "base/config.h"

// What somebody meant who wrote an option's or a command's name almost right.

namespace base {
namespace {

// How many insertions, removals and replacements turn `a` into `b` (Levenshtein).
size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i + 1);
    for (size_t j = 0; j < b.size(); ++j) {
      size_t replaced = diagonal + (a[i] != b[j]);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, diagonal + 1});
    }
  }
  return row.back();
}

}  // namespace

// Near is what differs in a third of its letters at most. The section in front of a name may be
// left out.
std::optional<std::string> ClosestTo(std::string_view word,
                                     const std::vector<std::string>& candidates) {
  std::optional<std::string> closest;
  size_t least = std::max<size_t>(1, word.size() / 3) + 1;
  const std::string_view bare = word.starts_with("--") ? word.substr(2) : word;
  for (const std::string& candidate : candidates) {
    const size_t distance =
        std::min(EditDistance(word, candidate),
                 EditDistance(bare, std::string_view(candidate).substr(candidate.find('.') + 1)));
    if (distance < least) {
      least = distance;
      closest = candidate;
    }
  }
  return closest;
}

}  // namespace base
