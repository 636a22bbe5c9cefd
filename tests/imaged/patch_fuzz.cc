#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/check.h"
#include "base/json.h"
#include "imaged/attributes.h"
#include "imaged/image.h"
#include "imaged/patch.h"
#include "imaged/views.h"

// A body of PATCH, of either media type: whatever it says, the image stays one that can be kept and
// shown.

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view body(reinterpret_cast<const char*>(data) + 1, size - 1);
  const auto version = (data[0] & 1) != 0 ? imaged::PatchVersion::kV20 : imaged::PatchVersion::kV21;
  base::auth::Caller caller;
  caller.project_id = "me";
  caller.roles = {(data[0] & 2) != 0 ? "admin" : "member"};

  const auto operations = imaged::ParsePatch(version, body);
  if (!operations.has_value()) {
    CHECK(!operations.error().message().empty());
    return 0;
  }
  imaged::Image image;
  image.id = "55828f4d-2f3f-4b84-afe8-dce755e947a2";
  image.owner = "me";
  image.properties["prop"] = "v";
  image.properties["os_glance_import_task"] = "t";
  if (!imaged::ApplyPatch(caller, *operations, &image).has_value()) return 0;

  CHECK(image.id == "55828f4d-2f3f-4b84-afe8-dce755e947a2");
  CHECK(image.properties.at("os_glance_import_task") == "t");
  CHECK(image.properties.size() <= imaged::kMaxProperties + 1);
  CHECK(image.tags.size() <= imaged::kMaxTags);
  CHECK(imaged::DecodeImage(imaged::EncodeImage(image)).value() == image);
  std::string shown;
  imaged::AppendImage(&shown, image);
  const auto json = base::ParseJson(shown);
  CHECK(json.has_value());
  for (const auto& [name, value] : image.properties)
    CHECK(imaged::KindOf(name) != imaged::AttributeKind::kReadOnly);
  return 0;
}
