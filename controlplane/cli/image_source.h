#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/files.h"
#include "base/result.h"

namespace controlplane::cli {

// What `quarry image push` reads: a file, or whatever comes through a pipe. One thread.
class ImageSource {
 public:
  // "-" is standard input. kNotFound, kIo.
  static base::Result<std::unique_ptr<ImageSource>> Open(const std::string& path);
  virtual ~ImageSource() = default;

  // Null for a pipe, which can be read only once.
  virtual const base::File* file() const = 0;
  // Of a file; 0 for a pipe.
  virtual uint64_t size_bytes() const = 0;
  // The first bytes, at most kHeadBytes: enough to tell the format by.
  virtual base::ByteView head() const = 0;

  // Fills `into` with what comes next, from the beginning on; 0 at the end.
  virtual base::Result<size_t> Next(base::MutableByteView into) = 0;
  // Where there may be something else than zeros at or after `offset`, as far as the file system
  // knows; size_bytes() if nowhere.
  virtual uint64_t NextData(uint64_t offset) const = 0;
  // kCancelled if the file is not as it was when it was opened. Asked before the last byte leaves.
  virtual base::Result<void> CheckUnchanged() const = 0;

  static constexpr size_t kHeadBytes = 64 * base::kKiB;
};

// kCancelled, for a file that somebody writes to while it is read. `where` may be empty.
base::Error ChangedMeanwhile(const std::string& where);

}  // namespace controlplane::cli
