#include "imaged/restore.h"

#include <algorithm>
#include <memory>
#include <utility>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/uuid.h"
#include "chunkstore/jobs/journal.h"
#include "imaged/digests.h"
#include "imaged/formats/inspector.h"
#include "imaged/holder.h"
#include "imaged/image.h"

namespace imaged {
namespace {

using base::Code;
using base::Error;
using base::Result;

constexpr size_t kHoldersAtOnce = 100;
constexpr int64_t kRestoreLeaseMs = 3'600'000;

Result<std::vector<uint8_t>> ReadPart(chunkstore::Content& content, uint64_t offset,
                                      uint64_t length) {
  std::vector<uint8_t> bytes(length);
  RETURN_IF_ERROR(content.ReadAt(offset, bytes));
  return bytes;
}

// What the steps share.
struct World {
  chunkstore::ChunkStore& store;
  Catalog& catalog;
  const DataOptions& options;
  DigestStore digests;
  chunkstore::jobs::Journal jobs;
};

// The size of the disk that the bytes describe; they were accepted once, so a refusal now is no
// reason to lose the image.
Result<std::optional<uint64_t>> VirtualSize(const Image& image, chunkstore::Content& content) {
  const uint64_t size = content.root().size_bytes;
  formats::Inspector inspector(image.disk_format.value_or("raw"),
                               image.container_format.value_or("bare"));
  ASSIGN_OR_RETURN(const auto head,
                   ReadPart(content, 0, std::min<uint64_t>(size, formats::kHeadBytes)));
  const uint64_t tail_bytes = std::min<uint64_t>(size, formats::kTailBytes);
  ASSIGN_OR_RETURN(const auto tail, ReadPart(content, size - tail_bytes, tail_bytes));
  if (!inspector.Head(head).has_value()) return std::optional<uint64_t>();
  const auto finished = inspector.Finish(size, tail);
  return finished.has_value() ? *finished : std::optional<uint64_t>();
}

// The record as it was before its upload began.
Image BeforeUpload(Image image) {
  image.status = Status::kQueued;
  image.upload.reset();
  image.data.reset();
  image.staged.reset();
  image.size_bytes.reset();
  return image;
}

// What is left to say of an image whose holder carries no record.
Result<Image> Nameless(std::string_view holder) {
  const std::string id(ImageOfHolder(holder));
  if (!base::IsUuid(id)) return Error(Code::kInvalidArgument, "the holder names no image");
  Image image;
  image.id = id;
  image.name = "recovered";
  image.visibility = Visibility::kPrivate;
  image.disk_format = "raw";
  image.container_format = "bare";
  return image;
}

// The digests that the policy wants now: what is known of the same bytes, the rest computed.
Result<Digests> DigestsOf(World& world, chunkstore::Content& content) {
  ASSIGN_OR_RETURN(Digests digests, world.digests.Get(content.root()));
  std::vector<std::string> missing;
  const auto need = [&](const std::string& algorithm) {
    if (!digests.contains(algorithm)) missing.push_back(algorithm);
  };
  need(world.options.hash_algorithm);
  if (world.options.checksum == ChecksumPolicy::kInline) need(std::string(kChecksumAlgorithm));
  if (missing.empty()) return digests;
  ASSIGN_OR_RETURN(const Digests computed, ComputeDigests(content, missing, [] { return false; }));
  RETURN_IF_ERROR(world.digests.Add(content.root(), computed));
  digests.insert(computed.begin(), computed.end());
  return digests;
}

Result<DataFacts> FactsOf(World& world, const Image& image, chunkstore::Content& content) {
  DataFacts facts;
  facts.root = content.root();
  facts.stores = {world.options.store_id};
  ASSIGN_OR_RETURN(const Digests digests, DigestsOf(world, content));
  ASSIGN_OR_RETURN(facts.virtual_size_bytes, VirtualSize(image, content));
  facts.os_hash_algo = world.options.hash_algorithm;
  facts.os_hash_value = digests.at(world.options.hash_algorithm);
  const auto checksum = digests.find(kChecksumAlgorithm);
  if (checksum != digests.end()) facts.checksum = checksum->second;
  return facts;
}

// Makes the record, through the same steps as an upload: an earlier run may have stopped after any
// of them.
Result<void> MakeRecord(Catalog& catalog, const chunkstore::ChunkStore::Held& held, Image image,
                        const DataFacts& facts) {
  const std::string id = image.id;
  const auto anybody = [](const Image&) -> Result<void> { return {}; };
  Result<Image> found = catalog.Get(id);
  if (!found.has_value()) {
    if (found.error().code() != Code::kNotFound) return found.error();
    found = catalog.Create(BeforeUpload(std::move(image)));
    if (!found.has_value()) return found.error();
  }
  if (found->status == Status::kQueued) {
    RETURN_IF_ERROR(catalog.BeginUpload(id, UploadKind::kData, held.holder, kRestoreLeaseMs,
                                        held.root->size_bytes, anybody));
  }
  RETURN_IF_ERROR(catalog.FinishUpload(id, held.holder, held.holder, facts));
  return {};
}

// True if this holder's image has a record that is no leftover of an earlier run.
Result<bool> HasRecord(Catalog& catalog, const std::string& id, const std::string& holder) {
  const Result<Image> image = catalog.Get(id);
  if (!image.has_value()) {
    if (image.error().code() == Code::kNotFound) return false;
    return image.error();
  }
  const bool ours = image->upload.has_value() && image->upload->holder == holder;
  return image->status != Status::kQueued && !ours;
}

Result<void> RestoreOne(World& world, const chunkstore::ChunkStore::Held& held,
                        RestoreReport* report) {
  Result<Image> image = DecodeImage(held.attributes);
  if (!image.has_value()) {
    report->skipped.push_back(
        fmt::format("{}: its record ({})", held.holder, image.error().message()));
    image = Nameless(held.holder);
    if (!image.has_value()) return {};
  }
  const std::string id = image->id;
  const std::string owner = image->owner;
  ASSIGN_OR_RETURN(const bool there, HasRecord(world.catalog, id, held.holder));
  ASSIGN_OR_RETURN(const bool was_deleted, world.catalog.WasDeleted(id));
  if (there || was_deleted) return {};
  ASSIGN_OR_RETURN(const auto content, world.store.Open(*held.root));
  Result<DataFacts> facts = FactsOf(world, *image, *content);
  if (!facts.has_value()) {
    report->skipped.push_back(
        fmt::format("{}: its digest ({})", held.holder, facts.error().message()));
    facts = DataFacts{};
    facts->root = *held.root;
    facts->stores = {world.options.store_id};
  } else if (!facts->checksum.has_value() &&
             world.options.checksum == ChecksumPolicy::kBackground) {
    // Before the record: a crash in between leaves a job that finds nothing to do.
    RETURN_IF_ERROR(world.jobs.Add(kChecksumJob, id));
  }
  RETURN_IF_ERROR(MakeRecord(world.catalog, held, *std::move(image), *facts));
  report->restored.push_back(id);
  ++report->owners[owner];
  return {};
}

}  // namespace

Result<RestoreReport> RestoreImages(chunkstore::ChunkStore& store, chunkstore::MetaStore& meta,
                                    Catalog& catalog, const DataOptions& options,
                                    const std::function<bool()>& go_on) {
  World world{store, catalog, options, DigestStore(meta),
              chunkstore::jobs::Journal(meta, base::SystemClock(), std::string(kJobsPartition),
                                        base::NewUuidHex())};
  RestoreReport report;
  std::string after;
  while (true) {
    ASSIGN_OR_RETURN(const auto holders, store.Holders(kHolderPrefix, after, kHoldersAtOnce));
    for (const auto& held : holders) {
      if (!go_on()) return Error(Code::kCancelled, "called off");
      after = held.holder;
      if (!held.root.has_value()) continue;
      const Result<void> restored = RestoreOne(world, held, &report);
      if (!restored.has_value()) return restored.error().Annotate(held.holder);
    }
    if (holders.size() < kHoldersAtOnce) return report;
  }
}

}  // namespace imaged
