#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "blockd/memory/memory_volume.h"
#include "blockd/nbd/server.h"
#include "blockd/remote/remote_volume.h"
#include "tests/support/results.h"
#include "tests/support/temp_dir.h"

namespace blockd::remote {

inline constexpr char kSecretName[] = "attachment.of-a-secret";
inline constexpr char kImage[] = "11111111-2222-3333-4444-555555555555";

// Bytes of a range that say which seed they are of.
inline std::string BytesOf(uint64_t seed, uint64_t length) {
  std::string bytes(length, '\0');
  uint64_t state = seed * 0x9e3779b97f4a7c15 + 1;
  for (char& byte : bytes) {
    state = state * 6364136223846793005 + 1442695040888963407;
    byte = static_cast<char>(state >> 56);
  }
  return bytes;
}

inline base::ByteView View(const std::string& bytes) {
  return {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()};
}

inline base::Result<std::string> ReadString(Volume& volume, uint64_t offset, uint64_t length) {
  std::string bytes(length, '?');
  RETURN_IF_ERROR(volume.Read(offset, {reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()}));
  return bytes;
}

// Compares a volume with what its image had, block by block: what a real store knows by its layers.
class Compared : public ChangedBlocks {
 public:
  Compared(std::shared_ptr<Volume> now, std::shared_ptr<Volume> then)
      : now_(std::move(now)), then_(std::move(then)) {}

  base::Result<void> Visit(uint64_t offset, uint64_t length, const Visitor& visit) override {
    for (uint64_t at = offset; at < offset + length;) {
      const uint64_t here = std::min(kBlockBytes - at % kBlockBytes, offset + length - at);
      ASSIGN_OR_RETURN(const std::string now, ReadString(*now_, at, here));
      std::string then(here, '\0');
      if (at < then_->size_bytes()) {
        const uint64_t in_image = std::min(here, then_->size_bytes() - at);
        ASSIGN_OR_RETURN(const std::string head, ReadString(*then_, at, in_image));
        then.replace(0, in_image, head);
      }
      if (!visit(here, now != then)) return {};
      at += here;
    }
    return {};
  }

 private:
  const std::shared_ptr<Volume> now_;
  const std::shared_ptr<Volume> then_;
};

// One export under kSecretName, on a unix socket, by a server that can be killed and started again.
class Service : public nbd::ExportProvider, public std::enable_shared_from_this<Service> {
 public:
  Service(std::shared_ptr<Volume> volume, std::string socket)
      : volume_(std::move(volume)), socket_(std::move(socket)) {}

  // Before Start.
  std::shared_ptr<Volume> image;  // null: no context
  bool multi_conn = true;
  bool read_only = false;
  nbd::ServerSettings settings;

  void Start() {
    std::lock_guard lock(mutex_);
    ASSERT_OK_AND_ASSIGN(server_, nbd::Server::Create(settings, shared_from_this(), metrics_));
    ASSERT_OK(server_->ListenUnix(socket_));
  }
  // Cuts everybody off at once.
  void Kill() {
    std::lock_guard lock(mutex_);
    if (server_ != nullptr) server_->Stop(0);
    server_.reset();
  }
  size_t connections() {
    std::lock_guard lock(mutex_);
    return server_ == nullptr ? 0 : server_->connections();
  }

  std::string uri(const std::string& name = kSecretName) const {
    return "nbd+unix:///" + name + "?socket=" + socket_;
  }
  const std::string& socket() const { return socket_; }

  base::Result<std::shared_ptr<const nbd::Export>> Open(std::string_view name) override {
    if (name != kSecretName) return base::Error(base::Code::kNotFound, "no such export");
    nbd::Export made;
    made.volume_id = "v";
    made.volume = volume_;
    made.multi_conn = multi_conn;
    made.read_only = read_only;
    made.changed_since_image =
        [this](std::string_view id) -> base::Result<std::shared_ptr<ChangedBlocks>> {
      if (id != kImage || image == nullptr) return base::Error(base::Code::kNotFound, "no image");
      return std::shared_ptr<ChangedBlocks>(std::make_shared<Compared>(volume_, image));
    };
    return std::make_shared<const nbd::Export>(std::move(made));
  }

 private:
  const std::shared_ptr<Volume> volume_;
  const std::string socket_;
  base::Metrics metrics_;
  std::mutex mutex_;
  std::unique_ptr<nbd::Server> server_;
};

}  // namespace blockd::remote
