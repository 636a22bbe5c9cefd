#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "chunkstore/ceph/ceph_meta_store.h"
#include "chunkstore/ceph/heads.h"
#include "chunkstore/ceph/reverse_posts.h"
#include "chunkstore/ceph/spill_queue.h"

namespace chunkstore::ceph {

// What NewOmapMetaStore makes. Thread-safe.
class OmapMetaStore : public MetaStore {
 public:
  OmapMetaStore(std::unique_ptr<Objects> objects, const CephMetaOptions& options);

  base::Result<std::string> Get(std::string_view partition, std::string_view key) override;
  base::Result<void> Scan(std::string_view partition, std::string_view from, std::string_view to,
                          size_t limit, const Visitor& visit) override;
  base::Result<void> ScanReverse(std::string_view partition, std::string_view from,
                                 std::string_view to, size_t limit, const Visitor& visit) override;
  base::Result<void> Commit(std::string_view partition, const MetaBatch& batch) override;
  base::Result<void> Sync() override { return {}; }
  base::Result<std::vector<std::string>> Partitions(std::string_view prefix) override;

 private:
  using Values = std::map<std::string, std::optional<std::string>>;  // nothing: absent

  // What keys hold: in the head as it is stored there, or else in a shard. Nothing at all: the
  // layout changed meanwhile, look again.
  struct Found {
    Head head;
    Values in_head;   // of those that it has: "v.." or a tombstone
    Values in_shard;  // of all others
  };
  base::Result<std::optional<Found>> Look(std::string_view partition,
                                          const std::vector<std::string>& keys);
  // The same for keys that are not in the head. False: look again.
  base::Result<bool> LookInShards(Found& found, const std::vector<std::string>& keys);

  // Whether the expectations hold in what was found. Adds to `guards` what makes sure that they
  // still do when it is written.
  static bool Holds(const Found& found, const Values& expected,
                    std::map<std::string, std::string>* guards);
  static std::vector<std::string> KeysOf(const Values& values);
  // One try; nothing: the partition changed meanwhile, try again. False: an expectation failed.
  base::Result<std::optional<bool>> TryCommit(std::string_view partition, const Values& expected,
                                              const Values& changes, bool look_first);

  // The last keys of [from, to), at most `limit`: all that are in [tail.from, to).
  struct Tail {
    std::deque<std::pair<std::string, std::string>> entries;
    std::string from;
  };
  // Memory is bounded by so many entries, however long a reverse scan is.
  static constexpr size_t kReverseKeys = 1024;
  base::Result<Tail> ReadTail(std::string_view partition, std::string_view from,
                              std::string_view to, size_t limit);

  const CephMetaOptions options_;
  const std::unique_ptr<Objects> objects_;
  Heads heads_;
  ReversePosts posts_;
  SpillQueue spills_;  // last: its thread uses what is above
};

}  // namespace chunkstore::ceph
