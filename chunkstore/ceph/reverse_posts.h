#pragma once

#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/thread_annotations.h"

namespace chunkstore::ceph {

// An omap can only be read forward. Whoever reads it from its end goes back to a post, a key some
// way before, reads forward from there, and so on. Posts are hints: where they stand changes what a
// scan costs, never what it finds. They are learnt from scans: one in kSpacing keys. Thread-safe.
class ReversePosts {
 public:
  static constexpr size_t kSpacing = 128;

  // The last post in (from, to) of the partition, or `from`. An empty `to`: no end.
  std::string Before(std::string_view partition, std::string_view from, std::string_view to);
  void Learn(std::string_view partition, std::vector<std::string> posts);
  // One that has nothing behind it.
  void Forget(std::string_view partition, const std::string& post);

 private:
  base::Mutex mutex_;
  size_t count_ GUARDED_BY(mutex_) = 0;
  std::unordered_map<std::string, std::set<std::string, std::less<>>> posts_ GUARDED_BY(mutex_);
};

}  // namespace chunkstore::ceph
