#include "imaged/formats/inspector.h"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "imaged/formats/parsers.h"

namespace imaged::formats {

using base::ByteView;
using base::Code;
using base::Error;
using base::Result;

namespace {

struct Mark {
  Kind kind;
  size_t offset;
  std::string_view text;
};

// A text descriptor of vmdk names its extents as other files; COWD is the extent of an old ESX.
constexpr std::array kMarks = {
    Mark{Kind::kQcow2, 0, "QFI\xfb"},
    Mark{Kind::kQed, 0, std::string_view("QED\0", 4)},
    Mark{Kind::kVmdk, 0, "KDMV"},
    Mark{Kind::kVmdk, 0, "COWD"},
    Mark{Kind::kVmdk, 0, "# Disk DescriptorFile"},
    Mark{Kind::kVdi, 0x40, "\x7f\x10\xda\xbe"},
    Mark{Kind::kVhd, 0, "conectix"},
    Mark{Kind::kVhdx, 0, "vhdxfile"},
    Mark{Kind::kPloop, 0, "WithoutFreeSpace"},
    Mark{Kind::kPloop, 0, "WithouFreSpacExt"},
    Mark{Kind::kLuks, 0, "LUKS\xba\xbe"},
};

// ECMA-119: volume descriptors begin at sector 16 of 2 KiB, each marked CD001 after its type byte.
constexpr size_t kIsoMarkOffset = 16 * 2048 + 1;

Result<Header> ReadHeader(Kind kind, ByteView head) {
  switch (kind) {
    case Kind::kQcow2:
      return ReadQcow2(head);
    case Kind::kVmdk:
      return ReadVmdk(head);
    case Kind::kVdi:
      return ReadVdi(head);
    case Kind::kVhd:
      return ReadVhd(head);
    case Kind::kVhdx:
      return ReadVhdx(head);
    case Kind::kPloop:
      return ReadPloop(head);
    case Kind::kQed:
      return Bad("qed", "can't be used: the format is not supported");
    default:
      return Header{};
  }
}

bool IsPlain(std::string_view disk_format) {
  return disk_format == "raw" || disk_format == "ami" || disk_format == "ari" ||
         disk_format == "aki";
}

}  // namespace

Result<Kind> KindOf(ByteView head) {
  std::vector<Kind> found;
  for (const Mark& mark : kMarks) {
    bool seen = std::find(found.begin(), found.end(), mark.kind) != found.end();
    if (!seen && HasMark(head, mark.offset, mark.text)) found.push_back(mark.kind);
  }
  if (found.size() > 1) {
    return Error(Code::kInvalidArgument,
                 fmt::format("the image bears the marks of two formats at once ({} and {})",
                             KindName(found[0]), KindName(found[1])));
  }
  if (!found.empty()) return found[0];
  // Looked at last: inside a file of another format that place may hold anything.
  return HasMark(head, kIsoMarkOffset, "CD001") ? Kind::kIso : Kind::kNone;
}

std::string_view KindName(Kind kind) {
  constexpr std::array<std::string_view, 10> kNames = {"raw", "qcow2", "qed",   "vmdk", "vdi",
                                                       "vhd", "vhdx",  "ploop", "luks", "iso"};
  return kNames[static_cast<size_t>(kind)];
}

bool IsKnownDiskFormat(std::string_view disk_format) {
  constexpr std::array<std::string_view, 7> kStructured = {"qcow2", "vmdk",  "vdi", "vhd",
                                                           "vhdx",  "ploop", "iso"};
  return IsPlain(disk_format) ||
         std::find(kStructured.begin(), kStructured.end(), disk_format) != kStructured.end();
}

Error Bad(std::string_view format, std::string_view problem) {
  return Error(Code::kInvalidArgument, fmt::format("a {} image {}", format, problem));
}

bool HasMark(ByteView bytes, size_t offset, std::string_view mark) {
  return base::AsText(Slice(bytes, offset, mark.size())) == mark;
}

ByteView Slice(ByteView bytes, uint64_t offset, uint64_t length) {
  if (offset >= bytes.size()) return {};
  return bytes.subspan(offset, std::min<uint64_t>(length, bytes.size() - offset));
}

uint64_t Extent(uint64_t offset, uint64_t count, uint64_t unit) {
  uint64_t bytes, end;
  if (__builtin_mul_overflow(count, unit, &bytes) || __builtin_add_overflow(offset, bytes, &end)) {
    return UINT64_MAX;
  }
  return end;
}

void Tail::Feed(ByteView bytes) {
  if (bytes.size() >= kTailBytes) {
    kept_.assign(bytes.end() - kTailBytes, bytes.end());
    return;
  }
  kept_.insert(kept_.end(), bytes.begin(), bytes.end());
  if (kept_.size() > kTailBytes) kept_.erase(kept_.begin(), kept_.end() - kTailBytes);
}

Inspector::Inspector(std::string disk_format, std::string container_format)
    : disk_format_(std::move(disk_format)), container_format_(std::move(container_format)) {}

Result<void> Inspector::Head(ByteView head) {
  ASSIGN_OR_RETURN(kind_, KindOf(head));
  // A fixed vhd shows itself only at its end.
  RETURN_IF_ERROR(CheckDeclared(true));
  ASSIGN_OR_RETURN(Header header, ReadHeader(kind_, head));
  if (header.virtual_bytes > kMaxVirtualBytes) {
    return Bad(KindName(kind_), fmt::format("can't describe a disk of {} bytes: at most {} are "
                                            "allowed",
                                            header.virtual_bytes, kMaxVirtualBytes));
  }
  if (header.virtual_bytes > 0) virtual_bytes_ = header.virtual_bytes;
  least_bytes_ = header.least_bytes;
  vmdk_footer_ = std::move(header.vmdk_footer);
  return {};
}

Result<std::optional<uint64_t>> Inspector::Finish(uint64_t size_bytes, ByteView tail) {
  ByteView footer = Slice(tail, tail.size() < 512 ? 0 : tail.size() - 512, 512);
  bool fixed_vhd = kind_ == Kind::kNone && disk_format_ == "vhd" && HasVhdMark(footer);
  RETURN_IF_ERROR(CheckDeclared(fixed_vhd));
  if (least_bytes_ > size_bytes) {
    return Bad(KindName(kind_), fmt::format("is cut short: its header refers to byte {}, and it "
                                            "has {}",
                                            least_bytes_, size_bytes));
  }
  if (!vmdk_footer_.empty()) {
    // Marker, footer, end-of-stream marker: the footer is the last sector but one.
    ByteView second = Slice(tail, tail.size() < 1024 ? 0 : tail.size() - 1024, 64);
    // Of the 64 bytes only the grain directory's offset (at 56) differs, and must.
    bool same = base::AsText(Slice(second, 0, 56)) == std::string_view(vmdk_footer_).substr(0, 56);
    if (!same || Little<uint64_t>(second, 56) == UINT64_MAX) {
      return Bad("vmdk", "has a footer that contradicts its header");
    }
  }
  if (fixed_vhd) {
    ASSIGN_OR_RETURN(uint64_t virtual_bytes, ReadFixedVhdFooter(footer));
    if (virtual_bytes > size_bytes) return Bad("vhd", "is cut short");
    return std::optional<uint64_t>(virtual_bytes);
  }
  if (container_format_ != "bare") return std::optional<uint64_t>();
  if (virtual_bytes_.has_value()) return virtual_bytes_;
  return std::optional<uint64_t>(size_bytes);
}

Result<void> Inspector::CheckDeclared(bool has_vhd_footer) const {
  if (container_format_ != "bare") return {};
  bool plain = kind_ == Kind::kNone || kind_ == Kind::kIso;
  if (IsPlain(disk_format_) && plain) return {};
  if (disk_format_ == KindName(kind_) && !IsPlain(disk_format_)) return {};
  if (disk_format_ == "vhd" && plain && has_vhd_footer) return {};
  return Error(Code::kInvalidArgument,
               fmt::format("the image was declared as {}, but its bytes are {}", disk_format_,
                           kind_ == Kind::kNone ? std::string("of no format that is known (raw)")
                                                : std::string(KindName(kind_))));
}

}  // namespace imaged::formats
