// VMware's Virtual Disk Format 5.0: a sparse extent with its descriptor embedded. Little-endian.

#include <algorithm>
#include <cctype>
#include <string>

#include <fmt/format.h>

#include "imaged/formats/parsers.h"

namespace imaged::formats {

using base::ByteView;
using base::Result;

namespace {

constexpr uint64_t kSector = 512;
constexpr uint64_t kMaxDescriptorBytes = base::kMiB;
constexpr uint64_t kDirectoryAtEnd = UINT64_MAX;

std::string_view Trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t' || text.back() == '\r')) {
    text.remove_suffix(1);
  }
  return text;
}

bool IsExtent(std::string_view line) {
  return line.starts_with("rw ") || line.starts_with("rdonly ") || line.starts_with("noaccess ");
}

// Counts what matters in the descriptor, a line at a time.
struct Descriptor {
  int extents = 0;
  int types = 0;
};

// "rw 2097152 sparse "disk.vmdk"": the file names itself; a path would lead elsewhere.
Result<void> CheckExtent(std::string_view line) {
  if (line.find('/') != std::string_view::npos || line.find('\\') != std::string_view::npos) {
    return Bad("vmdk", "must not have an extent at a path");
  }
  size_t size_end = line.find(' ', line.find(' ') + 1);
  std::string_view kind = size_end == std::string_view::npos ? "" : Trim(line.substr(size_end + 1));
  if (!kind.starts_with("sparse ")) return Bad("vmdk", "must have no extents but sparse ones");
  return {};
}

Result<void> CheckLine(std::string_view line, Descriptor* seen) {
  if (line.empty() || line.starts_with("#") || line.starts_with("ddb")) return {};
  if (IsExtent(line)) {
    ++seen->extents;
    return CheckExtent(line);
  }
  size_t equals = line.find('=');
  std::string_view key = Trim(line.substr(0, equals));
  if (equals == std::string_view::npos || key.find(' ') != std::string_view::npos) {
    return Bad("vmdk", "has a descriptor with a line that can't be understood");
  }
  std::string_view value = Trim(line.substr(equals + 1));
  if (key == "createtype") {
    ++seen->types;
    if (value != "\"monolithicsparse\"" && value != "\"streamoptimized\"") {
      return Bad("vmdk", "must be of the type monolithicSparse or streamOptimized");
    }
  }
  if (key == "parentcid" && value != "ffffffff") return Bad("vmdk", "must not have a parent");
  if (key == "parentfilenamehint") return Bad("vmdk", "must not have a parent");
  return {};
}

Result<void> CheckDescriptor(ByteView bytes) {
  std::string text(base::AsText(bytes));
  text.resize(text.find_last_not_of('\0') + 1);
  for (char& c : text) {
    if (static_cast<unsigned char>(c) >= 0x80 || c == '\0') {
      return Bad("vmdk", "has a descriptor that is no text");
    }
    c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  Descriptor seen;
  std::string_view rest = text;
  while (!rest.empty()) {
    size_t end = std::min(rest.find('\n'), rest.size());
    RETURN_IF_ERROR(CheckLine(Trim(rest.substr(0, end)), &seen));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  if (seen.types != 1) return Bad("vmdk", "must say its createType once");
  if (seen.extents != 1) return Bad("vmdk", "must have one extent");
  return {};
}

}  // namespace

Result<Header> ReadVmdk(ByteView head) {
  if (!HasMark(head, 0, "KDMV")) {
    return Bad("vmdk",
               "must be one self-contained file: upload it as monolithicSparse or "
               "streamOptimized");
  }
  if (head.size() < kSector) return Bad("vmdk", "is cut short within its header");
  uint32_t version = Little<uint32_t>(head, 4);
  if (version < 1 || version > 3) return Bad("vmdk", "is of an unknown version");
  uint64_t capacity = Little<uint64_t>(head, 12);
  if (capacity > (uint64_t{1} << 50)) return Bad("vmdk", "describes a disk that can't be");
  uint64_t descriptor_offset = Little<uint64_t>(head, 28);
  uint64_t descriptor_sectors = Little<uint64_t>(head, 36);
  if (descriptor_offset != 1) return Bad("vmdk", "must have its descriptor after its header");
  if (descriptor_sectors == 0 || descriptor_sectors > kMaxDescriptorBytes / kSector) {
    return Bad("vmdk", "has a descriptor of a size that can't be");
  }
  ByteView descriptor = Slice(head, kSector, descriptor_sectors * kSector);
  if (descriptor.size() < descriptor_sectors * kSector) {
    return Bad("vmdk", "is cut short within its descriptor");
  }
  RETURN_IF_ERROR(CheckDescriptor(descriptor));

  Header header;
  header.virtual_bytes = capacity * kSector;
  header.least_bytes = (1 + descriptor_sectors) * kSector;
  uint64_t directory = Little<uint64_t>(head, 56);
  if (directory == kDirectoryAtEnd) {
    header.vmdk_footer = std::string(base::AsText(Slice(head, 0, 64)));
  } else {
    header.least_bytes = std::max(header.least_bytes, Extent(0, directory, kSector));
  }
  return header;
}

}  // namespace imaged::formats
