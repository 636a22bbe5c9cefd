#include <array>
#include <atomic>
#include <map>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "base/thread_annotations.h"
#include "base/uuid.h"
#include "chunkstore/memory/memory_meta_store.h"
#include "imaged/catalog.h"
#include "imaged/index.h"
#include "tests/support/results.h"

// Catalogs over one store, each with a thread of its own, do at random what processes beside each
// other do to the same few images. Afterwards everything must add up.

namespace imaged {
namespace {

using base::Code;
using base::MutexLock;
using base::Result;

constexpr size_t kProcesses = 4;
constexpr int kSteps = 500;
constexpr size_t kImages = 6;
constexpr size_t kLives = 200;  // of each: an id is never given again
constexpr uint64_t kQuotaBytes = 1000;
constexpr uint64_t kQuotaImages = 2;
constexpr char kCounter[] = "counter";
const Catalog::Check kAnybody = [](const Image&) -> Result<void> { return {}; };

class World {
 public:
  World() {
    for (std::string& id : ids_) id = base::NewUuid();
    Catalog catalog(meta_, base::SystemClock());
    Image kept;
    kept.id = kept_id_;
    kept.owner = "kept";
    EXPECT_OK(catalog.Create(kept));
  }

  // What one process does.
  void Run(size_t process, uint64_t seed) {
    Catalog catalog(meta_, base::SystemClock(), {.images = kQuotaImages, .bytes = kQuotaBytes});
    std::mt19937_64 random(seed);
    for (int step = 0; step < kSteps; ++step) {
      const size_t slot = random() % kImages;
      const size_t image = slot + kImages * lives_[slot];
      switch (random() % 8) {
        case 0:
          Create(catalog, image);
          break;
        case 1:
          Delete(catalog, slot, image);
          break;
        case 2:
        case 3:
          Begin(catalog, image, random() % 400);
          break;
        case 4:
        case 5:
          End(catalog, process, random);
          break;
        case 6:
          Count(catalog);
          break;
        case 7:
          Share(catalog, "m" + std::to_string(process) + "-" + std::to_string(step));
          break;
      }
    }
  }

  void Check() {
    Catalog catalog(meta_, base::SystemClock());
    for (const auto& [holder, upload] : begun_) {
      EXPECT_LE(upload.ends, 1) << "an upload ended twice";
      EXPECT_OK(catalog.FailUpload(ids_[upload.image], holder, nullptr));
    }
    EXPECT_EQ(Keys(kUploadPrefix).size(), 0U);

    std::map<std::string, Usage> sums;
    std::set<std::string> named;
    size_t images = 0;
    for (const std::string& id : ids_) {
      const Result<Image> image = catalog.Get(id);
      if (!image.has_value()) continue;
      ++images;
      EXPECT_FALSE(image->upload.has_value());
      EXPECT_EQ(image->status == Status::kActive, image->data.has_value());
      const Usage usage = UsageOf(*image);
      sums[image->owner].images += usage.images;
      sums[image->owner].bytes += usage.bytes;
      if (image->data.has_value()) named.insert(image->data->holder);
    }
    for (const std::string project : {"even", "odd"}) {
      const Usage usage = *catalog.UsageOfProject(project);
      EXPECT_EQ(usage, sums[project]) << project;
      EXPECT_LE(usage.bytes, kQuotaBytes);
      EXPECT_LE(usage.images, kQuotaImages);
    }
    EXPECT_EQ(Keys("x/a/c/").size(), images + 1);

    std::set<std::string> pending;
    ASSERT_OK_AND_ASSIGN(const auto releases, catalog.PendingReleases(1'000'000));
    for (const auto& one : releases) pending.insert(one.holder);
    for (const std::string& holder : named) EXPECT_FALSE(pending.contains(holder));
    for (const std::string& holder : finished_)
      EXPECT_TRUE(named.contains(holder) || pending.contains(holder)) << "bytes are leaked";
    for (const auto& [holder, upload] : begun_) EXPECT_TRUE(pending.contains(holder));

    ASSERT_OK_AND_ASSIGN(const Image kept, catalog.Get(kept_id_));
    EXPECT_EQ(*kept.properties.at(kCounter), std::to_string(counted_)) << "an update was lost";
    EXPECT_EQ(kept.members.size(), shared_.load()) << "a member was lost";
    EXPECT_FALSE(finished_.empty());
  }

