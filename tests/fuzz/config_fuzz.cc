#include <cstddef>
#include <cstdint>
#include <string>

#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/config.h"

namespace {

// A file without a disk: its path is that of the descriptor.
std::string ConfigFile(std::string_view text) {
  static const int descriptor = memfd_create("config", 0);
  CHECK(descriptor >= 0);
  CHECK(ftruncate(descriptor, 0) == 0);
  CHECK(pwrite(descriptor, text.data(), text.size(), 0) == static_cast<ssize_t>(text.size()));
  return "/proc/self/fd/" + std::to_string(descriptor);
}

std::vector<std::string> SplitLines(std::string_view text) {
  std::vector<std::string> lines;
  while (!text.empty()) {
    size_t end = text.find('\n');
    lines.emplace_back(text.substr(0, end));
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
  }
  return lines;
}

void Parse(const std::vector<std::string>& args) {
  base::ConfigBuilder builder;
  builder.String("listen", "here", "where");
  auto& size = builder.Bytes("cache.memory", base::kMiB, "how much");
  auto& lifetime = builder.DurationMs("identity.token_lifetime", 1000, "how long");
  builder.Secret("identity.password", "which");
  builder.Choice("log.level", "info", {"info", "warn"}, "what");
  auto& level = builder.Int("level", 3, 1, 9, "how hard");
  builder.List("stores", {}, "which ones");
  builder.Bool("json", false, "whether");
  auto parsed = builder.Parse(args, {});
  if (!parsed.has_value()) {
    CHECK(!parsed.error().message().empty());
    return;
  }
  CHECK(1 <= *level && *level <= 9);
  CHECK(*lifetime >= 0);
  CHECK(base::ParseBytes(std::to_string(*size)).value() == *size);
  CHECK(!builder.Describe().empty());
}

}  // namespace

// The first byte: is the rest a file, or a command line with a word in each line?
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] == 'f') {
    Parse({"--config", ConfigFile(text)});
  } else {
    std::vector<std::string> args = SplitLines(text);
    // Not a real file: /dev/zero is a fine one, and slow.
    for (const std::string& arg : args)
      if (arg.starts_with("--config")) return 0;
    Parse(args);
  }
  return 0;
}
