#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "chunkstore/ceph/heads.h"
#include "chunkstore/ceph/objects.h"

namespace chunkstore::ceph {

// Reads the keys of [from, to) of one partition, in order, a page at a time: merges what the head
// has with what the shards have. One thread.
//
// A page of the head is always read before the pages of shards for the same keys. Keys go from the
// head to a shard (written there, then removed here) and never back, so a key that was there all
// the time is in one of the two reads or in both, and the head's value is the newer one.
class Scanner {
 public:
  // Borrows both. An empty `to` means to the end.
  Scanner(Objects& objects, Heads& heads, std::string_view partition, std::string_view from,
          std::string_view to, size_t page_keys);

  using Entry = std::pair<std::string, std::string>;  // key and value
  // The next keys, about `count` or a page of them; maybe none though more follow.
  base::Result<std::vector<Entry>> Next(size_t count);
  bool at_end() const { return at_end_; }

 private:
  base::Result<void> ReadHead(size_t count);
  // False: the layout changed; read the head again.
  base::Result<bool> ReadShard(size_t count);
  std::vector<Entry> Merge();

  Objects& objects_;
  Heads& heads_;
  const std::string partition_;
  const std::string to_;
  const size_t page_keys_;
  std::string from_;  // all before it was given out
  bool at_end_ = false;

  std::shared_ptr<const Layout> layout_;  // as of the head's page; null: read one
  std::deque<Entry> head_;                // from from_ on, as stored
  std::optional<std::string> head_end_;   // the page says all about keys before it; none: about all
  std::deque<Entry> shard_;               // the same of the shard that has from_
  std::optional<std::string> shard_end_;
};

}  // namespace chunkstore::ceph
