#include "imaged/stage.h"

#include <optional>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "base/async/offload.h"
#include "base/log.h"
#include "base/text.h"
#include "imaged/chunk_upload.h"
#include "imaged/errors.h"
#include "imaged/policy.h"
#include "imaged/upload.h"

namespace imaged {

using base::Code;
using base::Error;
using base::Result;
using base::async::Task;
using base::http::BodyReader;
using base::http::Request;
using base::http::Response;

namespace {

constexpr int kUnsupportedMediaType = 415;
constexpr int kGone = 410;
constexpr std::string_view kOctetStream = "application/octet-stream";

bool IsOctetStream(const Request& request) {
  std::string_view type = request.headers.Get("Content-Type");
  type = type.substr(0, type.find(';'));
  while (!type.empty() && type.back() == ' ') type.remove_suffix(1);
  if (type.size() != kOctetStream.size()) return false;
  for (size_t i = 0; i < type.size(); ++i) {
    if ((type[i] | 0x20) != (kOctetStream[i] | 0x20)) return false;
  }
  return true;
}

// x-openstack-image-size: what a client that sends chunks says in advance.
Result<std::optional<uint64_t>> ExpectedBytes(const Request& request, const BodyReader& body) {
  std::optional<uint64_t> announced = body.content_length();
  std::string_view text = request.headers.Get("x-openstack-image-size");
  if (text.empty()) return announced;
  const std::optional<uint64_t> size = base::ParseNumber<uint64_t>(text);
  if (!size.has_value()) {
    return Error(Code::kInvalidArgument,
                 fmt::format("x-openstack-image-size must be a number of bytes, not \"{}\"", text));
  }
  if (announced.has_value() && *announced != *size) {
    return Error(
        Code::kInvalidArgument,
        fmt::format("x-openstack-image-size says {} bytes, Content-Length {}", *size, *announced));
  }
  return size;
}

Result<void> CheckFormatsSet(const Image& image) {
  std::string missing;
  if (!image.disk_format.has_value()) missing = "disk_format";
  if (!image.container_format.has_value()) {
    missing += missing.empty() ? "container_format" : ", container_format";
  }
  if (missing.empty()) return {};
  return Error(Code::kInvalidArgument,
               fmt::format("Properties {} must be set prior to saving data.", missing));
}

struct Begun {
  Image image;
  std::unique_ptr<chunkstore::Ingest> ingest;
};

// The record is claimed first, so that there is one ingest for it at most.
Result<Begun> Begin(DataPath& path, UploadKind kind, const std::string& holder,
                    const Request& request, uint64_t reserve_bytes, std::string_view keep_for) {
  auto check = [&](const Image& image) -> Result<void> {
    RETURN_IF_ERROR(CheckModify(*request.caller, image,
                                kind == UploadKind::kData ? "upload_image" : "modify_image"));
    // Only where the status allows an upload at all: an active image is a conflict first.
    if (kind == UploadKind::kData && image.status == Status::kQueued) return CheckFormatsSet(image);
    return {};
  };
  Begun begun;
  ASSIGN_OR_RETURN(begun.image, path.catalog().BeginUpload(request.Param("image_id"), kind, holder,
                                                           path.options().lease_ms, reserve_bytes,
                                                           check, keep_for));
  std::string attributes = EncodeImage(begun.image);
  if (attributes.size() > chunkstore::kMaxAttributesBytes) attributes.clear();
  Result<std::unique_ptr<chunkstore::Ingest>> ingest = path.store().NewIngest(holder, attributes);
  if (!ingest.has_value()) {
    path.CallOff(begun.image.id, holder);
    return ingest.error();
  }
  begun.ingest = std::move(*ingest);
  return begun;
}

Result<Image> Complete(DataPath& path, UploadKind kind, const std::string& image_id,
                       const std::string& holder, const Received& received) {
  if (kind == UploadKind::kData) {
    return path.Activate(image_id, holder, holder, received.root, received.virtual_bytes,
                         received.digests);
  }
  RETURN_IF_ERROR(path.digests().Add(received.root, received.digests));
  return path.catalog().FinishStage(image_id, holder, received.root);
}

Result<Response> FailureResponse(const Request& request, const ReceiveFailure& failure) {
  if (failure.bad_format) {
    return ErrorPage(request, kUnsupportedMediaType, failure.error.message());
  }
  if (failure.error.code() == Code::kNotFound) {
    return ErrorPage(request, kGone,
                     fmt::format("Image {} could not be found after upload. The image may have "
                                 "been deleted during the upload, cleaning up the chunks uploaded.",
                                 request.Param("image_id")));
  }
  return failure.error;
}

void LogUpload(const Image& image, const ReceiveOutcome& outcome) {
  LOG(kInfo, "imaged", "image {} took {} bytes, {} of them known; status {}", image.id,
      outcome.bytes, outcome.known_bytes, StatusName(image.status));
}

}  // namespace

Task<Result<Response>> PutData(DataPath& path, UploadKind kind,
                               std::shared_ptr<const Request> request, BodyReader& sent) {
  const bool as_chunks = kind == UploadKind::kData && IsChunkStream(*request);
  if (!as_chunks && !IsOctetStream(*request)) {
    co_return ErrorPage(*request, kUnsupportedMediaType,
                        fmt::format("The request media type {} is not supported by this server.",
                                    request->headers.Get("Content-Type")));
  }
  std::string_view store = request->headers.Get("x-image-meta-store");
  if (!store.empty() && store != path.options().store_id) {
    co_return Error(Code::kInvalidArgument,
                    fmt::format("Store for identifier {} not found", store));
  }
  std::unique_ptr<BodyReader> expanded;
  if (as_chunks) {
    auto opened = co_await ExpandChunkStream(path, request, sent);
    if (!opened.has_value()) co_return opened.error();
    expanded = std::move(*opened);
  }
  BodyReader& body = expanded != nullptr ? *expanded : sent;
  CO_ASSIGN_OR_RETURN(std::optional<uint64_t> expected, ExpectedBytes(*request, body));
  if (expected.value_or(0) > path.options().max_image_bytes) {
    co_return Error(Code::kTooLarge, fmt::format("the image is larger than the {} bytes allowed",
                                                 path.options().max_image_bytes));
  }
  const std::string& image_id = request->Param("image_id");
  std::string holder = NewHolder(image_id);
  const std::string keep_for = as_chunks ? request->caller->project_id : std::string();
  auto begin = [&path, kind, holder, request, keep_for, reserve = expected.value_or(0)] {
    return Begin(path, kind, holder, *request, reserve, keep_for);
  };
  Result<Begun> begun = co_await base::async::Offload(path.pool(), std::move(begin));
  if (!begun.has_value()) co_return begun.error();

  ReceiveOptions options;
  options.image_id = begun->image.id;
  options.holder = holder;
  options.sharer = SharerOf(*request->caller);
  options.expected_bytes = expected;
  options.reserved_bytes = expected.value_or(0);
  options.keep_for = keep_for;
  if (kind == UploadKind::kData) {
    options.disk_format = begun->image.disk_format.value_or("");
    options.container_format = begun->image.container_format.value_or("");
  }
  std::unique_ptr<chunkstore::Ingest> ingest = std::move(begun->ingest);
  ReceiveOutcome outcome = co_await ReceiveBody(path, body, std::move(ingest), options);

  auto shared_outcome = std::make_shared<ReceiveOutcome>(std::move(outcome));
  auto complete = [&path, kind, holder, request, shared_outcome,
                   id = begun->image.id]() -> Result<Response> {
    base::ScopedLogContext context(request->request_id);
    if (shared_outcome->received.has_value()) {
      Result<Image> image = Complete(path, kind, id, holder, *shared_outcome->received);
      if (image.has_value()) {
        path.CountUpload(shared_outcome->bytes, shared_outcome->known_bytes, true);
        LogUpload(*image, *shared_outcome);
        return Response::Empty(204);
      }
      shared_outcome->failure = ReceiveFailure{image.error(), false};
    }
    path.CallOff(id, holder);
    path.CountUpload(shared_outcome->bytes, shared_outcome->known_bytes, false);
    LOG(kInfo, "imaged", "upload of image {} failed after {} bytes: {}", id, shared_outcome->bytes,
        shared_outcome->failure->error.ToString());
    return FailureResponse(*request, *shared_outcome->failure);
  };
  Result<Response> response = co_await base::async::Offload(path.data_pool(), std::move(complete));
  co_return response;
}

}  // namespace imaged
