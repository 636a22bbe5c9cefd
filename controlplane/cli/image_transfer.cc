#include "controlplane/cli/image_transfer.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/config.h"
#include "base/files.h"
#include "base/hash.h"
#include "base/http/target.h"
#include "base/uuid.h"
#include "controlplane/cli/image_chunks.h"
#include "controlplane/cli/image_requests.h"
#include "controlplane/cli/image_source.h"
#include "controlplane/cli/interrupt.h"
#include "controlplane/cli/progress.h"
#include "imaged/formats/inspector.h"

namespace controlplane::cli {
namespace {

using base::Code;
using base::Error;
using base::Json;
using base::JsonArray;
using base::JsonObject;
using base::Result;
using base::http::ClientRequest;

constexpr const char* kPageLimit = "1000";

// The images of one page and of those that follow.
Result<JsonArray> Pages(ApiClient& client, const std::string& query) {
  ASSIGN_OR_RETURN(const std::string images_url, ImagesUrl(client));
  JsonArray all;
  std::string marker;
  while (true) {
    const std::string url = fmt::format("{}?limit={}{}{}", images_url, kPageLimit, query,
                                        marker.empty() ? "" : "&marker=" + marker);
    ASSIGN_OR_RETURN(Json page, client.CallJson(Ask("GET", url)));
    const Json* images = base::Find(page, "images");
    if (images == nullptr || !images->is_array()) {
      return Error(Code::kIo, "the image service answered something that is no list of images");
    }
    for (const Json& image : images->as_array()) all.push_back(image);
    if (base::Find(page, "next") == nullptr || images->as_array().empty()) return all;
    marker = base::FindString(images->as_array().back(), "id").value_or("");
    if (!base::IsUuid(marker)) return all;
  }
}

// With its operator, since a name may begin as one does ("in:stock").
std::string NameFilter(std::string_view name) {
  return "&name=eq:" + base::http::EncodePercent(name);
}

// An active image that has this name and, by its own digest, this content.
Result<std::optional<Json>> FindSameContent(ApiClient& client, const std::string& name,
                                            const base::File& file, uint64_t size, bool quiet) {
  ASSIGN_OR_RETURN(const JsonArray named, Pages(client, "&status=active" + NameFilter(name)));
  std::map<std::string, std::string> digests;
  for (const Json& image : named) {
    const Json* image_size = base::Find(image, "size");
    const auto algorithm = base::FindString(image, "os_hash_algo");
    const auto value = base::FindString(image, "os_hash_value");
    if (!algorithm || !value || image_size == nullptr || !image_size->is_number() ||
        image_size->to_number<uint64_t>() != size) {
      continue;
    }
    if (!digests.contains(*algorithm)) {
      ASSIGN_OR_RETURN(digests[*algorithm],
                       DigestOfFile(file, size, *algorithm, "compare " + name, quiet));
    }
    if (digests[*algorithm] == *value) return std::optional<Json>(image);
  }
  return std::optional<Json>();
}

// Everything, through the plain Image API.
Result<void> UploadPlainly(ApiClient& client, const std::string& url, ImageSource& source,
                           const std::string& title, bool quiet, PushTotals* totals) {
  ProgressBar bar(title, ProgressBar::Unit::kBytes, quiet);
  uint64_t sent = 0;
  ClientRequest request = Ask("PUT", url);
  request.headers.Set("Content-Type", "application/octet-stream");
  if (source.file() != nullptr) request.body_size = source.size_bytes();
  request.body_source = [&](base::MutableByteView into) -> Result<size_t> {
    RETURN_IF_ERROR(CheckInterrupt());
    ASSIGN_OR_RETURN(const size_t length, source.Next(into));
    sent += length;
    bar.Update(sent, source.size_bytes());
    return length;
  };
  Result<void> answered;
  if (const auto response = client.Call(std::move(request)); !response.has_value()) {
    answered = response.error();
  }
  totals->bytes_sent += sent;
  totals->bytes_total = sent;
  if (answered.has_value()) bar.Finish();
  return answered;
}

Result<void> Upload(ApiClient& client, const std::string& images_url, const std::string& id,
                    ImageSource& source, const std::string& name, bool quiet, PushTotals* totals) {
  totals->bytes_total = source.size_bytes();
  if (source.file() != nullptr) {
    ASSIGN_OR_RETURN(const bool done,
                     PushByChunks(client, images_url, id, source, name, quiet, totals));
    if (done) return {};
  }
  return UploadPlainly(client, fmt::format("{}/{}/file", images_url, id), source, "push " + name,
                       quiet, totals);
}

Json WithTotals(Json image, const PushTotals& totals) {
  JsonObject& fields = image.as_object();
  fields["bytes_total"] = totals.bytes_total;
  fields["bytes_zero"] = totals.bytes_zero;
  fields["bytes_already_there"] = totals.bytes_already_there;
  fields["bytes_sent"] = totals.bytes_sent;
  return image;
}

}  // namespace

std::string GuessDiskFormat(base::ByteView head) {
  // What bears two marks is refused by the service, with the reason.
  const auto kind = imaged::formats::KindOf(head);
  return std::string(imaged::formats::KindName(kind.value_or(imaged::formats::Kind::kNone)));
}

Result<std::string> GuessDiskFormat(const std::string& path) {
  ASSIGN_OR_RETURN(const auto source, ImageSource::Open(path));
  return GuessDiskFormat(source->head());
}

Result<JsonArray> ListImages(ApiClient& client) { return Pages(client, ""); }

Result<Json> FindImage(ApiClient& client, const std::string& image) {
  ASSIGN_OR_RETURN(const std::string images_url, ImagesUrl(client));
  if (base::IsUuid(image)) {
    Result<Json> by_id = client.CallJson(Ask("GET", images_url + "/" + image));
    if (by_id.has_value() || by_id.error().code() != Code::kNotFound) return by_id;
  }
  ASSIGN_OR_RETURN(JsonArray named, Pages(client, NameFilter(image)));
  ASSIGN_OR_RETURN(const JsonArray hidden, Pages(client, NameFilter(image) + "&os_hidden=true"));
  named.insert(named.end(), hidden.begin(), hidden.end());
  if (named.empty()) {
    return Error(Code::kNotFound,
                 fmt::format("no image '{}'; `quarry image ls` shows those you can see", image));
  }
  if (named.size() > 1) {
    return Error(Code::kConflict,
                 fmt::format("{} images are named '{}': name one by its id", named.size(), image));
  }
  return named[0];
}

Result<void> DeleteImage(ApiClient& client, const std::string& id) {
  ASSIGN_OR_RETURN(const std::string images_url, ImagesUrl(client));
  RETURN_IF_ERROR(client.Call(Ask("DELETE", images_url + "/" + id)));
  return {};
}

Result<Json> PushImage(ApiClient& client, const std::string& path, const PushOptions& options) {
  ASSIGN_OR_RETURN(const auto source, ImageSource::Open(path));
  std::string name = options.name;
  if (name.empty()) name = path == "-" ? "stdin" : FileName(path);
  if (!options.again && source->file() != nullptr) {
    const uint64_t size = source->size_bytes();
    ASSIGN_OR_RETURN(std::optional<Json> same,
                     FindSameContent(client, name, *source->file(), size, options.quiet));
    if (same.has_value()) {
      return WithTotals(*std::move(same), {.bytes_total = size, .bytes_already_there = size});
    }
  }
  const std::string disk_format =
      options.disk_format.empty() ? GuessDiskFormat(source->head()) : options.disk_format;

  ASSIGN_OR_RETURN(const std::string images_url, ImagesUrl(client));
  const JsonObject create = {
      {"name", name}, {"disk_format", disk_format}, {"container_format", options.container_format}};
  ASSIGN_OR_RETURN(const Json created, client.CallJson(Ask("POST", images_url, create)));
  const std::string id = base::FindString(created, "id").value_or("");
  if (!base::IsUuid(id)) return Error(Code::kIo, "the image service made an image without an id");

  PushTotals totals;
  const Result<void> uploaded =
      Upload(client, images_url, id, *source, name, options.quiet, &totals);
  if (!uploaded.has_value()) {
    const Result<void> deleted = DeleteImage(client, id);
    return uploaded.error().Annotate(deleted.has_value()
                                         ? "upload failed, nothing is left of it"
                                         : fmt::format("upload failed, image {} is left", id));
  }
  ASSIGN_OR_RETURN(Json image, client.CallJson(Ask("GET", images_url + "/" + id)));
  return WithTotals(std::move(image), totals);
}

std::string PushSummary(const Json& pushed) {
  const auto number = [&](std::string_view key) { return base::FindUint(pushed, key).value_or(0); };
  const uint64_t data =
      number("bytes_total") - std::min(number("bytes_total"), number("bytes_zero"));
  const uint64_t there = number("bytes_already_there");
  const uint64_t sent = number("bytes_sent");
  if (number("bytes_total") == 0) return "empty";
  if (data == 0) return "nothing but zeros";
  return fmt::format("already there: {} %, {} sent", there * 100 / data,
                     sent == 0 ? "nothing" : base::FormatBytes(sent));
}

}  // namespace controlplane::cli
