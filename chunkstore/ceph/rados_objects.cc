#include <cerrno>
#include <memory>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <rados/librados.h>

#include "chunkstore/ceph/cluster.h"

namespace chunkstore::ceph {

using base::Code;
using base::Error;
using base::Result;

namespace {

struct WriteOpDeleter {
  void operator()(void* op) const { rados_release_write_op(op); }
};
struct ReadOpDeleter {
  void operator()(void* op) const { rados_release_read_op(op); }
};
struct CompletionDeleter {
  void operator()(void* completion) const { rados_aio_release(completion); }
};
struct IteratorDeleter {
  void operator()(void* iterator) const { rados_omap_get_end(iterator); }
};

// Keys and values as librados takes them: arrays of pointers and of lengths. Borrows all.
struct Pointers {
  void Add(const std::string& text) {
    bytes.push_back(text.data());
    sizes.push_back(text.size());
  }
  std::vector<const char*> bytes;
  std::vector<size_t> sizes;
};

void AddGuards(rados_write_op_t op, const ObjectWrite& write) {
  if (write.version) rados_write_op_assert_version(op, *write.version);
  for (const auto& [key, value] : write.expected) {
    rados_write_op_omap_cmp2(op, key.data(), LIBRADOS_CMPXATTR_OP_EQ, value.data(), key.size(),
                             value.size(), nullptr);
  }
}

void AddEffects(rados_write_op_t op, const ObjectWrite& write) {
  if (write.create) rados_write_op_create(op, LIBRADOS_CREATE_EXCLUSIVE, nullptr);
  if (write.remove_range) {
    const auto& [from, to] = *write.remove_range;
    rados_write_op_omap_rm_range2(op, from.data(), from.size(), to.data(), to.size());
  }
  if (!write.set.empty()) {
    Pointers keys, values;
    for (const auto& [key, value] : write.set) {
      keys.Add(key);
      values.Add(value);
    }
    rados_write_op_omap_set2(op, keys.bytes.data(), values.bytes.data(), keys.sizes.data(),
                             values.sizes.data(), write.set.size());
  }
  if (!write.remove.empty()) {
    Pointers keys;
    for (const std::string& key : write.remove) keys.Add(key);
    rados_write_op_omap_rm_keys2(op, keys.bytes.data(), keys.sizes.data(), write.remove.size());
  }
  if (write.remove_object) rados_write_op_remove(op);
}

using OwnedIterator = std::unique_ptr<void, IteratorDeleter>;

// Only after a read that succeeded: one that was given up has not set its iterator up.
std::vector<std::pair<std::string, std::string>> Drain(void* iterator) {
  std::vector<std::pair<std::string, std::string>> entries;
  char* key = nullptr;
  char* value = nullptr;
  size_t key_bytes = 0;
  size_t value_bytes = 0;
  while (iterator != nullptr &&
         rados_omap_get_next2(iterator, &key, &value, &key_bytes, &value_bytes) == 0 &&
         key != nullptr) {
    entries.emplace_back(std::string(key, key_bytes),
                         value == nullptr ? std::string() : std::string(value, value_bytes));
  }
  return entries;
}

class RadosObjects : public Objects {
 public:
  explicit RadosObjects(std::shared_ptr<Cluster> cluster)
      : cluster_(std::move(cluster)), pool_(cluster_->meta_pool()) {}

  Result<void> Write(const std::string& object, const ObjectWrite& write) override {
    std::unique_ptr<void, WriteOpDeleter> op(rados_create_write_op());
    AddGuards(op.get(), write);
    AddEffects(op.get(), write);
    int r = rados_write_op_operate2(op.get(), pool_, object.c_str(), nullptr,
                                    LIBRADOS_OPERATION_FULL_TRY);
    if (r < 0) return RadosError(r, "write object " + object);
    return {};
  }

  Result<ObjectView> Read(const std::string& object, const ObjectRead& read) override {
    std::unique_ptr<void, ReadOpDeleter> op(rados_create_read_op());
    rados_omap_iter_t found = nullptr;
    rados_omap_iter_t page = nullptr;
    unsigned char more = 0;
    int found_result = 0;
    int page_result = 0;
    if (!read.keys.empty()) {
      Pointers keys;
      for (const std::string& key : read.keys) keys.Add(key);
      rados_read_op_omap_get_vals_by_keys2(op.get(), keys.bytes.data(), read.keys.size(),
                                           keys.sizes.data(), &found, &found_result);
    }
    if (read.page > 0) {
      rados_read_op_omap_get_vals2(op.get(), read.after.c_str(), "", read.page, &page, &more,
                                   &page_result);
    }
    ObjectView view;
    int r = Run(op.get(), object, &view.version);
    const OwnedIterator own_found(found);
    const OwnedIterator own_page(page);
    if (r == 0) r = found_result != 0 ? found_result : page_result;
    if (r < 0) return RadosError(r, "read object " + object);
    for (auto& entry : Drain(found)) view.found.insert(std::move(entry));
    view.page = Drain(page);
    view.more = more != 0;
    return view;
  }

 private:
  // Only a completion tells the version.
  int Run(rados_read_op_t op, const std::string& object, uint64_t* version) {
    rados_completion_t made = nullptr;
    int r = rados_aio_create_completion2(nullptr, nullptr, &made);
    if (r < 0) return r;
    std::unique_ptr<void, CompletionDeleter> completion(made);
    r = rados_aio_read_op_operate(op, pool_, made, object.c_str(), 0);
    if (r < 0) return r;
    rados_aio_wait_for_complete(made);
    *version = rados_aio_get_version(made);
    return rados_aio_get_return_value(made);
  }

  const std::shared_ptr<Cluster> cluster_;
  const rados_ioctx_t pool_;
};

}  // namespace

std::unique_ptr<Objects> OpenRadosObjects(std::shared_ptr<Cluster> cluster) {
  return std::make_unique<RadosObjects>(std::move(cluster));
}

}  // namespace chunkstore::ceph
