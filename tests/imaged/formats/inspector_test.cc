#include "imaged/formats/inspector.h"

#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>

#include <gtest/gtest.h>

#include "base/files.h"
#include "tests/support/results.h"
#include "tests/support/temp_dir.h"

// Files made by qemu-img are the reference; a test that needs it is skipped where it is not
// installed. What qemu-img would not make is made from those by changing bytes.

namespace imaged::formats {
namespace {

using base::Code;
using base::Result;

constexpr uint64_t kDisk = 64 * base::kMiB;

bool HasQemuImg() { return std::system("qemu-img --version >/dev/null 2>&1") == 0; }

std::string Read(const std::string& path) {
  auto bytes = base::ReadWholeFile(path, 256 * base::kMiB);
  EXPECT_OK(bytes);
  return bytes.value_or("");
}

Result<std::optional<uint64_t>> Inspect(std::string_view bytes, const std::string& disk_format,
                                        const std::string& container_format = "bare") {
  Inspector inspector(disk_format, container_format);
  RETURN_IF_ERROR(inspector.Head(base::AsBytes(bytes.substr(0, kHeadBytes))));
  size_t tail = std::min(bytes.size(), kTailBytes);
  return inspector.Finish(bytes.size(), base::AsBytes(bytes.substr(bytes.size() - tail)));
}

// The reason of a refusal; "accepted" if there was none.
std::string Refusal(std::string_view bytes, const std::string& disk_format,
                    const std::string& container_format = "bare") {
  auto result = Inspect(bytes, disk_format, container_format);
  if (result.has_value()) return "accepted";
  EXPECT_EQ(result.error().code(), Code::kInvalidArgument);
  return result.error().message();
}

void Poke(std::string* bytes, size_t offset, std::string_view value) {
  ASSERT_LE(offset + value.size(), bytes->size());
  std::memcpy(bytes->data() + offset, value.data(), value.size());
}

class QemuImages : public testing::Test {
 protected:
  void SetUp() override {
    if (!HasQemuImg()) GTEST_SKIP() << "qemu-img is not installed";
  }

  // A disk of 64 MiB with some bytes in it, in that format.
  std::string Make(const std::string& qemu_format, const std::string& options = "") {
    std::string path = dir_ / ("disk." + qemu_format);
    std::string raw = dir_ / "disk.raw";
    Run("truncate -s 64M " + raw);
    Run("dd if=/dev/urandom of=" + raw + " bs=64k count=3 seek=5 conv=notrunc status=none");
    Run("qemu-img convert -f raw -O " + qemu_format + " " + options + " " + raw + " " + path);
    return Read(path);
  }
  void Run(const std::string& command) {
    ASSERT_EQ(std::system((command + " >/dev/null 2>&1").c_str()), 0) << command;
  }

