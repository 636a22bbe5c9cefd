#include "imaged/inspect.h"

#include <algorithm>

#include "base/bytes.h"
#include "imaged/formats/inspector.h"

namespace imaged {

base::Result<std::optional<uint64_t>> InspectContent(const Image& image,
                                                     chunkstore::Content& content) {
  const uint64_t size = content.root().size_bytes;
  formats::Inspector inspector(image.disk_format.value_or(""), image.container_format.value_or(""));
  base::Buffer head(std::min<uint64_t>(size, formats::kHeadBytes));
  RETURN_IF_ERROR(content.ReadAt(0, head.view()));
  RETURN_IF_ERROR(inspector.Head(head.view()));
  base::Buffer tail(std::min<uint64_t>(size, formats::kTailBytes));
  RETURN_IF_ERROR(content.ReadAt(size - tail.size(), tail.view()));
  return inspector.Finish(size, tail.view());
}

}  // namespace imaged
