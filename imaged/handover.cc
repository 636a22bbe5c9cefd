#include "imaged/handover.h"

#include <atomic>
#include <memory>
#include <utility>

#include "imaged/holder.h"
#include "imaged/inspect.h"

namespace imaged {

using base::Error;
using base::Result;
using chunkstore::Root;

namespace {

Result<Image> Fill(DataPath& path, const Image& image, const std::string& holder,
                   const Handover& handover, const std::function<bool()>& cancelled) {
  std::atomic<bool> called_off{false};
  const DataPath::Active active(path, image.id, holder, [&called_off] { called_off = true; });
  std::string attributes = EncodeImage(image);
  if (attributes.size() > chunkstore::kMaxAttributesBytes) attributes.clear();
  ASSIGN_OR_RETURN(const Root root, handover.hold(holder, attributes));
  ASSIGN_OR_RETURN(const std::shared_ptr<chunkstore::Content> content, path.store().Open(root));
  ASSIGN_OR_RETURN(const auto virtual_bytes, InspectContent(image, *content));
  ASSIGN_OR_RETURN(const Digests digests, path.CompleteDigests(root, {}, [&] {
    return called_off.load() || cancelled();
  }));
  return path.Activate(image.id, holder, holder, root, virtual_bytes, digests);
}

}  // namespace

Result<Image> HandOver(DataPath& path, const Handover& handover,
                       const std::function<bool()>& cancelled) {
  const std::string holder = NewHolder(handover.image_id);
  const auto anybody = [](const Image&) -> Result<void> { return {}; };
  ASSIGN_OR_RETURN(
      const Image image,
      path.catalog().BeginUpload(handover.image_id, UploadKind::kData, holder,
                                 path.options().lease_ms, handover.reserve_bytes, anybody));
  Result<Image> filled = Fill(path, image, holder, handover, cancelled);
  if (!filled.has_value()) path.CallOff(image.id, holder);
  return filled;
}

}  // namespace imaged
