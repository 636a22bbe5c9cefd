#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"
#include "chunkstore/chunk_store.h"

// Images in a hypervisor's format, made into the disk that they describe.
//
// qemu-img does it, because it is the one program that reads all these formats as hypervisors do.
// It has parsed hostile files wrongly before, so it runs confined (sandbox.h): it has no network,
// no files but its own libraries, no privileges, so much memory and so much time. What it reads and
// writes are two exports of an NBD server of ours on one unix socket: the image straight from the
// chunk store, and a disk that goes straight into an ingest. No byte of either lies in a file.
//
// The format is the record's, never guessed. What could make a format reach outside of itself
// (backing files, external data) was refused when the image was uploaded (imaged/formats); were it
// not, there would be nothing here to reach.

namespace controlplane::convert {

// What one conversion may take.
struct Limits {
  uint64_t max_disk_bytes = 16 * base::kTiB;  // the disk that the image describes
  int64_t time_ms = 3'600'000;                // by the clock, and of CPU
  uint64_t memory_bytes = 1 * base::kGiB;     // address space
};

// Where the programs are: as Debian has them. Tests name others.
struct Programs {
  std::string qemu_img = "/usr/bin/qemu-img";  // package qemu-utils
  std::string bwrap = "/usr/bin/bwrap";        // package bubblewrap
  std::string prlimit = "/usr/bin/prlimit";    // package util-linux: always there
};

// True for what qemu-img is asked to convert: qcow2, vmdk, vdi, vhd, vhdx.
bool IsConvertible(std::string_view disk_format);

// kUnavailable says what to install.
base::Result<void> CheckInstalled(const Programs& programs);

// Fills `disk` (to be finished by the caller with `disk_bytes`) with the disk that `image`
// describes. Zeros become holes. `cancelled` is asked several times a second. Blocking, and long.
//
// kInvalidArgument: qemu-img can't make sense of it, or it describes a larger disk than
// `disk_bytes`; kTooLarge: over a limit; kUnavailable as above; kCancelled; kIo: it can't be
// confined here. What the store says (kOutOfSpace, kIo, kCorruption) goes before whatever qemu-img
// makes of it.
base::Result<void> ToRaw(const Limits& limits, const Programs& programs,
                         std::string_view disk_format, std::shared_ptr<chunkstore::Content> image,
                         uint64_t disk_bytes, std::shared_ptr<chunkstore::Ingest> disk,
                         const std::function<bool()>& cancelled);

}  // namespace controlplane::convert
