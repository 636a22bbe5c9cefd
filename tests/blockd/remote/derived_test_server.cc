// What a compute host serves, without the agent around it: a volume that another NBD server has,
// and that is read, as far as it did not change, from an image in a plain file.
//
//   derived_test_server --uri URI --unix PATH, --image ID --origin FILE, --connections N,
//                       --reconnect-ms N
//
// Without an image all is the other server's. Prints "ready"; a line "counts" on its standard input
// is answered with the bytes read from either side and how often the image failed; ends with it.

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "base/log.h"
#include "blockd/nbd/server.h"
#include "blockd/remote/derived_volume.h"
#include "tests/blockd/nbd/file_volume.h"

namespace blockd::remote {
namespace {

using Options = std::map<std::string, std::string>;

std::string Of(const Options& options, const std::string& name, const std::string& otherwise = "") {
  const auto found = options.find(name);
  return found == options.end() ? otherwise : found->second;
}

class OneExport : public nbd::ExportProvider {
 public:
  explicit OneExport(std::shared_ptr<Volume> volume) : volume_(std::move(volume)) {}
  base::Result<std::shared_ptr<const nbd::Export>> Open(std::string_view name) override {
    if (name != "disk") return base::Error(base::Code::kNotFound, "no such export");
    nbd::Export made;
    made.volume_id = "disk";
    made.volume = volume_;
    return std::make_shared<const nbd::Export>(std::move(made));
  }

 private:
  const std::shared_ptr<Volume> volume_;
};

int Fail(const base::Error& error) {
  std::fprintf(stderr, "%s\n", error.ToString().c_str());
  return 1;
}

base::Result<std::shared_ptr<Volume>> OpenVolume(const Options& options,
                                                 std::shared_ptr<DerivedVolume>* derived) {
  RemoteSettings settings;
  settings.uri = Of(options, "uri");
  settings.connections = std::strtoul(Of(options, "connections", "4").c_str(), nullptr, 10);
  settings.reconnect_ms = std::strtol(Of(options, "reconnect-ms", "60000").c_str(), nullptr, 10);
  const std::string image = Of(options, "image");
  if (!image.empty()) settings.context = ChangedSinceImage(image);
  ASSIGN_OR_RETURN(std::shared_ptr<RemoteVolume> remote, RemoteVolume::Open(settings));
  if (image.empty()) return std::shared_ptr<Volume>(std::move(remote));
  ASSIGN_OR_RETURN(auto origin, nbd::OpenFileVolume(Of(options, "origin")));
  ASSIGN_OR_RETURN(*derived, DerivedVolume::Open(std::move(origin), std::move(remote)));
  return std::shared_ptr<Volume>(*derived);
}

int Main(const Options& options) {
  base::SetLogLevel("warn");
  std::shared_ptr<DerivedVolume> derived;
  auto volume = OpenVolume(options, &derived);
  if (!volume.has_value()) return Fail(volume.error());
  base::Metrics metrics;
  nbd::ServerSettings settings;
  settings.request_deadline_ms = 120'000;  // longer than the volume may wait for its server
  settings.max_threads_per_volume = 64;
  auto server = nbd::Server::Create(settings, std::make_shared<OneExport>(*volume), metrics);
  if (!server.has_value()) return Fail(server.error());
  const base::Result<void> listening = (*server)->ListenUnix(Of(options, "unix"));
  if (!listening.has_value()) return Fail(listening.error());
  std::printf("ready\n");
  std::fflush(stdout);
  for (std::string line; std::getline(std::cin, line);) {
    const DerivedVolume::Counts counts =
        derived != nullptr ? derived->counts() : DerivedVolume::Counts{};
    std::printf("%llu %llu %llu\n", static_cast<unsigned long long>(counts.origin_bytes),
                static_cast<unsigned long long>(counts.remote_bytes),
                static_cast<unsigned long long>(counts.failed_over));
    std::fflush(stdout);
  }
  return (*server)->Stop(10'000) ? 0 : 1;
}

}  // namespace
}  // namespace blockd::remote

int main(int argc, char** argv) {
  blockd::remote::Options options;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string word = argv[i];
    if (word.rfind("--", 0) != 0) return 2;
    options[word.substr(2)] = argv[i + 1];
  }
  return blockd::remote::Main(options);
}
