#include "controlplane/credentials.h"

#include <array>

#include <fmt/format.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/coding.h"
#include "base/files.h"
#include "base/hash.h"
#include "base/log.h"

namespace controlplane {
namespace {

constexpr uint64_t kMaxFileBytes = 64 * base::kKiB;
constexpr std::string_view kPasswordKey = "password: ";
constexpr size_t kPasswordRandomBytes = 24;
constexpr int kPrivate = 0600;

}  // namespace

// We read only what we wrote: a line "password: ..." in our own form. Who edits the file by hand
// keeps that line.
base::Result<std::optional<std::string>> ReadAdminPassword(const std::string& data_dir) {
  const std::string path = data_dir + "/clouds.yaml";
  base::Result<std::string> text = base::ReadWholeFile(path, kMaxFileBytes);
  if (!text.has_value()) {
    if (text.error().code() == base::Code::kNotFound) return std::optional<std::string>();
    return text.error();
  }
  const size_t key = text->find(kPasswordKey);
  if (key == std::string::npos) {
    return base::Error(base::Code::kInvalidArgument,
                       path + " has no password; remove the file to get a new one");
  }
  const size_t begin = key + kPasswordKey.size();
  std::string password = text->substr(begin, text->find_first_of("\r\n ", begin) - begin);
  return std::optional<std::string>(std::move(password));
}

std::string NewPassword() { return base::ToBase64Url(base::RandomBytes(kPasswordRandomBytes)); }

base::Result<void> WriteCredentials(const std::string& data_dir, const std::string& public_url,
                                    const std::string& region, const std::string& password) {
  const std::string clouds = fmt::format(
      "# Made by `quarry serve`. Use it with: export OS_CLIENT_CONFIG_FILE=THIS_FILE "
      "OS_CLOUD=quarry\n"
      "# Remove it to get a new admin password at the next start.\n"
      "clouds:\n"
      "  quarry:\n"
      "    auth:\n"
      "      auth_url: {}/identity/v3\n"
      "      username: admin\n"
      "      password: {}\n"
      "      project_name: admin\n"
      "      user_domain_name: Default\n"
      "      project_domain_name: Default\n"
      "    region_name: {}\n"
      "    identity_api_version: 3\n",
      public_url, password, region);
  return base::WriteFileDurably(data_dir + "/clouds.yaml", clouds, kPrivate);
}

base::Result<void> WriteEndpoint(const std::string& data_dir, const std::string& base_url) {
  return base::WriteFileDurably(data_dir + "/endpoint", base_url + "\n");
}

void RemoveEndpoint(const std::string& data_dir) {
  const base::Result<void> removed = base::SystemFiles().Remove(data_dir + "/endpoint");
  if (!removed.has_value() && removed.error().code() != base::Code::kNotFound) {
    LOG(kWarn, "quarry", "{}", removed.error().ToString());
  }
}

base::Error ExplainDenied(base::Error error, const std::string& data_dir) {
  struct stat info{};
  if (error.code() != base::Code::kIo || geteuid() == 0) return error;
  if (stat(data_dir.c_str(), &info) != 0 || info.st_uid == geteuid()) return error;
  passwd entry{};
  passwd* found = nullptr;
  std::array<char, 4096> buffer{};
  getpwuid_r(info.st_uid, &entry, buffer.data(), buffer.size(), &found);
  const std::string owner =
      found != nullptr ? std::string(found->pw_name) : fmt::format("#{}", info.st_uid);
  return base::Error(
      base::Code::kPermissionDenied,
      fmt::format(
          "{0}: {1} belongs to user {2}. Run this as that user (sudo -u '{2}' ...), or name "
          "a directory of your own with --data-dir",
          error.message(), data_dir, owner));
}

}  // namespace controlplane
