#include "imaged/import.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/http/json_body.h"
#include "base/log.h"
#include "imaged/fetch_pace.h"
#include "imaged/formats/inspector.h"
#include "imaged/inspect.h"
#include "imaged/policy.h"

namespace imaged {

using base::Code;
using base::Error;
using base::Json;
using base::JsonArray;
using base::JsonObject;
using base::Result;
using base::http::Request;
using base::http::Response;
using chunkstore::jobs::Job;
using chunkstore::jobs::JobControl;
using chunkstore::jobs::Outcome;

namespace {

constexpr int64_t kAdmissionPollMs = 50;
constexpr std::string_view kDirect = "glance-direct";
constexpr std::string_view kWeb = "web-download";
constexpr std::string_view kCopy = "copy-image";
constexpr std::string_view kFailedImport = "os_glance_failed_import";
constexpr std::string_view kImportingTo = "os_glance_importing_to_stores";

Error BadRequest(std::string message) { return Error(Code::kInvalidArgument, std::move(message)); }

// What the client asks for, checked for its form alone.
struct ImportRequest {
  std::string method;
  std::string uri;
  std::vector<std::string> stores;  // named ones
  bool all_stores = false;
  Json body;
};

Result<bool> BoolMember(const Json& body, std::string_view key, bool fallback) {
  const Json* value = base::Find(body, key);
  if (value == nullptr) return fallback;
  if (value->is_bool()) return value->as_bool();
  return BadRequest(fmt::format("'{}' must be boolean value only", key));
}

Result<ImportRequest> ParseRequest(const DataPath& path, const Request& request) {
  ImportRequest parsed;
  ASSIGN_OR_RETURN(parsed.body, base::ParseJson(request.body));
  RETURN_IF_ERROR(base::http::CheckNoNul(parsed.body));
  const Json* method = base::Find(parsed.body, "method");
  if (method == nullptr) return BadRequest("Import request requires a 'method' field.");
  std::optional<std::string> name = base::FindString(*method, "name");
  if (!name.has_value()) return BadRequest("Import request requires a 'name' field.");
  parsed.method = *name;
  const auto& known = path.options().import_methods;
  if (std::find(known.begin(), known.end(), parsed.method) == known.end()) {
    return BadRequest(fmt::format("Unknown import method name '{}'.", parsed.method));
  }
  parsed.uri = base::FindString(*method, "uri").value_or("");
  RETURN_IF_ERROR(BoolMember(parsed.body, "all_stores_must_succeed", true));
  ASSIGN_OR_RETURN(parsed.all_stores, BoolMember(parsed.body, "all_stores", false));
  if (const Json* stores = base::Find(parsed.body, "stores")) {
    if (!stores->is_array()) return BadRequest("'stores' must be a list of store ids");
    for (const Json& store : stores->as_array()) {
      if (!store.is_string()) return BadRequest("'stores' must be a list of store ids");
      parsed.stores.emplace_back(base::View(store.as_string()));
    }
  }
  if (parsed.all_stores && !parsed.stores.empty()) {
    return BadRequest(
        "All_stores parameter can't be used with x-image-meta-store header or "
        "stores parameter");
  }
  std::string_view header = request.headers.Get("x-image-meta-store");
  if (!header.empty() && parsed.stores.empty()) parsed.stores.emplace_back(header);
  return parsed;
}

Result<void> CheckStores(const DataPath& path, const ImportRequest& wanted) {
  for (const std::string& store : wanted.stores) {
    if (store != path.options().store_id) {
      return Error(Code::kConflict, fmt::format("Store for identifier {} not found", store));
    }
  }
  return {};
}

// In the order in which Glance looks at things, so that the same fault gives the same sentence.
Result<void> CheckState(const ImportRequest& wanted, const Image& image) {
  auto conflict = [](std::string message) { return Error(Code::kConflict, std::move(message)); };
  if (image.status == Status::kActive && wanted.method != kCopy) {
    return conflict("Image with status active cannot be target for import");
  }
  if (image.status != Status::kActive && wanted.method == kCopy) {
    return conflict("Only images with status active can be targeted for copying");
  }
  if (image.status != Status::kQueued && wanted.method == kWeb) {
    return conflict("Image needs to be in 'queued' state to use 'web-download' method");
  }
  bool staged = image.status == Status::kUploading && image.staged.has_value();
  if (!staged && wanted.method == kDirect) {
    return conflict("Image needs to be staged before 'glance-direct' method can be used");
  }
  if (!image.container_format.has_value()) {
    return conflict("'container_format' needs to be set before import");
  }
  if (!image.disk_format.has_value()) {
    return conflict("'disk_format' needs to be set before import");
  }
  return {};
}

Result<void> CheckImport(const ImportRequest& wanted, const Caller& caller, const Image& image) {
  RETURN_IF_ERROR(CheckSee(caller, image));
  RETURN_IF_ERROR(CheckModify(caller, image, "modify_image"));
  return CheckState(wanted, image);
}

// The one store has the image already. Clients wait until nothing is left of the list of stores.
Result<Response> CopyImage(DataPath& path, const ImportRequest& wanted, const Image& image) {
  if (!wanted.all_stores) {
    return BadRequest(
        fmt::format("Image is already present at store '{}'", path.options().store_id));
  }
  auto done = [](Image& changed) -> Result<void> {
    changed.properties[std::string(kImportingTo)] = "";
    changed.properties[std::string(kFailedImport)] = "";
    return {};
  };
  RETURN_IF_ERROR(path.catalog().Update(image.id, done));
  LOG(kInfo, "imaged", "image {} is in all stores already: nothing to copy", image.id);
  return Response::Empty(202);
}

Result<void> WriteJob(DataPath& path, const Request& request, const ImportRequest& wanted,
                      const Image& image, const std::string& holder) {
  ImportTask task;
  task.owner = request.caller->project_id;
  task.user_id = request.caller->user_id;
  task.image_id = image.id;
  task.request_id = request.request_id;
  task.input = JsonObject{{"image_id", image.id},
                          {"import_req", wanted.body},
                          {"backend", JsonArray{path.options().store_id}}};
  ASSIGN_OR_RETURN(task, path.tasks().Create(std::move(task)));
  ImportPayload payload{task.id, image.id, holder, wanted.method, wanted.uri, task.owner};
  RETURN_IF_ERROR(path.journal().Add(kImportJob, EncodeImport(payload)));
  path.WakeImports();
  return {};
}

// --- what the jobs do

struct Imported {
  std::string data_holder;
  chunkstore::Root root;
  std::optional<uint64_t> virtual_bytes;
  Digests digests;
};

Result<Imported> TakeStaged(DataPath& path, const Image& image,
                            const std::function<bool()>& cancelled) {
  if (!image.staged.has_value()) return Error(Code::kConflict, "nothing is staged for the image");
  Imported imported;
  imported.data_holder = image.staged->holder;
  imported.root = image.staged->root;
  ASSIGN_OR_RETURN(std::shared_ptr<chunkstore::Content> content, path.store().Open(imported.root));
  ASSIGN_OR_RETURN(imported.virtual_bytes, InspectContent(image, *content));
  ASSIGN_OR_RETURN(imported.digests, path.CompleteDigests(imported.root, {}, cancelled));
  return imported;
}

// Bytes in order, in pieces of any size, into an ingest: one chunk at a time on this thread.
class WebIngest {
 public:
  WebIngest(DataPath& path, const Image& image, std::string project,
            std::unique_ptr<chunkstore::Ingest> ingest,
            std::function<Result<void>(uint64_t)> reserve)
      : path_(path),
        project_(std::move(project)),
        ingest_(std::move(ingest)),
        reserve_(std::move(reserve)),
        inspector_(image.disk_format.value_or(""), image.container_format.value_or("")) {}

