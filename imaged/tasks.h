#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/json.h"
#include "base/result.h"
#include "chunkstore/meta_store.h"

namespace imaged {

// What an import does and did, as /v2/tasks shows it. The work itself is a job (chunkstore/jobs);
// this is its face, and stays a while after the work is done.
struct ImportTask {
  std::string id;  // UUID
  std::string type = "api_image_import";
  std::string status;  // pending, processing, success, failure
  std::string owner;   // project id
  std::string user_id;
  std::string image_id;
  std::string request_id;
  base::Json input;             // {"image_id", "import_req", "backend"}
  std::string result_image_id;  // once it succeeded
  std::string message;
  int64_t created_at_us = 0;
  int64_t updated_at_us = 0;
  int64_t expires_at_us = 0;  // 0: not yet ended

  bool ended() const { return status == "success" || status == "failure"; }
};

// How long an ended task is shown.
constexpr int64_t kTaskKeptUs = 48 * 3600 * base::kSecondUs;

// The records, in the partition "tasks": t/<created><id>, and i/<id> to find that. Thread-safe.
class TaskStore {
 public:
  // Borrowed.
  TaskStore(chunkstore::MetaStore& meta, const base::Clock& clock) : meta_(meta), clock_(clock) {}

  // Sets id and times; durable.
  base::Result<ImportTask> Create(ImportTask task);
  // kNotFound "No task found with ID <id>".
  base::Result<ImportTask> Get(std::string_view id);
  // Sets status and message, and expires_at for an ended one. Durable. One that has ended stays as
  // it is: a process that was stopped, and whose job another one took over and finished, may come
  // back with an end of its own. Returns the task as it then is.
  base::Result<ImportTask> SetStatus(std::string_view id, std::string_view status,
                                     std::string_view message);

  // Newest first; `visit` returns false to stop.
  base::Result<void> Visit(const std::function<bool(const ImportTask&)>& visit);
  base::Result<std::vector<ImportTask>> OfImage(std::string_view image_id);

  // Forgets ended tasks whose time is over.
  base::Result<void> Expire();

 private:
  struct Stored {
    ImportTask task;
    std::string key;
    std::string bytes;  // as read: the expectation of the next commit
  };
  base::Result<Stored> Load(std::string_view id);

  chunkstore::MetaStore& meta_;
  const base::Clock& clock_;
};

// As the API shows it; the list of an image's tasks and the one of all differ from a single one.
base::JsonObject TaskView(const ImportTask& task, bool stub);

}  // namespace imaged
