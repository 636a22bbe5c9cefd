#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>

#include <gtest/gtest.h>

#include "blockd/memory/memory_volume.h"
#include "blockd/nbd/attachments.h"
#include "blockd/nbd/server.h"
#include "tests/blockd/nbd/client.h"
#include "tests/support/results.h"
#include "tests/support/temp_dir.h"

namespace blockd::nbd {

inline constexpr uint64_t kSizeBytes = 64 * base::kMiB;
inline constexpr int64_t kLongMs = 60'000;

// A memory volume whose calls can be made to wait, or to fail.
class MoodyVolume : public memory::MemoryVolume {
 public:
  MoodyVolume() : MemoryVolume(kSizeBytes) {}
  ~MoodyVolume() override { Release(); }

  void Hold() { Set(true); }
  void Release() { Set(false); }
  // Waits until `count` calls hang.
  void AwaitHeld(int count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return waiting_ >= count; });
  }

  base::Result<void> Read(uint64_t offset, base::MutableByteView into) override {
    RETURN_IF_ERROR(Pass());
    return MemoryVolume::Read(offset, into);
  }
  base::Result<bool> TryRead(uint64_t offset, base::MutableByteView into) override {
    tried.fetch_add(1);
    if (cold) return false;
    RETURN_IF_ERROR(MemoryVolume::Read(offset, into));
    return true;
  }
  base::Result<void> Write(uint64_t offset, base::ByteView data) override {
    RETURN_IF_ERROR(Pass());
    writes.fetch_add(1);
    return MemoryVolume::Write(offset, data);
  }
  base::Result<void> Flush() override {
    RETURN_IF_ERROR(Pass());
    return MemoryVolume::Flush();
  }

  std::atomic<bool> cold{false};  // nothing is cached
  std::atomic<int> tried{0};      // reads
  std::atomic<int> writes{0};
  std::atomic<base::Code> failure{base::Code::kNotFound};  // kNotFound: none

 private:
  void Set(bool held) {
    std::lock_guard lock(mutex_);
    held_ = held;
    changed_.notify_all();
  }
  base::Result<void> Pass() {
    std::unique_lock lock(mutex_);
    ++waiting_;
    changed_.notify_all();
    changed_.wait(lock, [&] { return !held_; });
    --waiting_;
    if (failure.load() != base::Code::kNotFound) return base::Error(failure, "in a mood");
    return {};
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  bool held_ = false;
  int waiting_ = 0;
};

class ServerTest : public testing::Test {
 protected:
  void Start(ServerSettings settings = {}) {
    ASSERT_OK_AND_ASSIGN(server_, Server::Create(settings, exports_, metrics_));
    ASSERT_OK(server_->ListenUnix(socket_));
    name_ = Attach("one", {}).value();
  }
  void TearDown() override {
    volume_->Release();
    if (server_ != nullptr) EXPECT_TRUE(server_->Stop(kLongMs));
  }

  base::Result<std::string> Attach(const std::string& id, Attachments::Spec spec,
                                   const std::string& tenant = "") {
    if (spec.volume_id.empty()) spec.volume_id = "volume";
    spec.open = [volume = volume_, limiter = limiter_, tenant]() -> base::Result<Export> {
      Export made;
      made.tenant = tenant;
      made.volume = volume;
      made.limiter = limiter;
      return made;
    };
    return exports_->Add(id, std::move(spec));
  }

  double Metric(const std::string& line) const {
    const std::string text = metrics_.Render();
    const size_t at = text.find("\n" + line + " ");
    return at == std::string::npos ? -1 : std::atof(text.c_str() + at + line.size() + 2);
  }

  static Request Read(uint64_t cookie, uint64_t offset, uint32_t length) {
    return {Command::kRead, 0, cookie, offset, length};
  }
  static Request Write(uint64_t cookie, uint64_t offset, uint32_t length, uint16_t flags = 0) {
    return {Command::kWrite, flags, cookie, offset, length};
  }
  static Request Flush(uint64_t cookie) { return {Command::kFlush, 0, cookie, 0, 0}; }

  support::TempDir dir_;
  const std::string socket_ = dir_ / "s";
  base::Metrics metrics_;
  std::shared_ptr<MoodyVolume> volume_ = std::make_shared<MoodyVolume>();
  std::shared_ptr<qos::Limiter> limiter_;
  std::shared_ptr<Attachments> exports_ = std::make_shared<Attachments>();
  std::unique_ptr<Server> server_;
  std::string name_;
};

}  // namespace blockd::nbd
