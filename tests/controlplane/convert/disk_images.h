#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "chunkstore/chunk_store.h"
#include "tests/support/temp_dir.h"

// Real images, made by qemu-img.

namespace controlplane::convert {

// Empty, or why conversions can't be tested here: for GTEST_SKIP.
std::string WhyNotTested();

// Runs a program and waits; what it printed. `code` may be null: then it must end well.
std::string RunTool(const std::vector<std::string>& command, int* code = nullptr);

// A disk with random bytes, zeros and text in places, that ends off every grid but the sectors'.
std::string SampleDisk();

// The disk as an image in a format of qemu-img's; `options` are further words of its command line.
std::string MakeImage(std::string_view disk, const std::string& format,
                      const std::vector<std::string>& options = {});

// What a holder of the store holds.
std::string ReadBack(chunkstore::ChunkStore& store, const std::string& holder);

void WriteFile(const std::string& path, std::string_view bytes);
std::string ReadFile(const std::string& path);

}  // namespace controlplane::convert