 private:
  struct Begun {
    size_t image = 0;
    int ends = 0;
  };

  template <typename Value>
  static void Expected(const Result<Value>& result) {
    if (result.has_value()) return;
    const Code code = result.error().code();
    EXPECT_TRUE(code == Code::kNotFound || code == Code::kConflict ||
                code == Code::kAlreadyExists || code == Code::kQuotaExceeded)
        << result.error().ToString();
  }

  void Delete(Catalog& catalog, size_t slot, size_t image) {
    const auto deleted = catalog.Delete(ids_[image], kAnybody);
    Expected(deleted);
    if (deleted.has_value() && lives_[slot] + 1 < kLives) ++lives_[slot];
  }

  void Create(Catalog& catalog, size_t image) {
    Image made;
    made.id = ids_[image];
    made.owner = image % 2 == 0 ? "even" : "odd";
    Expected(catalog.Create(made));
  }

  void Begin(Catalog& catalog, size_t image, uint64_t bytes) {
    const std::string holder = "image/" + ids_[image] + "/" + base::NewUuidHex();
    const auto begun =
        catalog.BeginUpload(ids_[image], UploadKind::kData, holder, 60'000, bytes, kAnybody);
    Expected(begun);
    MutexLock lock(mutex_);
    if (begun.has_value()) begun_[holder].image = image;
  }

  // Any process may come to end any upload, in either way, and each with bytes of its own.
  void End(Catalog& catalog, size_t process, std::mt19937_64& random) {
    std::string holder;
    size_t image = 0;
    {
      MutexLock lock(mutex_);
      if (begun_.empty()) return;
      auto at = begun_.begin();
      std::advance(at, random() % begun_.size());
      if (at->second.ends > 0 && random() % 4 != 0) return;
      holder = at->first;
      image = at->second.image;
    }
    bool ended = false;
    DataFacts facts;
    facts.root.size_bytes = random() % 600;
    const std::string data = holder + "-" + std::to_string(process) + "-" + base::NewUuidHex();
    if (random() % 3 == 0) {
      const auto failed = catalog.FailUpload(ids_[image], holder, nullptr);
      Expected(failed);
      ended = failed.has_value() && *failed;
    } else {
      const auto finished = catalog.FinishUpload(ids_[image], holder, data, facts);
      Expected(finished);
      ended = finished.has_value();
      MutexLock lock(mutex_);
      if (ended) finished_.insert(data);
    }
    MutexLock lock(mutex_);
    if (ended) ++begun_[holder].ends;
  }

  void Count(Catalog& catalog) {
    const auto done = catalog.Update(kept_id_, [](Image& image) -> Result<void> {
      auto& counter = image.properties.try_emplace(kCounter, "0").first->second;
      counter = std::to_string(std::stoi(*counter) + 1);
      return {};
    });
    EXPECT_OK(done);
    ++counted_;
  }

  void Share(Catalog& catalog, const std::string& project) {
    EXPECT_OK(catalog.Update(kept_id_, [&](Image& image) -> Result<void> {
      image.members.push_back({project, MemberStatus::kPending, 1, 1});
      return {};
    }));
    ++shared_;
  }

  std::vector<std::string> Keys(std::string_view prefix) {
    std::vector<std::string> keys;
    EXPECT_OK(meta_.Scan(kImagesPartition, prefix, chunkstore::PrefixEnd(prefix), SIZE_MAX,
                         [&](std::string_view key, std::string_view) {
                           keys.emplace_back(key);
                           return true;
                         }));
    return keys;
  }

  chunkstore::MemoryMetaStore meta_;
  const std::string kept_id_ = base::NewUuid();
  std::array<std::string, kImages * kLives> ids_;
  std::array<std::atomic<size_t>, kImages> lives_ = {};
  std::atomic<int> counted_{0};
  std::atomic<size_t> shared_{0};
  base::Mutex mutex_;
  std::map<std::string, Begun> begun_;  // guarded by mutex_ while the processes run
  std::set<std::string> finished_;      // the same: data of images
};

TEST(Processes, AddUp) {
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    SCOPED_TRACE(seed);
    World world;
    std::vector<std::thread> processes;
    for (size_t i = 0; i < kProcesses; ++i)
      processes.emplace_back([&world, i, seed] { world.Run(i, seed * 100 + i); });
    for (std::thread& process : processes) process.join();
    world.Check();
  }
}

}  // namespace
}  // namespace imaged
