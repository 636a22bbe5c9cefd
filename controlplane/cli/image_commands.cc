#include <memory>

#include <fmt/format.h>

#include "controlplane/cli/cloud.h"
#include "controlplane/cli/cloud_options.h"
#include "controlplane/cli/command.h"
#include "controlplane/cli/host_copy.h"
#include "controlplane/cli/image_pull.h"
#include "controlplane/cli/image_transfer.h"
#include "controlplane/cli/interrupt.h"

namespace controlplane::cli {
namespace {

using base::Json;
using base::Result;

std::string Text(const Json& image, std::string_view key) {
  return Printable(base::FindString(image, key).value_or("-"));
}

uint64_t Number(const Json& image, std::string_view key) {
  return base::FindUint(image, key).value_or(0);
}

}  // namespace

int RunImagePush(const Command& command, const std::vector<std::string>& args) {
  base::ConfigBuilder options;
  const CloudOptions common(options);
  auto& name = options.String("name", "", "of the image; else the file's name");
  auto& disk_format = options.String(
      "disk_format", "", "raw, qcow2, vmdk, vhdx, vdi, iso; else what the file's first bytes say");
  auto& again = options.Bool("again", false,
                             "upload even if you have an image of this name and content already");
  int exit_code = kOk;
  const auto client = common.LogIn(command, options, args, 1, 1, &exit_code);
  if (client == nullptr) return exit_code;
  PushOptions push;
  push.name = *name;
  push.disk_format = *disk_format;
  push.again = *again;
  push.quiet = *common.json;
  const InterruptScope interrupts;
  const Result<Json> image = PushImage(*client, options.positional()[0], push);
  if (!image.has_value()) return ExitCodeAfterInterrupt(Fail(image.error()));
  if (*common.json) {
    PrintJson(*image);
    return kOk;
  }
  fmt::print("{}  {}  {}  {}\n", Text(*image, "id"), Text(*image, "name"),
             base::FormatBytes(Number(*image, "size")), PushSummary(*image));
  return kOk;
}

int RunImagePull(const Command& command, const std::vector<std::string>& args) {
  base::ConfigBuilder options;
  const CloudOptions common(options);
  auto& from = options.List("from", {},
                            "files here that may have some of the image's bytes (an older image): "
                            "what they have is not fetched");
  auto& force = options.Bool("force", false,
                             "take the place of a FILE that is there already; what it has of the "
                             "image is not fetched");
  auto& socket_dir = SocketDirOption(options);
  int exit_code = kOk;
  const auto client = common.LogIn(command, options, args, 2, 2, &exit_code);
  if (client == nullptr) return exit_code;
  PullOptions pull;
  pull.from = *from;
  pull.force = *force;
  pull.agent_socket_dir = *socket_dir;
  pull.agent_expected = *socket_dir != kDefaultSocketDir;
  pull.quiet = *common.json;
  const InterruptScope interrupts;
  const Result<Json> pulled =
      PullImage(*client, options.positional()[0], options.positional()[1], pull);
  if (!pulled.has_value()) return ExitCodeAfterInterrupt(Fail(pulled.error()));
  if (*common.json) {
    PrintJson(*pulled);
    return kOk;
  }
  const bool verified = base::Find(*pulled, "verified")->as_bool();
  const uint64_t resumed = Number(*pulled, "resumed_bytes");
  fmt::print(
      "{}  {}  {}  {}{}\n", Text(*pulled, "path"), base::FormatBytes(Number(*pulled, "size")),
      verified ? "verified" : "not verified: the image shows no digest", PullSummary(*pulled),
      resumed == 0 ? "" : fmt::format(" ({} had come before)", base::FormatBytes(resumed)));
  return kOk;
}

int RunImageLs(const Command& command, const std::vector<std::string>& args) {
  base::ConfigBuilder options;
  const CloudOptions common(options);
  int exit_code = kOk;
  const auto client = common.LogIn(command, options, args, 0, 0, &exit_code);
  if (client == nullptr) return exit_code;
  const Result<base::JsonArray> images = ListImages(*client);
  if (!images.has_value()) return Fail(images.error());
  if (*common.json) {
    PrintJson(*images);
    return kOk;
  }
  fmt::print("{:<36}  {:<10}  {:<6}  {:>10}  {:<9}  {}\n", "ID", "STATUS", "FORMAT", "SIZE",
             "SEEN BY", "NAME");
  for (const Json& image : *images) {
    fmt::print("{:<36}  {:<10}  {:<6}  {:>10}  {:<9}  {}\n", Text(image, "id"),
               Text(image, "status"), Text(image, "disk_format"),
               base::FormatBytes(Number(image, "size")), Text(image, "visibility"),
               Text(image, "name"));
  }
  return kOk;
}

int RunImageRm(const Command& command, const std::vector<std::string>& args) {
  base::ConfigBuilder options;
  const CloudOptions common(options);
  int exit_code = kOk;
  const auto client = common.LogIn(command, options, args, 1, 1000, &exit_code);
  if (client == nullptr) return exit_code;
  base::JsonArray removed;
  for (const std::string& name : options.positional()) {
    const Result<Json> image = FindImage(*client, name);
    if (!image.has_value()) {
      exit_code = Fail(image.error());
      continue;
    }
    const Result<void> deleted = DeleteImage(*client, Text(*image, "id"));
    if (!deleted.has_value()) {
      exit_code = Fail(deleted.error());
      continue;
    }
    removed.emplace_back(Text(*image, "id"));
    if (!*common.json) fmt::print("{}  removed\n", Text(*image, "id"));
  }
  if (*common.json) PrintJson(removed);
  return exit_code;
}

}  // namespace controlplane::cli
