#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "controlplane/identity/record.h"

namespace controlplane::identity {

// A map that is cheap to copy: the copy shares its shards with the original, and a write clones the
// one shard it touches. A map that others can see is never written to. One thread writes; a const
// map is Thread-safe.
template <typename V>
class SharedMap {
 public:
  const V* Find(std::string_view key) const {
    const auto& shard = shards_[ShardOf(key)];
    if (shard == nullptr) return nullptr;
    auto found = shard->find(key);
    return found == shard->end() ? nullptr : &found->second;
  }
  void Set(const std::string& key, V value) { Writable(key)[key] = std::move(value); }
  // The value to write to; made if there is none.
  V& Mutable(const std::string& key) { return Writable(key)[key]; }
  void Remove(const std::string& key) {
    if (Find(key) != nullptr) Writable(key).erase(key);
  }
  template <typename Visit>
  void ForEach(Visit visit) const {
    for (const auto& shard : shards_)
      if (shard != nullptr)
        for (const auto& [key, value] : *shard) visit(key, value);
  }

  SharedMap() = default;
  SharedMap(const SharedMap& other) : shards_(other.shards_) {}
  SharedMap& operator=(const SharedMap&) = delete;

 private:
  static constexpr size_t kShards = 64;
  using Shard = std::map<std::string, V, std::less<>>;

  static size_t ShardOf(std::string_view key) {
    return std::hash<std::string_view>()(key) % kShards;
  }
  Shard& Writable(std::string_view key) {
    size_t index = ShardOf(key);
    if (!owned_[index]) {
      shards_[index] = shards_[index] == nullptr ? std::make_shared<Shard>()
                                                 : std::make_shared<Shard>(*shards_[index]);
      owned_[index] = true;
    }
    return *shards_[index];
  }

  std::array<std::shared_ptr<Shard>, kShards> shards_;
  std::array<bool, kShards> owned_{};  // cloned by this copy, so nobody else sees it
};

// Everything that identity knew at one version of its partition. Immutable once published: a
// request takes one and sees one consistent world, whatever is written meanwhile. Thread-safe then.
class Snapshot {
 public:
  uint64_t version() const { return version_; }
  size_t size() const { return size_; }

  // Null if there is none.
  RecordPtr Get(Kind kind, std::string_view id) const;
  // All of a kind, by id.
  std::vector<RecordPtr> All(Kind kind) const;
  // By index, by id. The values stand for the members of the index's definition.
  std::vector<RecordPtr> Where(Index index, std::initializer_list<std::string_view> values) const;
  // The one record with this name, or null.
  RecordPtr Named(Index index, std::string_view within, std::string_view name) const;

  // For the Store, before publishing.
  void Put(RecordPtr record);
  void Remove(Kind kind, const std::string& id);
  void set_version(uint64_t version) { version_ = version; }

 private:
  using Ids = std::set<std::string, std::less<>>;
  void ChangeIndexes(const Record& record, bool add);

  uint64_t version_ = 0;
  size_t size_ = 0;
  std::array<SharedMap<RecordPtr>, kKinds> records_;
  std::array<SharedMap<Ids>, kIndexes> indexes_;
};
using SnapshotPtr = std::shared_ptr<const Snapshot>;

}  // namespace controlplane::identity
