#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/http/server.h"
#include "base/json.h"
#include "chunkstore/memory/memory_blob_store.h"
#include "chunkstore/memory/memory_meta_store.h"
#include "imaged/data_path.h"
#include "imaged/service.h"
#include "tests/support/hooked_meta_store.h"

// The whole Image API over stores in memory, behind a real server on a port of its own.

namespace imaged {

// A blob store that fails every Put after so many, as a full disk does, until told otherwise.
class FaultyBlobs : public chunkstore::BlobStore {
 public:
  const Properties& properties() const override { return blobs_.properties(); }
  base::Result<void> Put(std::string_view name, std::span<const base::ByteView> pieces) override;
  base::Result<void> Get(std::string_view name, uint64_t offset,
                         base::MutableByteView into) override {
    return blobs_.Get(name, offset, into);
  }
  void GetMany(std::span<GetRequest> requests) override { blobs_.GetMany(requests); }
  base::Result<uint64_t> Size(std::string_view name) override { return blobs_.Size(name); }
  base::Result<void> Remove(std::string_view name) override { return blobs_.Remove(name); }
  base::Result<void> List(const Visitor& visit) override { return blobs_.List(visit); }
  base::Result<std::shared_ptr<base::File>> OpenFile(std::string_view name) override {
    return blobs_.OpenFile(name);
  }
  base::Result<base::SpaceInfo> Space() override { return blobs_.Space(); }

  // The put number `nth` from now (0: the next) and all after it fail; -1: none.
  void FailPutsFrom(int64_t nth) { left_.store(nth); }

 private:
  chunkstore::MemoryBlobStore blobs_;
  std::atomic<int64_t> left_{-1};
};

struct Answer {
  int status = 0;
  std::string head;  // status line and fields
  std::string body;
  std::string Field(std::string_view name) const;
};

// A connection to 127.0.0.1 that sends and reads what the test says, and nothing else.
class RawClient {
 public:
  explicit RawClient(const std::string& address);
  ~RawClient();
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;

  // False when the other side has closed.
  bool Send(std::string_view bytes);
  // Until the other side closes.
  Answer ReadAnswer();
  void Close();
  // No FIN: the next send of the peer meets a reset.
  void Reset();

 private:
  int socket_ = -1;
};

// What several services may share, as processes do.
struct Stores {
  FaultyBlobs blobs;
  chunkstore::MemoryMetaStore meta;
};

class Service {
 public:
  struct Options {
    DataOptions data;
    QuotaLimits quota;
    chunkstore::ChunkStoreOptions chunks;
    std::shared_ptr<Stores> stores;  // null: its own
  };
  static Options Defaults();

  explicit Service(Options options = Defaults());
  ~Service();

  // One request on one connection. `who`: "admin", "service" (with that role in a project of its
  // own), or a project whose member it is.
  Answer Call(std::string_view who, std::string_view method, std::string_view path,
              std::string_view body = {}, std::string_view type = "application/json",
              std::string_view more_fields = {});
  // The same in its raw form, up to the end of the head.
  static std::string Head(std::string_view who, std::string_view method, std::string_view path,
                          std::string_view fields);

  // The id of a queued image.
  std::string CreateImage(std::string_view who = "p1", std::string_view disk_format = "raw",
                          std::string_view container_format = "bare");
  Answer Upload(const std::string& id, std::string_view bytes, std::string_view who = "p1");
  Answer Download(const std::string& id, std::string_view fields = {}, std::string_view who = "p1");
  Image ImageOf(const std::string& id);
  base::Json Show(const std::string& id);

  // Waits (without sleeping for a fixed time) until the image is as wanted; gives up after a
  // minute.
  template <typename Predicate>
  bool Eventually(Predicate predicate);

  // Lets go of everything deleted, collects, and says how many bytes are left in the blobs.
  uint64_t BytesAfterCollect();

  const std::string& address() const { return address_; }
  DataPath& path() { return *path_; }
  Catalog& catalog() { return *catalog_; }
  chunkstore::ChunkStore& store() { return *store_; }
  base::Metrics& metrics() { return *metrics_; }
  FaultyBlobs& blobs() { return options_.stores->blobs; }
  // This service's door to the store of metadata.
  support::HookedMetaStore& meta() { return meta_; }

  // Stops the service as a crash would: nothing is drained or rolled back; then starts it again
  // over the same stores.
  void Restart();
  void StopServer();

 private:
  class Tokens;

  void Start();

  const Options options_;
  support::HookedMetaStore meta_;
  std::unique_ptr<base::Metrics> metrics_;
  std::unique_ptr<base::async::Pool> pool_;
  std::unique_ptr<chunkstore::ChunkStore> store_;
  std::unique_ptr<Catalog> catalog_;
  std::unique_ptr<Metadefs> metadefs_;
  std::unique_ptr<Tokens> tokens_;
  std::unique_ptr<DataPath> path_;
  std::unique_ptr<ImageService> service_;
  std::unique_ptr<base::http::Router> router_;
  std::unique_ptr<base::http::Server> server_;
  std::string address_;
};

// Bytes that don't compress, the same for the same seed.
std::string RandomBytes(size_t size, uint64_t seed = 1);

void ShortPause();

template <typename Predicate>
bool Service::Eventually(Predicate predicate) {
  for (int i = 0; i < 6000; ++i) {
    if (predicate()) return true;
    ShortPause();
  }
  return false;
}

}  // namespace imaged
