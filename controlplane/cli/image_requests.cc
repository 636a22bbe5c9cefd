#include "controlplane/cli/image_requests.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/bytes.h"
#include "base/hash.h"
#include "controlplane/cli/interrupt.h"
#include "controlplane/cli/progress.h"

namespace controlplane::cli {

using base::Code;
using base::Result;

namespace {

constexpr size_t kReadBytes = 1 * base::kMiB;

}  // namespace

Result<std::string> ImagesUrl(const ApiClient& client) {
  ASSIGN_OR_RETURN(const std::string endpoint, client.Endpoint("image"));
  return endpoint.ends_with("/v2") ? endpoint + "/images" : endpoint + "/v2/images";
}

std::string QuarryUrl(const std::string& images_url, const std::string& image_id) {
  return fmt::format("{}/quarry/images/{}", images_url.substr(0, images_url.rfind('/')), image_id);
}

bool IsNotSpoken(const base::Error& error) {
  return error.code() == Code::kNotFound || error.code() == Code::kInvalidArgument;
}

Result<std::string> DigestOfFile(const base::File& file, uint64_t size,
                                 const std::string& algorithm, const std::string& title,
                                 bool quiet) {
  ASSIGN_OR_RETURN(const auto digester, base::Digester::Create(algorithm));
  ProgressBar bar(title, ProgressBar::Unit::kBytes, quiet);
  base::Buffer buffer(kReadBytes);
  for (uint64_t offset = 0; offset < size;) {
    RETURN_IF_ERROR(CheckInterrupt());
    const uint64_t length = std::min<uint64_t>(buffer.size(), size - offset);
    RETURN_IF_ERROR(file.ReadAt(offset, buffer.view().first(length)));
    digester->Update(buffer.view().first(length));
    offset += length;
    bar.Update(offset, size);
  }
  return digester->FinishHex();
}

std::string FileName(const std::string& path) { return path.substr(path.rfind('/') + 1); }

}  // namespace controlplane::cli
