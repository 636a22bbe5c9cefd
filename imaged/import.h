#pragma once

#include <string>
#include <string_view>

#include "base/http/message.h"
#include "base/result.h"
#include "chunkstore/jobs/journal.h"
#include "chunkstore/jobs/runner.h"
#include "imaged/data_path.h"

// Imports: POST /v2/images/{image_id}/import answers 202 at once, with a task that tells how it
// went and a journalled job that does it.
//
//  glance-direct  what was staged becomes the image's data: a change of the record, no byte moves
//  web-download   the bytes are fetched from a URI (web_fetch.h)
//  copy-image     there is one store, so the image is in all of them already: nothing to do
//
// A job that was cut off by a crash is taken again: it looks at the record and goes on from there.

namespace imaged {

constexpr std::string_view kImportJob = "import";

struct ImportPayload {
  std::string task_id;
  std::string image_id;
  std::string holder;  // of the record's upload: what this job answers for
  std::string method;
  std::string uri;      // of web-download
  std::string project;  // who asked: by it imports take turns
};
std::string EncodeImport(const ImportPayload& payload);
base::Result<ImportPayload> DecodeImport(std::string_view text);

// POST .../import. Blocking.
base::Result<base::http::Response> StartImport(DataPath& path, const base::http::Request& request);

// The handler of the jobs.
base::Result<chunkstore::jobs::Outcome> RunImport(DataPath& path, const chunkstore::jobs::Job& job,
                                                  const chunkstore::jobs::JobControl& control);

}  // namespace imaged
