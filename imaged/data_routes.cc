#include "imaged/data_routes.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "base/async/offload.h"
#include "base/http/accept.h"
#include "base/http/range.h"
#include "base/text.h"
#include "imaged/block_download.h"
#include "imaged/chunk_download.h"
#include "imaged/chunk_upload.h"
#include "imaged/download.h"
#include "imaged/errors.h"
#include "imaged/import.h"
#include "imaged/policy.h"
#include "imaged/stage.h"
#include "imaged/trace_routes.h"

namespace imaged {

using base::Code;
using base::Error;
using base::JsonArray;
using base::JsonObject;
using base::Result;
using base::http::BodyReader;
using base::http::ByteRange;
using base::http::Request;
using base::http::Response;
using base::http::Route;

namespace {

constexpr int kRangeNotSatisfiable = 416;
constexpr int64_t kDefaultTasks = 25;  // of a list without "limit"
constexpr int64_t kMaxTasks = 1000;

// Glance's older clients name what they want in Content-Range ("bytes 2-4/*"), as an answer would.
std::string RangeHeader(const Request& request) {
  std::string range(request.headers.Get("Range"));
  if (!range.empty()) return range;
  std::string_view content_range = request.headers.Get("Content-Range");
  if (!content_range.starts_with("bytes ")) return {};
  content_range.remove_prefix(6);
  return "bytes=" + std::string(content_range.substr(0, content_range.find('/')));
}

Response RangeError(const Request& request, uint64_t size) {
  Response response = ErrorPage(
      request, kRangeNotSatisfiable, "The Range requested is not available.",
      fmt::format("Invalid start position in Range header. Start position MUST be in the inclusive "
                  "range [0, {}].",
                  size == 0 ? 0 : size - 1));
  response.headers.Set("Content-Range", fmt::format("bytes */{}", size));
  return response;
}

base::async::Task<Result<Response>> GetFile(DataPath& path, std::shared_ptr<const Request> request,
                                            BodyReader&) {
  auto open = [&path, request] { return OpenImage(path, *request); };
  Result<OpenedImage> opened = co_await base::async::Offload(path.pool(), std::move(open));
  if (!opened.has_value()) co_return opened.error();
  if (opened->content == nullptr) co_return Response::Empty(204);

  const Image& image = opened->image;
  uint64_t size = image.data->root.size_bytes;
  auto range = base::http::ParseRange(RangeHeader(*request), size);
  if (!range.has_value()) co_return RangeError(*request, size);
  ByteRange part = range->value_or(ByteRange{0, size});
  // Offsets of a range count plain bytes; of nothing there is no frame.
  const bool as_frames =
      !range->has_value() && size > 0 && base::http::AcceptsCoding(request->headers, kZstdCoding);
  DownloadSource::What what{.ranges = {part},
                            .coding = as_frames ? Coding::kZstd : Coding::kIdentity};
  std::string holder = image.data->holder;
  std::shared_ptr<chunkstore::Content> content = opened->content;
  Result<std::unique_ptr<DownloadSource>> source = co_await DownloadSource::Open(
      path, SharerOf(*request->caller), std::move(holder), std::move(content), std::move(what));
  if (!source.has_value()) co_return source.error();
  if (request->method != "HEAD") {
    Result<void> primed = co_await (*source)->Prime();
    if (!primed.has_value()) co_return primed.error().Annotate("image " + image.id);
  }
  Response response = Response::Empty(range->has_value() ? 206 : 200);
  response.headers.Set("Content-Type", "application/octet-stream");
  response.headers.Set("Vary", "Accept-Encoding");
  if (as_frames) response.headers.Set("Content-Encoding", kZstdCoding);
  if (image.checksum.has_value()) response.headers.Set("Content-MD5", *image.checksum);
  if (range->has_value()) {
    response.headers.Set("Content-Range", fmt::format("bytes {}-{}/{}", part.offset,
                                                      part.offset + part.length - 1, size));
  }
  response.source = std::move(*source);
  co_return response;
}

// --- tasks

bool MaySeeTask(const Request& request, const ImportTask& task) {
  return request.caller->IsAdmin() ||
         (!task.owner.empty() && task.owner == request.caller->project_id);
}

Result<Response> ImageTasks(DataPath& path, const Request& request) {
  ASSIGN_OR_RETURN(Image image, path.catalog().Get(request.Param("image_id")));
  RETURN_IF_ERROR(CheckSee(*request.caller, image));
  ASSIGN_OR_RETURN(std::vector<ImportTask> tasks, path.tasks().OfImage(image.id));
  JsonArray views;
  for (const ImportTask& task : tasks) {
    if (!MaySeeTask(request, task)) continue;
    JsonObject view = TaskView(task, false);
    // This list alone shows records as Glance's database has them.
    view.erase("self");
    view.erase("schema");
    view["deleted"] = false;
    view["deleted_at"] = nullptr;
    if (task.expires_at_us == 0) view["expires_at"] = nullptr;
    views.push_back(std::move(view));
  }
  return Response::OfJson(200, JsonObject{{"tasks", std::move(views)}});
}

struct TaskQuery {
  int64_t limit = kDefaultTasks;
  std::string marker;
  std::string sort_key = "created_at";
  bool ascending = false;
  std::string status;
  std::string type;
};

Result<int64_t> ParseLimit(std::string_view text) {
  const std::optional<int64_t> limit = base::ParseNumber<int64_t>(text);
  if (!limit.has_value()) return Error(Code::kInvalidArgument, "limit param must be an integer");
  if (*limit < 0) return Error(Code::kInvalidArgument, "limit param must be positive");
  return std::min(*limit, kMaxTasks);
}

Result<TaskQuery> ParseTaskQuery(const Request& request) {
  TaskQuery query;
  auto text = [&](std::string_view key) { return std::string(request.Query(key).value_or("")); };
  if (request.Query("limit").has_value()) {
    ASSIGN_OR_RETURN(query.limit, ParseLimit(*request.Query("limit")));
  }
  query.marker = text("marker");
  if (request.Query("sort_key").has_value()) query.sort_key = text("sort_key");
  if (query.sort_key != "created_at" && query.sort_key != "updated_at" && query.sort_key != "id" &&
      query.sort_key != "status" && query.sort_key != "type") {
    return Error(Code::kInvalidArgument, fmt::format("Invalid sort key: {}", query.sort_key));
  }
  std::string direction = text("sort_dir");
  if (direction != "" && direction != "asc" && direction != "desc") {
    return Error(Code::kInvalidArgument, fmt::format("Invalid sort direction: {}", direction));
  }
  query.ascending = direction == "asc";
  query.status = text("status");
  query.type = text("type");
  return query;
}

bool SortsBefore(const TaskQuery& query, const ImportTask& a, const ImportTask& b) {
  auto key = [&](const ImportTask& task) {
    if (query.sort_key == "id") return task.id;
    if (query.sort_key == "status") return task.status;
    if (query.sort_key == "type") return task.type;
    return fmt::format("{:020}",
                       query.sort_key == "updated_at" ? task.updated_at_us : task.created_at_us);
  };
  std::string left = key(a) + a.id;  // equal keys have an order too: a marker needs one
  std::string right = key(b) + b.id;
  return query.ascending ? left < right : right < left;
}

Result<Response> ListTasks(DataPath& path, const Request& request) {
  ASSIGN_OR_RETURN(TaskQuery query, ParseTaskQuery(request));
  std::vector<ImportTask> tasks;
  RETURN_IF_ERROR(path.tasks().Visit([&](const ImportTask& task) {
    bool wanted = MaySeeTask(request, task) &&
                  (query.status.empty() || task.status == query.status) &&
                  (query.type.empty() || task.type == query.type);
    if (wanted) tasks.push_back(task);
    return true;
  }));
  std::sort(tasks.begin(), tasks.end(),
            [&](const ImportTask& a, const ImportTask& b) { return SortsBefore(query, a, b); });
  auto from = tasks.begin();
  if (!query.marker.empty()) {
    from = std::find_if(tasks.begin(), tasks.end(),
                        [&](const ImportTask& task) { return task.id == query.marker; });
    if (from == tasks.end()) {
      return Error(Code::kInvalidArgument, fmt::format("No task found with ID {}", query.marker));
    }
    ++from;
  }
  auto to = from + std::min<int64_t>(query.limit, tasks.end() - from);
  JsonArray views;
  for (auto task = from; task != to; ++task) views.push_back(TaskView(*task, true));
  JsonObject body{
      {"tasks", std::move(views)}, {"first", "/v2/tasks"}, {"schema", "/v2/schemas/tasks"}};
  if (to != tasks.end() && to != from) body["next"] = "/v2/tasks?marker=" + (to - 1)->id;
  return Response::OfJson(200, body);
}

Result<Response> ShowTask(DataPath& path, const Request& request) {
  const std::string& id = request.Param("task_id");
  ASSIGN_OR_RETURN(ImportTask task, path.tasks().Get(id));
  if (!MaySeeTask(request, task)) {
    return Error(Code::kNotFound, fmt::format("No task found with ID {}", id));
  }
  return Response::OfJson(200, TaskView(task, false));
}

// Glance's default policy: tasks are an administrator's, made by imports alone.
Result<Response> RefuseTask(DataPath&, const Request&) {
  return Error(Code::kPermissionDenied,
               "You are not authorized to complete add_task action: tasks are made by imports.");
}

}  // namespace

std::vector<Route> DataRoutes(DataPath& path) {
  auto blocking = [&path](std::string method, std::string pattern,
                          Result<Response> (*handler)(DataPath&, const Request&)) {
    Route route;
    route.method = std::move(method);
    route.pattern = std::move(pattern);
    route.handler = [&path, handler](const Request& request) { return handler(path, request); };
    return route;
  };
  auto streaming = [](std::string method, std::string pattern, base::http::StreamHandler stream) {
    Route route;
    route.method = std::move(method);
    route.pattern = std::move(pattern);
    route.stream = std::move(stream);
    return route;
  };
  auto put = [&path](UploadKind kind) {
    return [&path, kind](std::shared_ptr<const Request> request, BodyReader& body) {
      return PutData(path, kind, std::move(request), body);
    };
  };
  auto get = [&path](std::shared_ptr<const Request> request, BodyReader& body) {
    return GetFile(path, std::move(request), body);
  };
  std::vector<Route> routes;
  routes.push_back(streaming("GET", "/v2/images/{image_id}/file", get));
  routes.push_back(streaming("PUT", "/v2/images/{image_id}/file", put(UploadKind::kData)));
  routes.push_back(streaming("PUT", "/v2/images/{image_id}/stage", put(UploadKind::kStage)));
  routes.push_back(WantedRoute(path));
  routes.push_back(ChunkMapRoute(path));
  routes.push_back(FetchRoute(path));
  routes.push_back(BlocksRoute(path));
  for (Route& route : TraceRoutes(path)) routes.push_back(std::move(route));
  routes.push_back(blocking("POST", "/v2/images/{image_id}/import", StartImport));
  routes.push_back(blocking("GET", "/v2/images/{image_id}/tasks", ImageTasks));
  routes.push_back(blocking("GET", "/v2/tasks", ListTasks));
  routes.push_back(blocking("GET", "/v2/tasks/{task_id}", ShowTask));
  routes.push_back(blocking("POST", "/v2/tasks", RefuseTask));
  return routes;
}

std::vector<Route> DataPath::Routes() { return DataRoutes(*this); }

}  // namespace imaged