  // Waits for memory as an upload does.
  Result<void> Open(const std::function<bool()>& cancelled) {
    Refusal why = Refusal::kLimit;
    auto admit = [&] { return BufferLane::TryAdmit(path_.upload_buffers(), project_, &why); };
    std::shared_ptr<BufferLane> lane = admit();
    for (int64_t waited_ms = 0; lane == nullptr; waited_ms += kAdmissionPollMs) {
      if (cancelled()) return Error(Code::kCancelled, "the import was called off");
      if (waited_ms >= path_.options().admission_ms) {
        return BufferLane::Refused(why);
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(kAdmissionPollMs));
      lane = admit();
    }
    chunk_ = lane->TryTake();
    for (const std::string& algorithm : path_.NeededDigests()) {
      ASSIGN_OR_RETURN(auto digester, base::Digester::Create(algorithm));
      digesters_.emplace_back(algorithm, std::move(digester));
    }
    return {};
  }

  Result<void> Write(base::ByteView bytes) {
    RETURN_IF_ERROR(ingest_->Renew());  // a slow server may take long for a chunk
    while (!bytes.empty()) {
      size_t part = std::min(bytes.size(), chunk_->buffer.size() - filled_);
      std::copy_n(bytes.data(), part, chunk_->buffer.data() + filled_);
      filled_ += part;
      bytes = bytes.subspan(part);
      if (filled_ == chunk_->buffer.size()) RETURN_IF_ERROR(Flush());
    }
    return {};
  }

