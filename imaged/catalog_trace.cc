#include <utility>

#include "imaged/catalog.h"
#include "imaged/index.h"

// Boot traces: beside the record of their image, in one commit with it.

namespace imaged {

using base::Code;
using base::Error;
using base::Result;

Result<std::optional<std::string>> Catalog::GetTrace(std::string_view image_id) {
  Result<std::string> trace = meta_.Get(kImagesPartition, TraceKey(image_id));
  if (trace.has_value()) return std::optional(*std::move(trace));
  if (trace.error().code() == Code::kNotFound) return std::optional<std::string>();
  return trace.error().Annotate("read the boot trace of image " + std::string(image_id));
}

Result<void> Catalog::PutTrace(std::string_view id, std::optional<std::string_view> trace,
                               const Check& check) {
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    ASSIGN_OR_RETURN(const Stored stored, Load(id));
    RETURN_IF_ERROR(check(stored.image));
    chunkstore::MetaBatch batch;
    batch.ExpectValue(RecordKey(stored.image.id), stored.bytes);  // it is there, and this one
    if (trace.has_value()) {
      batch.Put(TraceKey(stored.image.id), std::string(*trace));
    } else {
      batch.Delete(TraceKey(stored.image.id));
    }
    const Result<void> done = chunkstore::CommitDurably(meta_, kImagesPartition, batch);
    if (done.has_value() || done.error().code() != Code::kConflict) return done;
  }
  return Error(Code::kUnavailable, "too many changes to this image at once; try again");
}

}  // namespace imaged
