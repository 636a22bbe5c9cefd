#include "chunkstore/ceph/reverse_posts.h"

#include <iterator>
#include <utility>

namespace chunkstore::ceph {

using base::MutexLock;

namespace {

// Some megabytes. Beyond this all are forgotten; scans learn them anew.
constexpr size_t kMaxPosts = 50'000;

}  // namespace

std::string ReversePosts::Before(std::string_view partition, std::string_view from,
                                 std::string_view to) {
  MutexLock lock(mutex_);
  auto found = posts_.find(std::string(partition));
  if (found == posts_.end()) return std::string(from);
  auto at = to.empty() ? found->second.end() : found->second.lower_bound(to);
  if (at == found->second.begin() || *std::prev(at) <= from) return std::string(from);
  return *std::prev(at);
}

void ReversePosts::Learn(std::string_view partition, std::vector<std::string> posts) {
  if (posts.empty()) return;
  MutexLock lock(mutex_);
  if (count_ + posts.size() > kMaxPosts) {
    posts_.clear();
    count_ = 0;
  }
  auto& of_partition = posts_[std::string(partition)];
  for (std::string& post : posts) count_ += of_partition.insert(std::move(post)).second ? 1 : 0;
}

void ReversePosts::Forget(std::string_view partition, const std::string& post) {
  MutexLock lock(mutex_);
  auto found = posts_.find(std::string(partition));
  if (found == posts_.end()) return;
  count_ -= found->second.erase(post);
  if (found->second.empty()) posts_.erase(found);
}

}  // namespace chunkstore::ceph
