#include <atomic>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "blockd/remote/derived_volume.h"
#include "tests/blockd/remote/world.h"

// Threads read, write, zero and flush, each in stripes of its own, beside plain strings, while the
// server is killed and started again.

namespace blockd::remote {
namespace {

constexpr uint64_t kThreads = 8;
constexpr uint64_t kStripe = 256 * base::kKiB;
constexpr uint64_t kBytes = 32 * base::kMiB;
constexpr uint64_t kImageBytes = 20 * base::kMiB + 1536;
constexpr int kRestarts = 25;

// Stripe number i is thread i % kThreads's.
class Worker {
 public:
  Worker(Volume& volume, uint64_t number, const std::string& begin, uint64_t seed)
      : volume_(volume), number_(number), random_(seed * 100 + number), model_(begin) {}

  void Step() {
    const uint64_t stripes = kBytes / kStripe / kThreads;
    const uint64_t stripe = (random_() % stripes) * kThreads + number_;
    const uint64_t sectors = kStripe / kSectorBytes;
    const uint64_t first = random_() % 3 == 0 ? random_() % 24 : random_() % sectors;
    const uint64_t offset = stripe * kStripe + first * kSectorBytes;
    const uint64_t most = std::min<uint64_t>(sectors - first, random_() % 4 == 0 ? 400 : 20);
    const uint64_t length = (1 + random_() % most) * kSectorBytes;
    switch (random_() % 8) {
      case 0:
      case 1: {
        const std::string bytes = BytesOf(random_(), length);
        ASSERT_OK(volume_.Write(offset, View(bytes)));
        model_.replace(offset, length, bytes);
        return;
      }
      case 2:
        ASSERT_OK(volume_.Zero(offset, length, random_() % 2 == 0));
        model_.replace(offset, length, length, '\0');
        return;
      case 3:
        ASSERT_OK(volume_.Flush());
        return;
      default:
        return Read(offset, length);
    }
  }
  // The stripes of this thread.
  void CheckAll() {
    for (uint64_t at = number_ * kStripe; at < kBytes; at += kThreads * kStripe) Read(at, kStripe);
  }

 private:
  void Read(uint64_t offset, uint64_t length) {
    ASSERT_OK_AND_ASSIGN(const std::string bytes, ReadString(volume_, offset, length));
    ASSERT_TRUE(std::string_view(bytes) == std::string_view(model_).substr(offset, length))
        << length << " bytes at " << offset;
  }

  Volume& volume_;
  const uint64_t number_;
  std::mt19937_64 random_;
  std::string model_;
};

void RunModel(uint64_t seed) {
  support::TempDir dir;
  const auto image =
      std::make_shared<memory::MemoryVolume>(kImageBytes / kSectorBytes * kSectorBytes);
  const auto behind = std::make_shared<memory::MemoryVolume>(kBytes);
  std::string begin(kBytes, '\0');
  const std::string bytes = BytesOf(seed, image->size_bytes());
  ASSERT_OK(image->Write(0, View(bytes)));
  ASSERT_OK(behind->Write(0, View(bytes)));
  begin.replace(0, bytes.size(), bytes);
  const std::string written = BytesOf(seed + 1, base::kMiB);
  ASSERT_OK(behind->Write(3 * base::kMiB - 512, View(written)));
  begin.replace(3 * base::kMiB - 512, written.size(), written);

  const auto service = std::make_shared<Service>(behind, dir / "s");
  service->image = image;
  service->multi_conn = seed % 3 != 0;
  service->Start();
  RemoteSettings settings;
  settings.uri = service->uri();
  settings.context = ChangedSinceImage(kImage);
  settings.reconnect_ms = 120'000;
  ASSERT_OK_AND_ASSIGN(auto remote, RemoteVolume::Open(settings));
  ASSERT_OK_AND_ASSIGN(auto volume, DerivedVolume::Open(image, remote));
  std::atomic<bool> done = false;
  std::atomic<uint64_t> steps = 0;
  std::vector<std::thread> threads;
  for (uint64_t i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      Worker worker(*volume, i, begin, seed);
      while (!done && !testing::Test::HasFatalFailure()) {
        worker.Step();
        ++steps;
      }
      worker.CheckAll();
    });
  }
  std::mt19937_64 random(seed);
  for (int restart = 0; restart < kRestarts && !testing::Test::HasFailure(); ++restart) {
    const uint64_t until = steps + 20 + random() % 200;
    while (steps < until && !testing::Test::HasFailure()) std::this_thread::yield();
    service->Kill();
    service->Start();
  }
  done = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(volume->counts().origin_bytes, 0u);
  EXPECT_GT(volume->counts().remote_bytes, 0u);
  volume.reset();
  remote.reset();
  service->Kill();
}

TEST(RemoteModelTest, AsAStringWhateverBecomesOfTheServer) {
  for (uint64_t seed = 1; seed <= 6 && !testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    RunModel(seed);
  }
}

}  // namespace
}  // namespace blockd::remote
