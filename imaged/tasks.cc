#include "imaged/tasks.h"

#include <utility>

#include <fmt/format.h>

#include "base/coding.h"
#include "base/uuid.h"

namespace imaged {

using base::Code;
using base::Error;
using base::Json;
using base::JsonObject;
using base::Result;

namespace {

constexpr std::string_view kPartition = "tasks";
constexpr std::string_view kRecordPrefix = "t/";
constexpr size_t kScanLimit = 1'000'000;

std::string RecordKey(int64_t created_at_us, std::string_view id) {
  std::string key(kRecordPrefix);
  base::PutOrdered64(&key, static_cast<uint64_t>(created_at_us));
  key += id;
  return key;
}
std::string IdKey(std::string_view id) { return "i/" + std::string(id); }

std::string Encode(const ImportTask& task) {
  JsonObject record{{"v", 1},
                    {"id", task.id},
                    {"type", task.type},
                    {"status", task.status},
                    {"owner", task.owner},
                    {"user_id", task.user_id},
                    {"image_id", task.image_id},
                    {"request_id", task.request_id},
                    {"input", task.input},
                    {"result_image_id", task.result_image_id},
                    {"message", task.message},
                    {"created_at_us", task.created_at_us},
                    {"updated_at_us", task.updated_at_us},
                    {"expires_at_us", task.expires_at_us}};
  return base::ToText(record);
}

int64_t Number(const Json& record, std::string_view key) {
  const Json* value = base::Find(record, key);
  return value != nullptr && value->is_int64() ? value->as_int64() : 0;
}

Result<ImportTask> Decode(std::string_view bytes) {
  ASSIGN_OR_RETURN(Json record, base::ParseJson(bytes));
  if (Number(record, "v") != 1) return Error(Code::kCorruption, "a task of an unknown version");
  auto text = [&](std::string_view key) { return base::FindString(record, key).value_or(""); };
  ImportTask task;
  task.id = text("id");
  task.type = text("type");
  task.status = text("status");
  task.owner = text("owner");
  task.user_id = text("user_id");
  task.image_id = text("image_id");
  task.request_id = text("request_id");
  if (const Json* input = base::Find(record, "input")) task.input = *input;
  task.result_image_id = text("result_image_id");
  task.message = text("message");
  task.created_at_us = Number(record, "created_at_us");
  task.updated_at_us = Number(record, "updated_at_us");
  task.expires_at_us = Number(record, "expires_at_us");
  return task;
}

constexpr int kMaxAttempts = 200;

}  // namespace

Result<ImportTask> TaskStore::Create(ImportTask task) {
  task.id = base::NewUuid();
  task.status = "pending";
  task.created_at_us = clock_.NowUs();
  task.updated_at_us = task.created_at_us;
  std::string key = RecordKey(task.created_at_us, task.id);
  chunkstore::MetaBatch batch;
  batch.Put(IdKey(task.id), key).Put(key, Encode(task));
  RETURN_IF_ERROR(chunkstore::CommitDurably(meta_, kPartition, batch));
  return task;
}

Result<ImportTask> TaskStore::Get(std::string_view id) {
  ASSIGN_OR_RETURN(Stored stored, Load(id));
  return std::move(stored.task);
}

Result<TaskStore::Stored> TaskStore::Load(std::string_view id) {
  Error missing(Code::kNotFound, fmt::format("No task found with ID {}", id));
  if (!base::IsUuid(id)) return missing;
  Result<std::string> key = meta_.Get(kPartition, IdKey(id));
  if (!key.has_value()) return key.error().code() == Code::kNotFound ? missing : key.error();
  ASSIGN_OR_RETURN(std::string bytes, meta_.Get(kPartition, *key));
  ASSIGN_OR_RETURN(ImportTask task, Decode(bytes));
  return Stored{std::move(task), *std::move(key), std::move(bytes)};
}

Result<ImportTask> TaskStore::SetStatus(std::string_view id, std::string_view status,
                                        std::string_view message) {
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    ASSIGN_OR_RETURN(Stored stored, Load(id));
    ImportTask& task = stored.task;
    if (task.ended()) return std::move(task);
    chunkstore::MetaBatch batch;
    batch.ExpectValue(stored.key, std::move(stored.bytes));
    task.status = status;
    task.message = message;
    task.updated_at_us = clock_.NowUs();
    if (task.ended()) task.expires_at_us = task.updated_at_us + kTaskKeptUs;
    if (status == "success") task.result_image_id = task.image_id;
    batch.Put(stored.key, Encode(task));
    const Result<void> done = chunkstore::CommitDurably(meta_, kPartition, batch);
    if (done.has_value()) return std::move(task);
    if (done.error().code() != Code::kConflict) return done.error();
  }
  return Error(Code::kUnavailable, "too many changes to this task at once; try again");
}

Result<void> TaskStore::Visit(const std::function<bool(const ImportTask&)>& visit) {
  Result<void> bad;
  RETURN_IF_ERROR(meta_.ScanReverse(kPartition, kRecordPrefix, chunkstore::PrefixEnd(kRecordPrefix),
                                    kScanLimit, [&](std::string_view, std::string_view value) {
                                      Result<ImportTask> task = Decode(value);
                                      if (task.has_value()) return visit(*task);
                                      bad = task.error();
                                      return false;
                                    }));
  return bad;
}

Result<std::vector<ImportTask>> TaskStore::OfImage(std::string_view image_id) {
  std::vector<ImportTask> tasks;
  RETURN_IF_ERROR(Visit([&](const ImportTask& task) {
    if (task.image_id == image_id) tasks.push_back(task);
    return true;
  }));
  return tasks;
}

Result<void> TaskStore::Expire() {
  int64_t now = clock_.NowUs();
  std::vector<ImportTask> over;
  RETURN_IF_ERROR(Visit([&](const ImportTask& task) {
    if (task.expires_at_us != 0 && task.expires_at_us < now) over.push_back(task);
    return true;
  }));
  for (const ImportTask& task : over) {
    chunkstore::MetaBatch batch;
    batch.Delete(IdKey(task.id)).Delete(RecordKey(task.created_at_us, task.id));
    RETURN_IF_ERROR(meta_.Commit(kPartition, batch));
  }
  return {};
}

JsonObject TaskView(const ImportTask& task, bool stub) {
  JsonObject view{{"id", task.id},
                  {"type", task.type},
                  {"status", task.status},
                  {"owner", task.owner},
                  {"created_at", base::FormatTimeSeconds(task.created_at_us)},
                  {"updated_at", base::FormatTimeSeconds(task.updated_at_us)},
                  {"self", "/v2/tasks/" + task.id},
                  {"schema", "/v2/schemas/task"}};
  if (task.expires_at_us != 0) {
    view["expires_at"] = base::FormatTimeSeconds(task.expires_at_us);
  }
  if (stub) return view;
  view["input"] = task.input;
  view["message"] = task.message;
  view["image_id"] = task.image_id;
  view["request_id"] = task.request_id;
  view["user_id"] = task.user_id;
  if (task.result_image_id.empty()) {
    view["result"] = nullptr;
  } else {
    view["result"] = JsonObject{{"image_id", task.result_image_id}};
  }
  return view;
}

}  // namespace imaged
