#include "imaged/kept_parts.h"

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "base/log.h"
#include "chunkstore/map.h"
#include "imaged/holder.h"

namespace imaged {

using base::Code;
using base::Digest256;
using base::Error;
using base::Result;
using chunkstore::ChunkStore;

namespace {

constexpr size_t kPage = 1000;

// Fills an ingest with chunks that are stored already. Only the last chunk of a content may be
// short: that one waits.
class PartMaker {
 public:
  PartMaker(chunkstore::Ingest& part, uint64_t max_bytes) : part_(part), max_bytes_(max_bytes) {}

  // False: it would be too much.
  Result<bool> Add(const Digest256& id, uint32_t length) {
    if (length > max_bytes_ - bytes_) return false;
    if (length < chunkstore::kChunkBytes) {
      short_ = {id, length};
      return true;
    }
    RETURN_IF_ERROR(Put(id, length));
    return true;
  }

  // How many bytes there are of it; 0: nothing was worth it.
  Result<uint64_t> Finish() {
    if (short_.has_value() && short_->second <= max_bytes_ - bytes_) {
      RETURN_IF_ERROR(Put(short_->first, short_->second));
    }
    if (bytes_ == 0) RETURN_IF_ERROR(part_.Abort());
    if (bytes_ > 0) RETURN_IF_ERROR(part_.Finish(bytes_));
    return bytes_;
  }

 private:
  Result<void> Put(const Digest256& id, uint32_t length) {
    ASSIGN_OR_RETURN(const bool taken, part_.PutKnown(count_, length, id));
    if (!taken) return {};  // the ingest was given up meanwhile, and the collector came by
    ++count_;
    bytes_ += length;
    return {};
  }

  chunkstore::Ingest& part_;
  const uint64_t max_bytes_;
  uint64_t count_ = 0;
  uint64_t bytes_ = 0;
  std::optional<std::pair<Digest256, uint32_t>> short_;
};

Result<std::vector<ChunkStore::Held>> AllParts(ChunkStore& store) {
  std::vector<ChunkStore::Held> parts;
  for (std::string after;;) {
    ASSIGN_OR_RETURN(auto page, store.Holders(kPartHolderPrefix, after, kPage));
    const bool last = page.size() < kPage;
    if (!last) after = page.back().holder;
    // What is still on its way has a lease of its own.
    std::erase_if(page, [](const ChunkStore::Held& part) { return !part.root.has_value(); });
    std::ranges::move(page, std::back_inserter(parts));
    if (last) return parts;
  }
}

// How many bytes; 0: none were there, or may be kept.
Result<uint64_t> KeepChunks(DataPath& path, const std::string& holder, const std::string& name) {
  const uint64_t max_bytes = path.options().kept_bytes;
  if (max_bytes == 0) return 0;
  ASSIGN_OR_RETURN(const std::unique_ptr<chunkstore::Ingest> part,
                   path.store().NewIngest(name, ""));
  PartMaker maker(*part, max_bytes);
  const Result<void> visited =
      path.store().VisitIngest(holder, [&](const Digest256& id, uint32_t length) -> Result<bool> {
        if (path.stopping()) return Error(Code::kCancelled, "the service stops");
        return maker.Add(id, length);
      });
  if (!visited.has_value() && visited.error().code() != Code::kNotFound) return visited.error();
  return maker.Finish();
}

}  // namespace

Result<void> KeepPart(DataPath& path, const std::string& project_id, const std::string& holder) {
  const Result<ChunkStore::Held> held = path.store().FindHolder(holder);
  if (!held.has_value()) {
    return held.error().code() == Code::kNotFound ? Result<void>() : held.error();
  }
  const std::string part = NewPartHolder(project_id);
  uint64_t bytes = 0;
  if (!held->root.has_value()) {
    ASSIGN_OR_RETURN(bytes, KeepChunks(path, holder, part));
  } else if (held->root->size_bytes <= path.options().kept_bytes) {
    // All of it had come, and its record was not written yet.
    bytes = held->root->size_bytes;
    if (bytes > 0) RETURN_IF_ERROR(path.store().HoldAgain(holder, part, ""));
  }
  if (bytes == 0) return {};
  LOG(kInfo, "imaged", "of an upload that broke off {} bytes are kept for project {}", bytes,
      project_id);
  return ReleaseOldParts(path);
}

Result<void> ReleaseOldParts(DataPath& path) {
  struct Kept {
    size_t parts = 0;
    uint64_t bytes = 0;
  };
  ASSIGN_OR_RETURN(std::vector<ChunkStore::Held> parts, AllParts(path.store()));
  std::ranges::sort(parts, std::ranges::greater(), &ChunkStore::Held::since_us);
  const int64_t oldest_us = path.clock().NowUs() - kKeptPartUs;
  std::map<std::string, Kept, std::less<>> projects;
  uint64_t total = 0;
  for (const ChunkStore::Held& part : parts) {
    Kept& kept = projects[std::string(ProjectOfPartHolder(part.holder))];
    const uint64_t bytes = part.root->size_bytes;
    const bool fits =
        kept.parts < kKeptPartsOfProject && kept.bytes + bytes <= path.options().kept_bytes;
    if (part.since_us < oldest_us || !fits) {
      RETURN_IF_ERROR(path.store().Release(part.holder));
      continue;
    }
    ++kept.parts;
    kept.bytes += bytes;
    total += bytes;
  }
  path.ShowKept(total);
  return {};
}

}  // namespace imaged
