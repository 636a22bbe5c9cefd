#include "controlplane/volume_images.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/uuid.h"
#include "chunkstore/chunk_store.h"
#include "controlplane/convert/private_directory.h"
#include "controlplane/convert/qcow2_writer.h"
#include "imaged/attributes.h"
#include "imaged/handover.h"
#include "imaged/holder.h"
#include "imaged/inspect.h"
#include "imaged/policy.h"

namespace controlplane {

using base::Code;
using base::Error;
using base::Result;
using chunkstore::Root;
using imaged::Image;

namespace {

// The bytes are the disk.
bool IsDisk(std::string_view disk_format) { return disk_format == "raw" || disk_format == "iso"; }

base::Counter& ConversionCounter(base::Metrics& metrics, const char* outcome) {
  return metrics.GetCounter("quarry_image_conversions_total",
                            "images converted to the disk that they describe",
                            {{"outcome", outcome}});
}

// What Cinder keeps of the image with a volume, under its names.
std::map<std::string, std::string> VolumeMetadata(const Image& image) {
  std::map<std::string, std::string> metadata = {{"image_id", image.id},
                                                 {"min_disk", std::to_string(image.min_disk_gb)},
                                                 {"min_ram", std::to_string(image.min_ram_mb)}};
  const auto put = [&metadata](const char* key, const std::optional<std::string>& value) {
    if (value.has_value() && !value->empty()) metadata[key] = *value;
  };
  put("image_name", image.name);
  put("checksum", image.checksum);
  put("container_format", image.container_format);
  put("disk_format", image.disk_format);
  if (image.size_bytes.has_value()) metadata["size"] = std::to_string(*image.size_bytes);
  for (const auto& [name, value] : image.properties) {
    if (value.has_value() && !imaged::IsReservedProperty(name)) metadata.emplace(name, *value);
  }
  return metadata;
}

// Of a content's chunks: holes take nothing.
Result<uint64_t> ChunkBytes(chunkstore::ChunkStore& store, const Root& root) {
  ASSIGN_OR_RETURN(const auto content, store.Open(root));
  uint64_t bytes = 0;
  RETURN_IF_ERROR(content->VisitChunks(0, UINT64_MAX, [&](uint64_t index, const auto&) {
    const uint64_t begin = index * chunkstore::kChunkBytes;
    bytes += std::min<uint64_t>(chunkstore::kChunkBytes, root.size_bytes - begin);
    return true;
  }));
  return bytes;
}

Error NotFound(std::string_view image_id) {
  return Error(Code::kNotFound, fmt::format("Image {} could not be found.", image_id));
}

Error Unacceptable(const Image& image, std::string_view why) {
  return Error(Code::kInvalidArgument, fmt::format("Image {} is unacceptable: {}", image.id, why));
}

}  // namespace

VolumeImages::VolumeImages(const VolumeImagesOptions& options, imaged::Catalog& catalog,
                           imaged::DataPath& data_path, base::Metrics& metrics)
    : options_(options),
      catalog_(catalog),
      data_path_(data_path),
      converted_(ConversionCounter(metrics, "success")),
      failed_(ConversionCounter(metrics, "failure")),
      errands_(options.at_once, base::SystemClock()) {
  convert::RemoveAbandonedDirectories();
}

VolumeImages::~VolumeImages() { Stop(); }

void VolumeImages::Stop() { errands_.Stop(); }

// --- what volumes are made of

Result<uint64_t> VolumeImages::DiskBytes(const Image& image) {
  if (IsDisk(image.disk_format.value_or(""))) return image.data->root.size_bytes;
  if (image.virtual_size_bytes.has_value()) return *image.virtual_size_bytes;
  ASSIGN_OR_RETURN(const auto content, data_path_.store().Open(image.data->root));
  ASSIGN_OR_RETURN(const auto found, imaged::InspectContent(image, *content));
  if (found.has_value()) return *found;
  return Unacceptable(image, "it does not say how large its disk is");
}

Result<blockd::ImageFacts> VolumeImages::Find(const base::auth::Caller& caller,
                                              std::string_view image_id) {
  const Result<Image> found = catalog_.Get(image_id);
  if (!found.has_value() && found.error().code() != Code::kNotFound) return found.error();
  if (!found.has_value() || !imaged::MaySee(caller, *found)) return NotFound(image_id);
  const Image& image = *found;
  if (image.status != imaged::Status::kActive || !image.data.has_value())
    return Error(Code::kInvalidArgument,
                 fmt::format("Invalid input received: Image {} is not active.", image.id));
  const std::string format = image.disk_format.value_or("");
  if (image.container_format.value_or("") != "bare")
    return Unacceptable(image, "volumes are made of images in the container_format bare");
  if (!IsDisk(format) && !convert::IsConvertible(format))
    return Unacceptable(image, fmt::format("no volume can be made of disk_format {}", format));
  if (!IsDisk(format) && !image.raw.has_value())
    RETURN_IF_ERROR(convert::CheckInstalled(options_.programs));
  ASSIGN_OR_RETURN(const uint64_t disk_bytes, DiskBytes(image));
  if (disk_bytes > options_.convert.max_disk_bytes)
    return Unacceptable(image, fmt::format("its disk of {} bytes is larger than the {} allowed",
                                           disk_bytes, options_.convert.max_disk_bytes));
  blockd::ImageFacts facts;
  facts.id = image.id;
  facts.name = image.name.value_or("");
  facts.size_bytes = disk_bytes;
  facts.min_disk_gb = static_cast<uint64_t>(image.min_disk_gb);
  facts.metadata = VolumeMetadata(image);
  return facts;
}

Result<std::string> VolumeImages::RawHolder(std::string_view image_id) {
  const Result<Image> image = catalog_.Get(image_id);
  if (!image.has_value()) {
    if (image.error().code() == Code::kNotFound) return NotFound(image_id);
    return image.error();
  }
  if (!image->data.has_value()) return NotFound(image_id);
  if (!convert::IsConvertible(image->disk_format.value_or(""))) return image->data->holder;
  if (image->raw.has_value()) return image->raw->holder;
  return errands_.Ask("the conversion of image " + image->id, image->owner,
                      [this, id = image->id](const Cancelled& cancelled) {
                        const Result<void> done = Convert(id, cancelled);
                        if (!done.has_value()) failed_.Add();
                        return done;
                      });
}

Result<void> VolumeImages::Convert(const std::string& image_id, const Cancelled& cancelled) {
  ASSIGN_OR_RETURN(const Image image, catalog_.Get(image_id));
  if (!image.data.has_value()) return NotFound(image_id);
  if (image.raw.has_value()) return {};
  ASSIGN_OR_RETURN(const uint64_t disk_bytes, DiskBytes(image));
  // Both stay until this is done, whatever becomes of the image.
  const imaged::StoredData raw = {imaged::NewRawHolder(image_id), Root()};
  const imaged::DataPath::Reading source(data_path_, image.data->holder);
  const imaged::DataPath::Reading made(data_path_, raw.holder);
  chunkstore::ChunkStore& store = data_path_.store();
  ASSIGN_OR_RETURN(auto content, store.Open(image.data->root));
  ASSIGN_OR_RETURN(std::shared_ptr<chunkstore::Ingest> ingest, store.NewIngest(raw.holder, ""));
  const int64_t started_ns = base::SystemClock().MonotonicNs();
  RETURN_IF_ERROR(convert::ToRaw(options_.convert, options_.programs,
                                 image.disk_format.value_or(""), std::move(content), disk_bytes,
                                 ingest, [&] { return cancelled() || IsGone(image_id); }));
  ASSIGN_OR_RETURN(const Root root, ingest->Finish(disk_bytes));
  ASSIGN_OR_RETURN(const uint64_t raw_bytes, ChunkBytes(store, root));
  const Result<bool> kept =
      catalog_.SetRaw(image_id, image.data->root, {raw.holder, root}, raw_bytes);
  if (!kept.has_value() || !*kept) RETURN_IF_ERROR(store.Release(raw.holder));
  if (!kept.has_value()) return kept.error();
  if (!*kept) return {};
  converted_.Add();
  LOG(kInfo, "images", "image {} was converted from {} to a disk of {} bytes in {} ms", image_id,
      *image.disk_format, disk_bytes, (base::SystemClock().MonotonicNs() - started_ns) / 1'000'000);
  return {};
}

bool VolumeImages::IsGone(const std::string& image_id) {
  const Result<Image> image = catalog_.Get(image_id);
  return !image.has_value() && image.error().code() == Code::kNotFound;
}

// --- what becomes of volumes

Result<std::string> VolumeImages::NewImage(const base::auth::Caller& caller, std::string_view name,
                                           std::string_view disk_format,
                                           std::string_view container_format,
                                           std::string_view visibility, bool is_protected) {
  RETURN_IF_ERROR(imaged::CheckMayWrite(caller));
  if ((disk_format != "raw" && disk_format != "qcow2") || container_format != "bare") {
    return Error(Code::kInvalidArgument,
                 "Invalid input received: volumes are uploaded with disk_format raw or qcow2 and "
                 "container_format bare.");
  }
  Image image;
  image.id = base::NewUuid();
  image.owner = caller.project_id;
  const base::JsonObject attributes = {{"name", name},
                                       {"disk_format", disk_format},
                                       {"container_format", container_format},
                                       {"visibility", visibility},
                                       {"protected", is_protected}};
  for (const auto& [key, value] : attributes)
    RETURN_IF_ERROR(imaged::SetAttribute(caller, key, value, &image));
  ASSIGN_OR_RETURN(image, catalog_.Create(std::move(image)));
  return image.id;
}

Result<void> VolumeImages::Fill(const blockd::ImageUpload& upload) {
  ASSIGN_OR_RETURN(const Image image, catalog_.Get(upload.image_id));
  if (image.data.has_value()) return {};
  return errands_.Ask(
      "the upload to image " + image.id, image.owner,
      [this, upload](const Cancelled& cancelled) { return TakeOver(upload, cancelled); });
}

Result<void> VolumeImages::TakeOver(const blockd::ImageUpload& upload, const Cancelled& cancelled) {
  chunkstore::ChunkStore& store = data_path_.store();
  ASSIGN_OR_RETURN(const Image image, catalog_.Get(upload.image_id));
  ASSIGN_OR_RETURN(const auto held, store.FindHolder(upload.holder));
  if (!held.root.has_value())
    return Error(Code::kNotFound, upload.holder + " holds nothing that could become an image");
  imaged::Handover handover;
  handover.image_id = upload.image_id;
  handover.reserve_bytes = held.root->size_bytes;
  if (image.disk_format == "qcow2") {
    handover.hold = [&](const std::string& holder, const std::string& attributes) -> Result<Root> {
      ASSIGN_OR_RETURN(const auto disk, store.Open(*held.root));
      ASSIGN_OR_RETURN(const auto ingest, store.NewIngest(holder, attributes));
      return convert::WriteQcow2(*disk, *ingest, cancelled);
    };
  } else {
    handover.hold = [&](const std::string& holder, const std::string& attributes) {
      return store.HoldAgain(upload.holder, holder, attributes);
    };
  }
  ASSIGN_OR_RETURN(const Image filled, imaged::HandOver(data_path_, handover, cancelled));
  LOG(kInfo, "images", "image {} was made of {}", filled.id, upload.holder);
  return {};
}

Result<void> VolumeImages::Abandon(std::string_view image_id) {
  errands_.Drop("the upload to image " + std::string(image_id));
  const auto unless_filled = [](const Image& image) -> Result<void> {
    if (!image.data.has_value()) return {};
    return Error(Code::kConflict, "the image is filled");
  };
  const Result<Image> removed = catalog_.Delete(image_id, unless_filled);
  if (removed.has_value() || removed.error().code() == Code::kConflict) return {};
  return removed.error();
}

}  // namespace controlplane
