#include "tests/controlplane/convert/disk_images.h"

#include <cstdio>
#include <fstream>
#include <random>
#include <sstream>

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/check.h"
#include "controlplane/convert/sandbox.h"
#include "controlplane/convert/to_raw.h"

namespace controlplane::convert {

std::string WhyNotTested() {
  const Programs programs;
  const auto installed = CheckInstalled(programs);
  if (!installed.has_value()) return "NOT TESTED: conversions: " + installed.error().message();
  const support::TempDir directory;
  const auto tried =
      RunConfined({programs.bwrap, programs.prlimit, directory.path(), base::kGiB, 10'000},
                  {programs.qemu_img, "--version"}, [] { return false; });
  if (!tried.has_value()) return "NOT TESTED: conversions: " + tried.error().message();
  return {};
}

std::string RunTool(const std::vector<std::string>& command, int* code) {
  std::string line;
  for (const std::string& word : command) line += "'" + word + "' ";
  FILE* const pipe = ::popen((line + "2>&1").c_str(), "r");
  CHECK(pipe != nullptr);
  std::string output;
  for (int c = std::fgetc(pipe); c != EOF; c = std::fgetc(pipe))
    output.push_back(static_cast<char>(c));
  const int status = ::pclose(pipe);
  if (code != nullptr)
    *code = WEXITSTATUS(status);
  else
    EXPECT_EQ(status, 0) << line << "\n" << output;
  return output;
}

std::string SampleDisk() {
  constexpr size_t kSize = 23 * base::kMiB + 5 * 512;
  std::string disk(kSize, '\0');
  std::mt19937_64 random(7);
  const auto scatter = [&](size_t offset, size_t length) {
    for (size_t i = 0; i < length; ++i) disk[offset + i] = static_cast<char>(random());
  };
  scatter(0, base::kMiB + 512);
  scatter(7 * base::kMiB - 4096, 3 * base::kMiB);  // across a chunk's border
  disk.replace(20 * base::kMiB, 11, "hello there");
  scatter(kSize - 512, 512);
  return disk;
}

void WriteFile(const std::string& path, std::string_view bytes) {
  std::ofstream file(path, std::ios::binary);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  CHECK(file.good());
}

std::string ReadFile(const std::string& path) {
  std::ostringstream bytes;
  bytes << std::ifstream(path, std::ios::binary).rdbuf();
  return bytes.str();
}

std::string MakeImage(std::string_view disk, const std::string& format,
                      const std::vector<std::string>& options) {
  const support::TempDir directory;
  WriteFile(directory / "disk", disk);
  std::vector<std::string> command = {"qemu-img", "convert", "-f", "raw", "-O", format};
  command.insert(command.end(), options.begin(), options.end());
  command.push_back(directory / "disk");
  command.push_back(directory / "image");
  RunTool(command);
  return ReadFile(directory / "image");
}

std::string ReadBack(chunkstore::ChunkStore& store, const std::string& holder) {
  const auto held = store.FindHolder(holder);
  CHECK(held.has_value() && held->root.has_value());
  const auto content = store.Open(*held->root);
  CHECK(content.has_value());
  std::string bytes(held->root->size_bytes, '\0');
  const auto read = (*content)->ReadAt(0, {reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()});
  CHECK(read.has_value());
  return bytes;
}

}  // namespace controlplane::convert
