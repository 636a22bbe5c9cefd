#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/files.h"
#include "chunkstore/blob_store.h"
#include "chunkstore/local/store_lock.h"

namespace chunkstore::local {

// Blobs as files: DIR/blobs/ab/<name>, one file a blob, in 256 folders by a hash of the name.
// Nothing is ever overwritten, so a crash can only leave a part of a blob whose Put never returned.
//
// Removals are not synced: a blob that comes back after a power loss is garbage that the collector
// finds again. Thread-safe.
class LocalBlobStore : public BlobStore {
 public:
  // Makes what is missing of DIR. `files` is borrowed. kConflict if another process has the store
  // open.
  static base::Result<std::unique_ptr<LocalBlobStore>> Open(base::Files& files,
                                                            const std::string& dir);

  const Properties& properties() const override { return properties_; }
  base::Result<void> Put(std::string_view name, std::span<const base::ByteView> pieces) override;
  base::Result<void> Get(std::string_view name, uint64_t offset,
                         base::MutableByteView into) override;
  void GetMany(std::span<GetRequest> requests) override;
  base::Result<uint64_t> Size(std::string_view name) override;
  base::Result<void> Remove(std::string_view name) override;
  base::Result<void> List(const Visitor& visit) override;
  base::Result<std::shared_ptr<base::File>> OpenFile(std::string_view name) override;
  base::Result<base::SpaceInfo> Space() override;

 private:
  LocalBlobStore(base::Files& files, const std::string& dir, StoreLock lock);

  std::string FolderOf(std::string_view name) const;
  std::string PathOf(std::string_view name) const;

  base::Files& files_;
  const std::string root_;  // DIR/blobs
  const StoreLock lock_;
  const Properties properties_;
};

}  // namespace chunkstore::local
