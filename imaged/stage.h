#pragma once

#include <memory>

#include "base/async/task.h"
#include "base/http/message.h"
#include "base/http/router.h"
#include "base/result.h"
#include "imaged/data_path.h"

// The two routes that take an image's bytes: PUT .../file makes the image active, PUT .../stage
// lets them lie ready for an import. They differ in where they end. The first also takes a chunk
// stream (chunk_upload.h).

namespace imaged {

base::async::Task<base::Result<base::http::Response>> PutData(
    DataPath& path, UploadKind kind, std::shared_ptr<const base::http::Request> request,
    base::http::BodyReader& sent);

}  // namespace imaged
