#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

// Looks at the bytes of an image as they come in, and says whether they are what the client
// declared, whether they are safe to hand to a hypervisor, and how large the disk is that they
// describe.
//
// Why: whoever opens an image later may guess its format from its bytes. A "raw" image that begins
// as a qcow2 with a backing file would make a guessing program read a file of its own host and
// hand it to the tenant. So the bytes must be of the declared format, and a format that can refer
// to something outside of itself must not.
//
// The rules:
//  - Formats are known by their fixed marks: qcow2, qed, vmdk, vdi, vhd, vhdx, ploop, luks, iso.
//    Bytes that bear the marks of two of them are refused.
//  - In the container "bare" the bytes must be of the declared format. Declared "raw", "ami", "ari"
//    or "aki" means: none of them. A disk with an MBR or a GPT is raw, and so is an iso: its bytes
//    are the disk itself, and there is nothing in them to follow.
//  - In other containers (ovf, ova, docker, ami, ...) the disk lies packed, or is a kernel; the
//    declared format is not compared. What is dangerous is refused there too.
//  - Refused as dangerous: a qcow2 with a backing file, an external data file or unknown
//    incompatible features; a vmdk that is not one self-contained file (monolithicSparse or
//    streamOptimized); differencing vhd, vhdx and vdi; headers whose numbers can't be true.
//
// Sources: docs/interop/qcow2.txt and parallels.txt of QEMU; VMware's Virtual Disk Format 5.0; the
// VHD specification 1.0; [MS-VHDX]; VirtualBox's VDICore.h; ECMA-119.

namespace imaged::formats {

// How much of the beginning Head wants to see: the formats keep what matters within it.
constexpr size_t kHeadBytes = 4 * base::kMiB;
// How much of the end Finish wants to see: a footer of vhd (512) or vmdk (1024).
constexpr size_t kTailBytes = 1024;
// No disk is larger: beyond it a header is absurd.
constexpr uint64_t kMaxVirtualBytes = 64 * base::kTiB;

// The marks found at the beginning of some bytes.
enum class Kind : uint8_t { kNone, kQcow2, kQed, kVmdk, kVdi, kVhd, kVhdx, kPloop, kLuks, kIso };
std::string_view KindName(Kind kind);  // "qcow2", ...; "raw" for kNone
// What the marks in the first bytes of an image say: the last of them, iso's, ends before 64 KiB.
// kInvalidArgument for those of two formats at once.
base::Result<Kind> KindOf(base::ByteView head);

// True for a disk format that Glance knows and this inspector can judge.
bool IsKnownDiskFormat(std::string_view disk_format);

// The last kTailBytes of a stream that passes. One thread.
class Tail {
 public:
  void Feed(base::ByteView bytes);
  base::ByteView view() const { return kept_; }

 private:
  std::vector<uint8_t> kept_;
};

// Errors of both functions are kInvalidArgument with a sentence for the one who uploads.
// One thread; value type of a few words: it keeps none of the bytes.
class Inspector {
 public:
  // As the image's record declares them.
  Inspector(std::string disk_format, std::string container_format);

  // The first kHeadBytes, or all if there are fewer. Once, first.
  base::Result<void> Head(base::ByteView head);

  // All is there: its length, and its last kTailBytes (or all if there are fewer). Returns the size
  // of the disk, where that is known.
  base::Result<std::optional<uint64_t>> Finish(uint64_t size_bytes, base::ByteView tail);

  Kind kind() const { return kind_; }

 private:
  base::Result<void> CheckDeclared(bool has_vhd_footer) const;

  std::string disk_format_;
  std::string container_format_;
  Kind kind_ = Kind::kNone;
  std::optional<uint64_t> virtual_bytes_;
  uint64_t least_bytes_ = 0;  // what the headers refer to must lie within the file
  std::string vmdk_footer_;   // the header that a footer must repeat; empty: none is due
};

}  // namespace imaged::formats