  Result<Imported> Close() {
    if (filled_ > 0 || index_ == 0) RETURN_IF_ERROR(Flush());
    Imported imported;
    ASSIGN_OR_RETURN(imported.virtual_bytes, inspector_.Finish(total_, tail_.view()));
    ASSIGN_OR_RETURN(imported.root, ingest_->Finish(total_));
    for (auto& [algorithm, digester] : digesters_) {
      imported.digests[algorithm] = digester->FinishHex();
    }
    return imported;
  }

 private:
  Result<void> Flush() {
    base::ByteView bytes = chunk_->buffer.view().subspan(0, filled_);
    total_ += filled_;
    if (total_ > path_.options().max_image_bytes) {
      return Error(Code::kTooLarge, fmt::format("the image is larger than the {} bytes allowed",
                                                path_.options().max_image_bytes));
    }
    if (index_ == 0) RETURN_IF_ERROR(inspector_.Head(bytes));
    tail_.Feed(bytes);
    RETURN_IF_ERROR(reserve_(total_));
    if (filled_ > 0) RETURN_IF_ERROR(ingest_->Put(index_, bytes));
    for (auto& [algorithm, digester] : digesters_) digester->Update(bytes);
    ++index_;
    filled_ = 0;
    return {};
  }

  DataPath& path_;
  const std::string project_;
  const std::unique_ptr<chunkstore::Ingest> ingest_;
  const std::function<Result<void>(uint64_t)> reserve_;
  formats::Inspector inspector_;
  formats::Tail tail_;
  std::vector<std::pair<std::string, std::unique_ptr<base::Digester>>> digesters_;
  std::shared_ptr<ChunkBuffer> chunk_;
  size_t filled_ = 0;
  uint64_t index_ = 0;
  uint64_t total_ = 0;
};

// Each attempt has a holder of its own: what an earlier one left is found by the collector or by
// the search for orphans.
Result<Imported> Download(DataPath& path, const ImportPayload& payload, const Image& image,
                          const std::function<bool()>& cancelled) {
  std::string holder = NewHolder(image.id);
  std::string attributes = EncodeImage(image);
  if (attributes.size() > chunkstore::kMaxAttributesBytes) attributes.clear();
  ASSIGN_OR_RETURN(auto ingest, path.store().NewIngest(holder, attributes));
  auto reserve = [&](uint64_t bytes) {
    return path.catalog().RenewUpload(image.id, payload.holder, path.options().lease_ms, bytes);
  };
  WebIngest web(path, image, payload.project, std::move(ingest), reserve);
  RETURN_IF_ERROR(web.Open(cancelled));
  const base::Clock& clock = path.clock();
  FetchPace pace(path.options().web.stall_timeout_ms, clock.MonotonicNs());
  RETURN_IF_ERROR(FetchUri(path.options().web, path.resolver(), payload.uri,
                           [&](base::ByteView bytes) -> Result<void> {
                             if (cancelled()) {
                               return Error(Code::kCancelled, "the import was called off");
                             }
                             RETURN_IF_ERROR(pace.Came(bytes.size(), clock.MonotonicNs()));
                             RETURN_IF_ERROR(web.Write(bytes));
                             pace.Waiting(clock.MonotonicNs());
                             return {};
                           }));
  ASSIGN_OR_RETURN(Imported imported, web.Close());
  imported.data_holder = holder;
  return imported;
}

// The import is in vain: the image is queued again, and says so.
void FailImport(DataPath& path, const ImportPayload& payload, const std::string& message) {
  path.CallOff(payload.image_id, payload.holder, [&](Image& image) -> Result<void> {
    image.properties[std::string(kFailedImport)] = path.options().store_id;
    return {};
  });
  Result<ImportTask> task = path.tasks().SetStatus(payload.task_id, "failure", message);
  if (!task.has_value()) {
    LOG(kError, "imaged", "task {} could not be updated: {}", payload.task_id,
        task.error().ToString());
  }
  LOG(kInfo, "imaged", "import of image {} failed: {}", payload.image_id, message);
}

// A job that is taken again after a crash: what it was to do may be done.
bool IsImported(const Image& image) {
  return (image.status == Status::kActive || image.status == Status::kDeactivated) &&
         !image.upload.has_value();
}

// After an import that did not end well. Another process, which took the job over, may have been
// faster; or it did end, and only the answer was lost.
Result<bool> IsImportedAllTheSame(DataPath& path, const ImportPayload& payload) {
  const Result<Image> now = path.catalog().Get(payload.image_id);
  if (now.has_value()) return IsImported(*now);
  if (now.error().code() == Code::kNotFound) return false;
  return now.error();
}

// Bytes that were fetched, and that nobody will name: what was refused is not tried again. After
// any other error an image may name them; then the search for orphans decides.
Result<void> LetGoIfRefused(DataPath& path, const Imported& imported, const Error& error) {
  const bool refused = error.code() == Code::kNotFound || error.code() == Code::kQuotaExceeded;
  return refused ? path.store().Release(imported.data_holder) : Result<void>();
}

}  // namespace

std::string EncodeImport(const ImportPayload& payload) {
  return base::ToText(JsonObject{{"task", payload.task_id},
                                 {"image", payload.image_id},
                                 {"holder", payload.holder},
                                 {"method", payload.method},
                                 {"uri", payload.uri},
                                 {"project", payload.project}});
}

Result<ImportPayload> DecodeImport(std::string_view text) {
  ASSIGN_OR_RETURN(Json json, base::ParseJson(text));
  auto member = [&](std::string_view key) { return base::FindString(json, key).value_or(""); };
  return ImportPayload{member("task"),   member("image"), member("holder"),
                       member("method"), member("uri"),   member("project")};
}

Result<Response> StartImport(DataPath& path, const Request& request) {
  ASSIGN_OR_RETURN(ImportRequest wanted, ParseRequest(path, request));
  ASSIGN_OR_RETURN(Image image, path.catalog().Get(request.Param("image_id")));
  RETURN_IF_ERROR(CheckImport(wanted, *request.caller, image));
  RETURN_IF_ERROR(CheckStores(path, wanted));
  if (wanted.method == kCopy) return CopyImage(path, wanted, image);
  if (wanted.method == kWeb) RETURN_IF_ERROR(CheckUri(path.options().web, wanted.uri));
  std::string holder = NewHolder(image.id);
  auto check = [&](const Image& now) { return CheckImport(wanted, *request.caller, now); };
  ASSIGN_OR_RETURN(image, path.catalog().BeginUpload(image.id, UploadKind::kImport, holder,
                                                     path.options().lease_ms, 0, check));
  if (image.properties.contains(kFailedImport)) {
    RETURN_IF_ERROR(path.catalog().Update(image.id, [](Image& changed) -> Result<void> {
      changed.properties.erase(std::string(kFailedImport));
      return {};
    }));
  }
  Result<void> written = WriteJob(path, request, wanted, image, holder);
  if (!written.has_value()) {
    path.CallOff(image.id, holder);
    return written.error();
  }
  return Response::Empty(202);
}

Result<Outcome> RunImport(DataPath& path, const Job& job, const JobControl& control) {
  ASSIGN_OR_RETURN(ImportPayload payload, DecodeImport(job.payload));
  Result<Image> image = path.catalog().Get(payload.image_id);
  if (!image.has_value() && image.error().code() != Code::kNotFound) return image.error();
  if (image.has_value() && IsImported(*image)) {
    RETURN_IF_ERROR(path.tasks().SetStatus(payload.task_id, "success", ""));
    return Outcome{};
  }
  bool ours =
      image.has_value() && image->upload.has_value() && image->upload->holder == payload.holder;
  if (!ours) {
    FailImport(path, payload, "the image was deleted, or its import called off");
    return Outcome{};
  }
  ASSIGN_OR_RETURN(const ImportTask task,
                   path.tasks().SetStatus(payload.task_id, "processing", ""));
  // What is told to the log alone is found by the request that the client knows.
  base::ScopedLogContext context(task.request_id);
  auto called_off = std::make_shared<std::atomic<bool>>(false);
  DataPath::Active active(path, payload.image_id, payload.holder,
                          [called_off] { called_off->store(true); });
  auto cancelled = [&] { return control.cancelled() || called_off->load(); };
  Result<Imported> imported = payload.method == kDirect
                                  ? TakeStaged(path, *image, cancelled)
                                  : Download(path, payload, *image, cancelled);
  Result<Image> done = Error(Code::kIo, "");
  if (imported.has_value()) {
    done = path.Activate(payload.image_id, payload.holder, imported->data_holder, imported->root,
                         imported->virtual_bytes, imported->digests);
    if (!done.has_value() && payload.method != kDirect)
      RETURN_IF_ERROR(LetGoIfRefused(path, *imported, done.error()));
  } else {
    done = imported.error();
  }
  bool succeeded = done.has_value();
  if (!succeeded) {
    ASSIGN_OR_RETURN(succeeded, IsImportedAllTheSame(path, payload));
  }
  if (succeeded) {
    LOG(kInfo, "imaged", "image {} was imported by {}", payload.image_id, payload.method);
    RETURN_IF_ERROR(path.tasks().SetStatus(payload.task_id, "success", ""));
    return Outcome{};
  }
  // A stop: whoever starts next goes on.
  if (control.cancelled()) return done.error();
  FailImport(path, payload, done.error().message());
  return Outcome{};
}

}  // namespace imaged
