#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <utility>

#include <fmt/format.h>

#include "base/hash.h"
#include "base/log.h"
#include "base/uuid.h"
#include "blockd/rbd/errors.h"
#include "blockd/rbd/image.h"
#include "blockd/rbd/rbd_volume_store.h"

// One RBD image for each content that volumes are made of: filled once, snapped, then cloned.

namespace blockd::rbd {

using base::Code;
using base::Error;
using base::Result;
using chunkstore::kChunkBytes;

namespace {

constexpr size_t kFillThreads = 8;  // each has a chunk of 4 MiB in memory
constexpr std::chrono::milliseconds kLookEvery{20};
constexpr int64_t kNoteUseEveryUs = 60 * base::kSecondUs;

std::string RootKey(const chunkstore::Root& root) {
  return fmt::format("{}-{}", root.id.hex(), root.size_bytes);
}

uint64_t WholeBlocks(uint64_t size_bytes) {
  return std::max<uint64_t>(1, (size_bytes + kBlockBytes - 1) / kBlockBytes) * kBlockBytes;
}

// Copies what is not a hole, with several threads; the first error ends it.
Result<void> CopyContent(chunkstore::Content& content, Image& image, base::Counter& filled_bytes,
                         const std::atomic<bool>& stopping) {
  const uint64_t size_bytes = content.root().size_bytes;
  std::vector<uint64_t> indexes;
  RETURN_IF_ERROR(content.VisitChunks(0, (size_bytes + kChunkBytes - 1) / kChunkBytes,
                                      [&](uint64_t index, const base::Digest256&) {
                                        indexes.push_back(index);
                                        return true;
                                      }));
  std::atomic<size_t> next = 0;
  base::Mutex mutex;
  Result<void> outcome;
  const auto copy_one = [&](uint64_t index, base::Buffer& buffer) -> Result<void> {
    const uint64_t offset = index * kChunkBytes;
    const auto bytes = buffer.view().first(std::min<uint64_t>(kChunkBytes, size_bytes - offset));
    RETURN_IF_ERROR(content.ReadAt(offset, bytes));
    RETURN_IF_ERROR(image.Write(offset, bytes));
    filled_bytes.Add(static_cast<double>(bytes.size()));
    return {};
  };
  const auto copy = [&] {
    base::Buffer buffer(kChunkBytes);
    for (size_t at = next++; at < indexes.size(); at = next++) {
      Result<void> copied = stopping ? Result<void>(Stopping()) : copy_one(indexes[at], buffer);
      if (copied) continue;
      next = indexes.size();
      base::MutexLock lock(mutex);
      outcome = std::move(copied);
    }
  };
  std::vector<std::thread> threads;
  for (size_t i = 1; i < std::min(kFillThreads, indexes.size()); ++i) threads.emplace_back(copy);
  copy();
  for (std::thread& thread : threads) thread.join();
  base::MutexLock lock(mutex);
  return outcome;
}

}  // namespace

// The point with the content that a holder holds, as an RBD snapshot. Who comes while it is filled
// waits; a fill that died is begun again.
Result<std::string> RbdVolumeStore::ParentOf(const std::string& holder, uint64_t limit_bytes) {
  ASSIGN_OR_RETURN(const auto held, chunks_.FindHolder(holder));
  if (!held.root) return Error(Code::kNotFound, "holder " + holder + " holds nothing yet");
  if (held.root->size_bytes > limit_bytes) {
    return Error(Code::kInvalidArgument,
                 fmt::format("a volume of {} bytes is too small for its source of {} bytes",
                             limit_bytes, held.root->size_bytes));
  }
  const std::string root = RootKey(*held.root);
  while (!stopping_) {
    ParentRecord parent;
    ASSIGN_OR_RETURN(const auto point, FindOrBegin(root, &parent));
    if (point) return *point;
    if (!parent.image.empty()) return Fill(root, parent, holder);
    std::this_thread::sleep_for(kLookEvery);
  }
  return Stopping();
}

// The point; or nothing, and either `begun` is ours to fill or (empty) somebody is at it.
Result<std::optional<std::string>> RbdVolumeStore::FindOrBegin(const std::string& root,
                                                               ParentRecord* begun) {
  std::optional<std::string> point;
  RETURN_IF_ERROR(ledger_.Update([&](Change& change) -> Result<void> {
    point.reset();
    *begun = {};
    ASSIGN_OR_RETURN(auto known, change.Find<ParentRecord>(root));
    if (known && !known->point.empty()) {
      point = known->point;
      if (clock_.NowUs() - known->used_us < kNoteUseEveryUs) return {};
      known->used_us = clock_.NowUs();
      change.Put(root, *known);
      return {};
    }
    if (known) {
      ASSIGN_OR_RETURN(const bool lives, sessions_.Lives(known->session));
      if (lives) return {};
      change.Mark("h/", known->holder);  // its image is given up as what a dead session makes
    }
    const std::string name = "parent." + base::NewUuidHex();
    *begun = {.image = name, .holder = std::string(kHolders) + name, .session = sessions_.mine()};
    change.Put(root, *begun);
    change.Put(name, ImageRecord{.session = sessions_.mine(), .root = root});
    change.Mark("g/", name, sessions_.mine());
    return {};
  }));
  return point;
}

Result<std::string> RbdVolumeStore::Fill(const std::string& root, const ParentRecord& parent,
                                         const std::string& source) {
  const std::string point = base::NewUuidHex();
  uint64_t size_bytes = 0;
  Result<void> filled = FillImage(parent, source, point, &size_bytes);
  if (filled) {
    filled = ledger_.Update([&](Change& change) -> Result<void> {
      RETURN_IF_ERROR(Adopt(change, parent.image));
      ASSIGN_OR_RETURN(auto image, change.Get<ImageRecord>(parent.image));
      image.points = 1;
      change.Put(parent.image, image);
      change.Put(point, PointRecord{.image = parent.image,
                                    .snap = true,
                                    .size_bytes = size_bytes,
                                    .holder = parent.holder,
                                    .uses = 1});
      change.Put(root, ParentRecord{point, parent.image, parent.holder, "", clock_.NowUs()});
      return {};
    });
  }
  if (filled) return point;
  GiveUpFilling(root, parent);
  return std::move(filled).error().Annotate("filling the parent of volumes of " + source);
}

Result<void> RbdVolumeStore::FillImage(const ParentRecord& parent, const std::string& source,
                                       const std::string& point, uint64_t* size_bytes) {
  ASSIGN_OR_RETURN(const chunkstore::Root root, chunks_.HoldAgain(source, parent.holder, ""));
  ASSIGN_OR_RETURN(const auto content, chunks_.Open(root));
  ASSIGN_OR_RETURN(const std::shared_ptr<Cluster> cluster, Connection());
  *size_bytes = WholeBlocks(root.size_bytes);
  RETURN_IF_ERROR(cluster->Create(parent.image, *size_bytes));
  ASSIGN_OR_RETURN(const std::unique_ptr<Image> image,
                   cluster->Open(parent.image, "", Cluster::Mode::kWrite));
  RETURN_IF_ERROR(CopyContent(*content, *image, filled_bytes_, stopping_));
  return image->CreateSnap(point);
}

void RbdVolumeStore::GiveUpFilling(const std::string& root, const ParentRecord& parent) {
  const Result<void> given_up = ledger_.Update([&](Change& change) -> Result<void> {
    ASSIGN_OR_RETURN(const auto image, change.Find<ImageRecord>(parent.image));
    // Ready: it happened in spite of the error.
    if (!image || image->state != ImageState::kMaking) return {};
    ASSIGN_OR_RETURN(const auto known, change.Find<ParentRecord>(root));
    if (known && known->image == parent.image) change.Delete<ParentRecord>(root);
    change.Mark("h/", parent.holder);
    return change.GiveUpImage(parent.image);
  });
  if (!given_up) LOG(kWarn, "rbd", "image {}: {}", parent.image, given_up.error().ToString());
}

// Parents that nothing is a clone of any more, and fills that died and nobody began again.
Result<bool> RbdVolumeStore::RemoveIdleParents() {
  ASSIGN_OR_RETURN(const auto parents, ledger_.All<ParentRecord>());
  bool did = false;
  for (const auto& [key, listed] : parents) {
    const int64_t idle_us = clock_.NowUs() - listed.used_us;
    if (!listed.point.empty() && idle_us < options_.parent_idle_ms * 1000) continue;
    const std::string& root = key;
    RETURN_IF_ERROR(ledger_.Update([&](Change& change) -> Result<void> {
      ASSIGN_OR_RETURN(const auto parent, change.Find<ParentRecord>(root));
      if (!parent) return {};
      if (parent->point.empty()) {
        ASSIGN_OR_RETURN(const bool lives, sessions_.Lives(parent->session));
        if (lives) return {};
        change.Mark("h/", parent->holder);
      } else {
        ASSIGN_OR_RETURN(const auto point, change.Get<PointRecord>(parent->point));
        if (point.uses > 1) return {};
        RETURN_IF_ERROR(change.DropUse(parent->point));
      }
      change.Delete<ParentRecord>(root);
      did = true;
      return {};
    }));
  }
  return did;
}

}  // namespace blockd::rbd