  support::TempDir dir_;
};

struct Made {
  const char* declared;
  const char* qemu;
  const char* options;
};

TEST_F(QemuImages, AreWhatTheyAreDeclaredAs) {
  for (const Made& made :
       {Made{"qcow2", "qcow2", ""}, Made{"qcow2", "qcow2", "-o compat=0.10"},
        Made{"qcow2", "qcow2", "-c"}, Made{"qcow2", "qcow2", "-o cluster_size=512"},
        Made{"qcow2", "qcow2", "-o cluster_size=2M,extended_l2=on"}, Made{"vmdk", "vmdk", ""},
        Made{"vmdk", "vmdk", "-o subformat=streamOptimized"}, Made{"vdi", "vdi", ""},
        Made{"vdi", "vdi", "-o static=on"}, Made{"vhdx", "vhdx", ""},
        Made{"vhdx", "vhdx", "-o subformat=fixed"}, Made{"vhd", "vpc", "-o force_size=on"},
        Made{"vhd", "vpc", "-o subformat=fixed,force_size=on"}, Made{"ploop", "parallels", ""}}) {
    SCOPED_TRACE(std::string(made.qemu) + " " + made.options);
    std::string bytes = Make(made.qemu, made.options);
    ASSERT_OK_AND_ASSIGN(auto virtual_bytes, Inspect(bytes, made.declared));
    EXPECT_EQ(virtual_bytes, kDisk);
    // The fixed vhd is the disk's own bytes with a footer behind: it is raw as well.
    if (std::string(made.options).find("subformat=fixed,force") == std::string::npos) {
      EXPECT_NE(Refusal(bytes, "raw").find("was declared as raw"), std::string::npos);
      EXPECT_NE(Refusal(bytes, "iso").find("was declared as iso"), std::string::npos);
    }
    const char* other = std::string(made.declared) == "qcow2" ? "vmdk" : "qcow2";
    EXPECT_NE(Refusal(bytes, other).find("was declared as"), std::string::npos);
  }
}

TEST_F(QemuImages, WithAnotherFileBehindThemAreRefused) {
  Run("qemu-img create -f raw " + dir_ / "base.raw" + " 64M");
  Run("qemu-img create -f qcow2 -b " + (dir_ / "base.raw") + " -F raw " + (dir_ / "over.qcow2"));
  EXPECT_EQ(Refusal(Read(dir_ / "over.qcow2"), "qcow2"),
            "a qcow2 image must not have a backing file");
  // Whatever container it claims to lie in.
  EXPECT_EQ(Refusal(Read(dir_ / "over.qcow2"), "ami", "ami"),
            "a qcow2 image must not have a backing file");

  Run("qemu-img create -f qcow2 -o data_file=" + (dir_ / "data.raw") + " " + (dir_ / "data.qcow2") +
      " 64M");
  EXPECT_EQ(Refusal(Read(dir_ / "data.qcow2"), "qcow2"),
            "a qcow2 image must not have an external data file");

  Run("qemu-img create -f vmdk -o subformat=monolithicFlat " + (dir_ / "flat.vmdk") + " 64M");
  EXPECT_NE(Refusal(Read(dir_ / "flat.vmdk"), "vmdk").find("self-contained"), std::string::npos);
  Run("qemu-img create -f vmdk " + (dir_ / "base.vmdk") + " 64M");
  Run("qemu-img create -f vmdk -b " + (dir_ / "base.vmdk") + " -F vmdk " + (dir_ / "over.vmdk"));
  EXPECT_EQ(Refusal(Read(dir_ / "over.vmdk"), "vmdk"), "a vmdk image must not have a parent");
}

TEST_F(QemuImages, OfOtherFormatsAreRefused) {
  EXPECT_NE(Refusal(Make("qed"), "qcow2").find("qed"), std::string::npos);
  EXPECT_NE(Refusal(Make("qed"), "raw").find("qed"), std::string::npos);
  EXPECT_NE(Refusal("LUKS\xba\xbe" + std::string(4096, '\1'), "raw").find("luks"),
            std::string::npos);
}

TEST_F(QemuImages, Qcow2WithAbsurdHeadersAreRefused) {
  const std::string good = Make("qcow2");
  struct Change {
    size_t offset;
    std::string_view value;
    const char* reason;
  };
  for (const Change& change :
       {Change{4, std::string_view("\0\0\0\7", 4), "version"},
        Change{20, std::string_view("\0\0\0\x3f", 4), "clusters of a size"},
        Change{24, std::string_view("\x00\x00\x10\0\0\0\0\0", 8), "L1 table too small"},
        Change{24, std::string_view("\xff\xff\xff\xff\xff\xff\xff\xff", 8), "size that can't be"},
        Change{32, std::string_view("\0\0\0\x09", 4), "encrypted"},
        Change{36, std::string_view("\xff\xff\xff\xff", 4), "larger than 32 MiB"},
        Change{40, std::string_view("\0\0\0\0\0\0\0\x01", 8), "off its clusters"},
        Change{40, std::string_view("\0\x10\0\0\0\0\0\0", 8), "cut short"},
        Change{48, std::string_view("\0\0\0\0\0\0\0\0", 8), "refcount table"},
        Change{56, std::string_view("\xff\xff\xff\xff", 4), "refcount table"},
        Change{60, std::string_view("\xff\xff\xff\xff", 4), "snapshots"},
        Change{72, std::string_view("\0\0\0\0\0\0\0\x02", 8), "corrupt"},
        Change{72, std::string_view("\0\0\0\0\0\0\0\x04", 8), "data file"},
        Change{72, std::string_view("\0\0\0\0\0\0\0\x20", 8), "features that are unknown"},
        Change{72, std::string_view("\x80\0\0\0\0\0\0\0", 8), "features that are unknown"},
        Change{96, std::string_view("\0\0\0\x07", 4), "refcounts"},
        Change{100, std::string_view("\0\0\0\x10", 4), "header of a length"},
        Change{8, std::string_view("\0\0\0\0\0\0\2\0", 8), "backing file"}}) {
    std::string bad = good;
    Poke(&bad, change.offset, change.value);
    EXPECT_NE(Refusal(bad, "qcow2").find(change.reason), std::string::npos)
        << change.offset << ": " << Refusal(bad, "qcow2");
  }
  // The name of a data file without the feature's bit.
  std::string named = good;
  Poke(&named, 112, std::string_view("\x44\x41\x54\x41\0\0\0\0", 8));
  EXPECT_NE(Refusal(named, "qcow2").find("data file"), std::string::npos);
}

TEST_F(QemuImages, CutShortAnywhereNeverCrashAndAreRefusedInTheirHeaders) {
  for (const char* format : {"qcow2", "vmdk", "vdi", "vhdx", "vpc", "parallels"}) {
    std::string bytes = Make(format);
    std::string declared = std::string(format) == "vpc"         ? "vhd"
                           : std::string(format) == "parallels" ? "ploop"
                                                                : format;
    size_t header = declared == "ploop" ? 64 : 1024;
    for (size_t length = 0; length < header; length += 7) {
      EXPECT_NE(Refusal(bytes.substr(0, length), declared), "accepted") << format << length;
    }
  }
}

TEST_F(QemuImages, WithTheMarksOfTwoFormatsAreRefused) {
  std::string bytes = Make("qcow2");
  Poke(&bytes, 0x40, "\x7f\x10\xda\xbe");
  EXPECT_NE(Refusal(bytes, "qcow2").find("two formats at once"), std::string::npos);
}

TEST(Inspector, TakesAnyOtherBytesForRaw) {
  std::string disk(1 * base::kMiB, '\0');
  ASSERT_OK_AND_ASSIGN(auto virtual_bytes, Inspect(disk, "raw"));
  EXPECT_EQ(virtual_bytes, disk.size());
  // An MBR, and a GPT.
  Poke(&disk, 510, "\x55\xaa");
  EXPECT_EQ(Refusal(disk, "raw"), "accepted");
  Poke(&disk, 512, "EFI PART");
  EXPECT_EQ(Refusal(disk, "raw"), "accepted");
  EXPECT_EQ(Refusal("", "raw"), "accepted");
  EXPECT_EQ(Refusal(disk, "ami"), "accepted");
  EXPECT_EQ(Refusal(disk, "qcow2"),
            "the image was declared as qcow2, but its bytes are of no format that is known (raw)");
}

TEST(Inspector, KnowsAnIsoWhichIsADiskAsWell) {
  std::string disk(64 * base::kKiB, '\0');
  Poke(&disk, 32 * base::kKiB,
       "\x01"
       "CD001\x01");
  ASSERT_OK_AND_ASSIGN(auto virtual_bytes, Inspect(disk, "iso"));
  EXPECT_EQ(virtual_bytes, disk.size());
  EXPECT_EQ(Refusal(disk, "raw"), "accepted");
  EXPECT_NE(Refusal(disk, "vdi"), "accepted");
  // One that is a qcow2 to those who look at its beginning.
  Poke(&disk, 0, "QFI\xfb");
  EXPECT_NE(Refusal(disk, "iso").find("bytes are qcow2"), std::string::npos);
}

TEST(Inspector, LeavesWhatLiesInOtherContainersAlone) {
  EXPECT_EQ(Refusal("random bytes", "vhd", "ami"), "accepted");
  EXPECT_EQ(Refusal("random bytes", "vmdk", "ova"), "accepted");
  ASSERT_OK_AND_ASSIGN(auto virtual_bytes, Inspect("random bytes", "vmdk", "ova"));
  EXPECT_EQ(virtual_bytes, std::nullopt);
}

TEST(Inspector, ReadsTheDescriptorOfAVmdkToItsEnd) {
  auto vmdk = [](std::string descriptor) {
    std::string bytes(4 * 512, '\0');
    Poke(&bytes, 0, std::string_view("KDMV\1\0\0\0\3\0\0\0\0\0\2\0", 16));
    Poke(&bytes, 28, std::string_view("\1\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0", 16));
    descriptor.resize(512, '\0');
    Poke(&bytes, 512, descriptor);
    return bytes;
  };
  const std::string good =
      "# Disk DescriptorFile\nversion=1\nCID=abc\nparentCID=ffffffff\n"
      "createType=\"monolithicSparse\"\nRW 131072 SPARSE \"disk.vmdk\"\n\nddb.adapterType = "
      "\"ide\"\n";
  EXPECT_EQ(Refusal(vmdk(good), "vmdk"), "accepted");
  ASSERT_OK_AND_ASSIGN(auto virtual_bytes, Inspect(vmdk(good), "vmdk"));
  EXPECT_EQ(virtual_bytes, 131072 * 512);
  auto with = [&](std::string_view from, std::string_view to) {
    std::string changed = good;
    changed.replace(changed.find(from), from.size(), to);
    return Refusal(vmdk(changed), "vmdk");
  };
  EXPECT_NE(with("monolithicSparse", "monolithicFlat").find("must be of the type"),
            std::string::npos);
  EXPECT_NE(with("\"disk.vmdk\"", "\"/etc/passwd\"").find("at a path"), std::string::npos);
  EXPECT_NE(with("\"disk.vmdk\"", "\"..\\x\"").find("at a path"), std::string::npos);
  EXPECT_NE(with("SPARSE", "FLAT").find("no extents but sparse"), std::string::npos);
  EXPECT_NE(with("RW 131072 SPARSE \"disk.vmdk\"\n", "").find("one extent"), std::string::npos);
  EXPECT_NE(with("CID=abc", "what is this").find("can't be understood"), std::string::npos);
  EXPECT_NE(with("ffffffff", "12345678").find("parent"), std::string::npos);
  EXPECT_NE(with("createType=\"monolithicSparse\"\n", "").find("createType once"),
            std::string::npos);
}

TEST(Inspector, LooksAtTheFooterOfAVmdkThatSaysItHasOne) {
  std::string header(512, '\0');
  Poke(&header, 0, std::string_view("KDMV\3\0\0\0\1\0\3\0\0\0\2\0", 16));
  Poke(&header, 28, std::string_view("\1\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0", 16));
  std::string footer = header;
  Poke(&header, 56, "\xff\xff\xff\xff\xff\xff\xff\xff");
  std::string descriptor =
      "createType=\"streamOptimized\"\nRW 131072 SPARSE \"disk.vmdk\"\nparentCID=ffffffff\n";
  descriptor.resize(512, '\0');
  std::string end(512, '\0');
  EXPECT_EQ(Refusal(header + descriptor + footer + end, "vmdk"), "accepted");
  // Another descriptor, or a larger disk, for those who read the footer.
  for (size_t offset : {12, 28, 36}) {
    std::string liar = footer;
    liar[offset] = static_cast<char>(liar[offset] + 1);
    EXPECT_NE(Refusal(header + descriptor + liar + end, "vmdk").find("contradicts"),
              std::string::npos);
  }
  EXPECT_NE(Refusal(header + descriptor, "vmdk").find("contradicts"), std::string::npos);
}

TEST(Tail, KeepsTheLastBytesHoweverTheyCome) {
  std::string all;
  for (int i = 0; i < 5000; ++i) all.push_back(static_cast<char>(i * 7));
  for (size_t step : {1u, 13u, 1023u, 1024u, 1025u, 4999u, 6000u}) {
    Tail tail;
    for (size_t at = 0; at < all.size(); at += step)
      tail.Feed(base::AsBytes(all).subspan(at, std::min(step, all.size() - at)));
    EXPECT_EQ(base::AsText(tail.view()), all.substr(all.size() - kTailBytes)) << step;
  }
}

}  // namespace
}  // namespace imaged::formats
