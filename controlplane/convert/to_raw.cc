#include "controlplane/convert/to_raw.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <unistd.h>

#include "base/http/target.h"
#include "base/metrics.h"
#include "blockd/nbd/server.h"
#include "controlplane/convert/disks.h"
#include "controlplane/convert/private_directory.h"
#include "controlplane/convert/sandbox.h"

namespace controlplane::convert {
namespace {

using base::Code;
using base::Error;
using base::Result;
using blockd::nbd::Export;

constexpr std::string_view kImageExport = "image";
constexpr std::string_view kDiskExport = "disk";
constexpr char kSocketName[] = "nbd";
constexpr size_t kServerThreads = 8;
constexpr size_t kServerConnections = 8;
constexpr int64_t kServerStopMs = 60'000;
// A chunk that is slow to be stored must not look like a broken disk.
constexpr int64_t kRequestDeadlineMs = 120'000;

// As Glance names formats, and as QEMU does.
constexpr std::array<std::pair<std::string_view, std::string_view>, 5> kFormats = {
    {{"qcow2", "qcow2"}, {"vmdk", "vmdk"}, {"vdi", "vdi"}, {"vhd", "vpc"}, {"vhdx", "vhdx"}}};

std::optional<std::string_view> QemuName(std::string_view disk_format) {
  for (const auto& [glance, qemu] : kFormats)
    if (glance == disk_format) return qemu;
  return std::nullopt;
}

// The names are no secret: only who may enter the socket's directory can ask for them.
class TwoExports : public blockd::nbd::ExportProvider {
 public:
  TwoExports(std::shared_ptr<blockd::Volume> image, std::shared_ptr<blockd::Volume> disk)
      : image_(Make(kImageExport, std::move(image), true)),
        disk_(Make(kDiskExport, std::move(disk), false)) {}

  Result<std::shared_ptr<const Export>> Open(std::string_view name) override {
    if (name == kImageExport) return image_;
    if (name == kDiskExport) return disk_;
    return Error(Code::kNotFound, "no such export");
  }

 private:
  static std::shared_ptr<const Export> Make(std::string_view name,
                                            std::shared_ptr<blockd::Volume> volume,
                                            bool read_only) {
    auto made = std::make_shared<Export>();
    made->volume_id = name;
    made->volume = std::move(volume);
    made->read_only = read_only;
    return made;
  }

  const std::shared_ptr<const Export> image_;
  const std::shared_ptr<const Export> disk_;
};

// -n: the disk is there; --target-is-zero: and zeros need not be written; without -W it is written
// in order, which IngestDisk counts on.
std::vector<std::string> Command(const std::string& qemu_img, std::string_view format) {
  const auto url = [](std::string_view name) {
    return fmt::format("nbd+unix:///{}?socket={}/{}", name, kSandboxDirectory, kSocketName);
  };
  return {qemu_img,
          "convert",
          "-n",
          "--target-is-zero",
          "-f",
          std::string(format),
          "-O",
          "raw",
          url(kImageExport),
          url(kDiskExport)};
}

Error Failed(const SandboxExit& exit) {
  std::string said = exit.output;
  for (char& c : said)
    if (static_cast<unsigned char>(c) < ' ') c = ' ';
  // It repeats what the image says, and is cut off anywhere; logs and records are UTF-8.
  if (!base::http::IsUtf8(said)) {
    std::ranges::replace_if(said, [](unsigned char c) { return c >= 0x80; }, '?');
  }
  while (said.ends_with(' ')) said.pop_back();
  return Error(Code::kInvalidArgument,
               fmt::format("the image can't be converted: {}",
                           said.empty() ? fmt::format("qemu-img ended with {}", exit.code) : said));
}

}  // namespace

bool IsConvertible(std::string_view disk_format) { return QemuName(disk_format).has_value(); }

Result<void> CheckInstalled(const Programs& programs) {
  for (const auto& [program, package] :
       {std::pair<const std::string&, std::string_view>{programs.qemu_img, "qemu-utils"},
        {programs.bwrap, "bubblewrap"},
        {programs.prlimit, "util-linux"}}) {
    if (::access(program.c_str(), X_OK) == 0) continue;
    return Error(Code::kUnavailable, fmt::format("images that are not raw are converted with {}, "
                                                 "which is not there: install the package {}",
                                                 program, package));
  }
  return {};
}

Result<void> ToRaw(const Limits& limits, const Programs& programs, std::string_view disk_format,
                   std::shared_ptr<chunkstore::Content> image, uint64_t disk_bytes,
                   std::shared_ptr<chunkstore::Ingest> disk,
                   const std::function<bool()>& cancelled) {
  const auto format = QemuName(disk_format);
  if (!format.has_value())
    return Error(Code::kInvalidArgument, fmt::format("{} is not converted", disk_format));
  if (disk_bytes > limits.max_disk_bytes) {
    return Error(Code::kTooLarge, fmt::format("the image describes a disk of {} bytes; {} is the "
                                              "most that is converted",
                                              disk_bytes, limits.max_disk_bytes));
  }
  RETURN_IF_ERROR(CheckInstalled(programs));
  const auto from = std::make_shared<ContentDisk>(std::move(image));
  const auto to = std::make_shared<IngestDisk>(std::move(disk), disk_bytes);
  ASSIGN_OR_RETURN(const auto directory, PrivateDirectory::Make());
  blockd::nbd::ServerSettings settings;
  settings.max_connections = kServerConnections;
  settings.max_handshakes = kServerConnections;
  settings.max_threads = kServerThreads;
  settings.max_threads_per_volume = kServerThreads;
  settings.request_deadline_ms = kRequestDeadlineMs;
  // What these servers count is not what attached volumes do. It outlives what a stop may leave.
  static auto& metrics = *new base::Metrics();
  ASSIGN_OR_RETURN(
      const auto server,
      blockd::nbd::Server::Create(settings, std::make_shared<TwoExports>(from, to), metrics));
  RETURN_IF_ERROR(server->ListenUnix(directory->path() + "/" + kSocketName));
  const SandboxOptions sandbox = {programs.bwrap, programs.prlimit, directory->path(),
                                  limits.memory_bytes, limits.time_ms};
  const Result<SandboxExit> exit =
      RunConfined(sandbox, Command(programs.qemu_img, *format), cancelled);
  // What hangs then has its own share of the ingest, and of the exports.
  if (!server->Stop(kServerStopMs)) return Error(Code::kIo, "the chunk store hangs");
  if (!exit.has_value()) return exit.error().Annotate("convert the image");
  if (const auto failed = from->error(); failed.has_value()) return *failed;
  RETURN_IF_ERROR(to->Finish());
  if (exit->code != 0) return Failed(*exit);
  return {};
}

}  // namespace controlplane::convert
