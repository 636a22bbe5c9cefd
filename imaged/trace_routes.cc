#include "imaged/trace_routes.h"

#include <string>
#include <utility>

#include <fmt/format.h>

#include "chunkstore/map.h"
#include "imaged/block_download.h"
#include "imaged/block_wire.h"
#include "imaged/errors.h"
#include "imaged/policy.h"

namespace imaged {

using base::Code;
using base::Error;
using base::Result;
using base::http::Request;
using base::http::Response;
using base::http::Route;

namespace {

Result<void> CheckMayTrace(const Caller& caller, const Image& image) {
  RETURN_IF_ERROR(CheckDownload(caller, image));
  if (IsService(caller)) return {};
  return CheckModify(caller, image, "modify_image");
}

Error NoTrace(const Image& image) {
  return Error(Code::kNotFound, fmt::format("Image {} has no boot trace", image.id));
}

uint64_t ChunksOf(const Image& image) {
  return chunkstore::ChunkCount(image.data->root.size_bytes);
}

Result<Response> PutTrace(DataPath& path, const Request& request) {
  const Caller& caller = *request.caller;
  ASSIGN_OR_RETURN(const Image image, path.catalog().Get(request.Param("image_id")));
  RETURN_IF_ERROR(CheckMayTrace(caller, image));
  if (const auto status = RefusedType(request, kTraceType, {})) {
    return ErrorPage(request, *status, RefusedTypeSentence(request, *status, kTraceType));
  }
  if (!image.data.has_value()) {
    return Error(Code::kConflict,
                 fmt::format("Image {} has no data that a boot could have read", image.id));
  }
  ASSIGN_OR_RETURN(const BootTrace trace, DecodeTrace(request.body, ChunksOf(image)));
  if (trace.data != path.block_names().OfData(image.data->root)) {
    return Error(
        Code::kConflict,
        fmt::format("The boot trace was recorded of other data than image {} has", image.id));
  }
  RETURN_IF_ERROR(path.catalog().PutTrace(
      image.id, request.body, [&](const Image& now) { return CheckMayTrace(caller, now); }));
  return Response::Empty(204);
}

Result<Response> GetTrace(DataPath& path, const Request& request) {
  ASSIGN_OR_RETURN(const Image image, path.catalog().Get(request.Param("image_id")));
  RETURN_IF_ERROR(CheckDownload(*request.caller, image));
  ASSIGN_OR_RETURN(std::optional<std::string> kept, path.catalog().GetTrace(image.id));
  if (!kept.has_value() || !image.data.has_value()) return NoTrace(image);
  const Result<BootTrace> trace = DecodeTrace(*kept, ChunksOf(image));
  // One of other data would lead a host astray.
  if (!trace.has_value() || trace->data != path.block_names().OfData(image.data->root)) {
    return NoTrace(image);
  }
  if (const auto status = RefusedType(request, {}, kTraceType)) {
    return ErrorPage(request, *status, RefusedTypeSentence(request, *status, kTraceType));
  }
  return Response::Text(200, *std::move(kept), kTraceType);
}

Result<Response> DropTrace(DataPath& path, const Request& request) {
  RETURN_IF_ERROR(path.catalog().PutTrace(
      request.Param("image_id"), std::nullopt,
      [&](const Image& now) { return CheckMayTrace(*request.caller, now); }));
  return Response::Empty(204);
}

}  // namespace

std::vector<Route> TraceRoutes(DataPath& path) {
  const auto route = [&path](std::string method,
                             Result<Response> (*handler)(DataPath&, const Request&)) {
    Route made;
    made.method = std::move(method);
    made.pattern = "/v2/quarry/images/{image_id}/trace";
    made.max_body_bytes = kMaxTraceBytes;
    made.handler = [&path, handler](const Request& request) { return handler(path, request); };
    return made;
  };
  return {route("PUT", PutTrace), route("GET", GetTrace), route("DELETE", DropTrace)};
}

}  // namespace imaged
