#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace chunkstore::ceph {

// What the metadata needs of RADOS, and no more: named objects, each with a sorted map of keys (its
// omap). Everything that is done to one object in one call is atomic; nothing spans objects.
// RadosObjects is the real one; tests have one in memory that fails or dies where they want.

// One write. Guards come first: if one does not hold, nothing happens.
struct ObjectWrite {
  // Values that keys must have. A key that is not there has the value "", so "" expects that it is
  // absent: nothing that we keep is empty. The object must be there.
  std::map<std::string, std::string> expected;
  // As ObjectView told it: nobody has changed the object since.
  std::optional<uint64_t> version;

  bool create = false;  // it must not be there yet
  std::map<std::string, std::string> set;
  std::set<std::string> remove;
  // Keys in [first, second). Before `set` and `remove`.
  std::optional<std::pair<std::string, std::string>> remove_range;
  bool remove_object = false;
};

struct ObjectRead {
  std::set<std::string> keys;
  // Beside these, the first `page` keys after `after`; a store may answer with fewer.
  size_t page = 0;
  std::string after;
};

struct ObjectView {
  std::map<std::string, std::string> found;  // of `keys`
  std::vector<std::pair<std::string, std::string>> page;
  bool more = false;  // there are keys behind the page
  uint64_t version = 0;

  const std::string* Find(const std::string& key) const {
    auto at = found.find(key);
    return at == found.end() ? nullptr : &at->second;
  }
};

// Thread-safe.
class Objects {
 public:
  virtual ~Objects() = default;

  // kConflict: a guard does not hold. kNotFound: there is no such object, and something guards it
  // or removes it (without a guard, `set` makes it). kAlreadyExists: `create`. kUnavailable: it may
  // have happened, or happen later. kOutOfSpace, kTooLarge, kIo, kPermissionDenied.
  virtual base::Result<void> Write(const std::string& object, const ObjectWrite& write) = 0;

  // kNotFound: no such object.
  virtual base::Result<ObjectView> Read(const std::string& object, const ObjectRead& read) = 0;
};

}  // namespace chunkstore::ceph
