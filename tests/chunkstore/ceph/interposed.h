#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "chunkstore/ceph/ceph_meta_store.h"
#include "chunkstore/ceph/heads.h"
#include "chunkstore/ceph/spiller.h"
#include "tests/chunkstore/ceph/meta_harness.h"
#include "tests/chunkstore/ceph/test_objects.h"
#include "tests/support/results.h"

// One thread that plays several processes: at a chosen call of one, the others do what they like.
// A loop over the calls reaches every order in which they can meet there.

namespace chunkstore::ceph {

// Before the n-th call (1 is the next) `meanwhile` happens, once. Borrows.
class InterposedObjects : public Objects {
 public:
  explicit InterposedObjects(Objects& inner) : inner_(inner) {}

  void At(int call, std::function<void()> meanwhile) {
    left_ = call;
    meanwhile_ = std::move(meanwhile);
  }
  // Whether the call was reached.
  bool happened() const { return left_ <= 0; }
  // From the call on that At named, every call fails: its process is dead.
  void DieAt(int call) {
    left_ = call;
    dies_ = true;
  }

  base::Result<void> Write(const std::string& object, const ObjectWrite& write) override {
    if (!Step()) return base::Error(base::Code::kCancelled, "dead");
    return inner_.Write(object, write);
  }
  base::Result<ObjectView> Read(const std::string& object, const ObjectRead& read) override {
    if (!Step()) return base::Error(base::Code::kCancelled, "dead");
    return inner_.Read(object, read);
  }

 private:
  bool Step() {
    bool is_now = --left_ == 0;
    if (is_now && meanwhile_) std::exchange(meanwhile_, nullptr)();
    return !dies_ || left_ > 0;
  }

  Objects& inner_;
  int left_ = 0;
  bool dies_ = false;
  std::function<void()> meanwhile_;
};

// A process: a store that moves no keys by itself, over objects that others use too.
class Process {
 public:
  explicit Process(Objects& objects) : interposed_(objects) {
    CephMetaOptions options = TinyOptions();
    options.head_keys = SIZE_MAX - 1;
    store_ = NewOmapMetaStore(std::make_unique<Forward>(interposed_), options);
  }
  MetaStore& store() { return *store_; }
  InterposedObjects& objects() { return interposed_; }
  base::Result<void> Spill(const std::string& partition) {
    Heads heads(interposed_);
    Spiller spiller(interposed_, heads, base::SystemClock(), TinyOptions(), partition);
    return spiller.Run([] { return false; });
  }

 private:
  class Forward : public Objects {
   public:
    explicit Forward(Objects& inner) : inner_(inner) {}
    base::Result<void> Write(const std::string& object, const ObjectWrite& write) override {
      return inner_.Write(object, write);
    }
    base::Result<ObjectView> Read(const std::string& object, const ObjectRead& read) override {
      return inner_.Read(object, read);
    }

   private:
    Objects& inner_;
  };

  InterposedObjects interposed_;
  std::unique_ptr<MetaStore> store_;
};

using State = std::map<std::string, std::string>;

inline State ReadAll(MetaStore& store, const std::string& partition) {
  State state;
  EXPECT_OK(store.Scan(partition, "", "", SIZE_MAX, [&](std::string_view key, std::string_view v) {
    EXPECT_TRUE(state.emplace(key, v).second) << "a key twice";
    return true;
  }));
  return state;
}

}  // namespace chunkstore::ceph
