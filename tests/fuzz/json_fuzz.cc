#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "base/json.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto value = base::ParseJson({reinterpret_cast<const char*>(data), size});
  if (!value.has_value()) {
    CHECK(value.error().code() == base::Code::kInvalidArgument);
    return 0;
  }
  // What was read can be written, and reads the same; but a fraction (written with an E) may round.
  std::string text = base::ToText(*value);
  auto again = base::ParseJson(text);
  CHECK(again.has_value());
  if (text.find('E') == std::string::npos) CHECK(base::ToText(*again) == text);
  base::Find(*value, "name");
  return 0;
}
