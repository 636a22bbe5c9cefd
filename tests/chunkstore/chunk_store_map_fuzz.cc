#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "chunkstore/map.h"
#include "chunkstore/references_format.h"

// A map page, and the index's records, from hostile bytes: what is accepted is what would be
// written.

namespace {

void Page(base::ByteView input) {
  const base::Result<chunkstore::MapPage> page = chunkstore::DecodePage(input);
  if (!page.has_value()) return;
  CHECK(chunkstore::EncodePage(*page) == base::AsText(input));
  uint32_t previous = 0;
  for (const chunkstore::MapPage::Entry& entry : page->entries) {
    CHECK(entry.slot < chunkstore::kFanOut);
    CHECK(&entry == page->entries.data() || entry.slot > previous);
    CHECK(page->Find(entry.slot) != nullptr);
    previous = entry.slot;
  }
  CHECK(page->Children().size() <= page->entries.size());
}

void Records(std::string_view input) {
  (void)chunkstore::DecodeRecord(input).has_value();
  (void)chunkstore::DecodeHolder(input).has_value();
  (void)chunkstore::DecodeJournal(input).has_value();
  (void)chunkstore::DecodeManifest(input).has_value();
  (void)chunkstore::DecodeDoomed(input, input).has_value();
  (void)chunkstore::ParseTag(input).has_value();
  const base::Result<chunkstore::BlobRef> name = chunkstore::ParseBlobName(input);
  if (name.has_value()) CHECK(chunkstore::BlobName(*name) == input);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Page({data, size});
  Records({reinterpret_cast<const char*>(data), size});
  return 0;
}
