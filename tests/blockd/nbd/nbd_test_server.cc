// A server without the service around it: volumes in memory, or a plain file, for real clients to
// try. Exports: "disk", "readonly" (the same bytes), and a capability of an attachment, printed.
//
//   nbd_test_server --unix PATH | --tcp HOST:PORT, --size BYTES, --file PATH, --list,
//                   --tls-cert FILE --tls-key FILE --tls-psk FILE, --iops N, --bytes-sec N
//
// Prints "port N" for TCP and "ready NAME", then runs until its standard input ends.

#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <utility>

#include <unistd.h>

#include "base/log.h"
#include "blockd/memory/memory_volume.h"
#include "blockd/nbd/attachments.h"
#include "blockd/nbd/server.h"
#include "blockd/qos/timer.h"
#include "tests/blockd/nbd/file_volume.h"

namespace blockd::nbd {
namespace {

using Options = std::map<std::string, std::string>;

std::string Of(const Options& options, const std::string& name, const std::string& otherwise = "") {
  const auto found = options.find(name);
  return found == options.end() ? otherwise : found->second;
}

// Says that the first MiB changed since the snapshot or image "before".
class FirstMiB : public ChangedBlocks {
 public:
  base::Result<void> Visit(uint64_t offset, uint64_t length, const Visitor& visit) override {
    const uint64_t border = base::kMiB;
    const uint64_t first = offset < border ? std::min(length, border - offset) : 0;
    if (first > 0 && !visit(first, true)) return {};
    if (length > first) visit(length - first, false);
    return {};
  }
};

class Exports : public ExportProvider {
 public:
  Exports(std::shared_ptr<Volume> volume, std::shared_ptr<qos::Limiter> limiter, bool list)
      : volume_(std::move(volume)), limiter_(std::move(limiter)), list_(list) {}

  base::Result<std::shared_ptr<const Export>> Open(std::string_view name) override {
    if (name != "disk" && name != "readonly") return attachments_.Open(name);
    Export made;
    made.volume_id = "disk";
    made.volume = volume_;
    made.read_only = name == "readonly";
    made.limiter = limiter_;
    made.changed_since =
        [](std::string_view snapshot) -> base::Result<std::shared_ptr<ChangedBlocks>> {
      if (snapshot != "before") return base::Error(base::Code::kNotFound, "no such snapshot");
      return std::shared_ptr<ChangedBlocks>(std::make_shared<FirstMiB>());
    };
    made.changed_since_image = made.changed_since;
    return std::make_shared<const Export>(std::move(made));
  }

  base::Result<std::vector<std::string>> List() override {
    if (!list_) return ExportProvider::List();
    return std::vector<std::string>{"disk", "readonly"};
  }

  std::string Attach() {
    Attachments::Spec spec;
    spec.volume_id = "attached";
    spec.open = [volume = volume_]() -> base::Result<Export> {
      Export made;
      made.volume = volume;
      return made;
    };
    return attachments_.Add("attachment", std::move(spec)).value();
  }

 private:
  const std::shared_ptr<Volume> volume_;
  const std::shared_ptr<qos::Limiter> limiter_;
  const bool list_;
  Attachments attachments_;
};

int Fail(const base::Error& error) {
  std::fprintf(stderr, "%s\n", error.ToString().c_str());
  return 1;
}

base::Result<std::shared_ptr<Volume>> MakeVolume(const Options& options) {
  const std::string path = Of(options, "file");
  if (!path.empty()) return OpenFileVolume(path);
  const uint64_t size = std::strtoull(Of(options, "size", "1073741824").c_str(), nullptr, 10);
  return std::shared_ptr<Volume>(std::make_shared<memory::MemoryVolume>(size));
}

base::Result<void> Listen(const Options& options, Server& server) {
  if (!Of(options, "unix").empty()) RETURN_IF_ERROR(server.ListenUnix(Of(options, "unix")));
  const std::string tcp = Of(options, "tcp");
  if (tcp.empty()) return {};
  const size_t colon = tcp.rfind(':');
  ASSIGN_OR_RETURN(const uint16_t port,
                   server.ListenTcp(tcp.substr(0, colon),
                                    static_cast<uint16_t>(std::atoi(tcp.c_str() + colon + 1))));
  std::printf("port %d\n", port);
  return {};
}

int Main(const Options& options) {
  base::SetLogLevel("warn");
  ServerSettings settings;
  TlsSettings tls{.certificate_path = Of(options, "tls-cert"),
                  .key_path = Of(options, "tls-key"),
                  .client_ca_path = "",
                  .psk_path = Of(options, "tls-psk")};
  if (!tls.certificate_path.empty() || !tls.psk_path.empty()) {
    auto context = TlsContext::Create(tls);
    if (!context.has_value()) return Fail(context.error());
    settings.tls = *context;
  }
  auto volume = MakeVolume(options);
  if (!volume.has_value()) return Fail(volume.error());
  base::Metrics metrics;
  auto timer = qos::Timer::Create();
  if (!timer.has_value()) return Fail(timer.error());
  auto limits = qos::ParseSpec({{"total_iops_sec", Of(options, "iops", "0")},
                                {"total_bytes_sec", Of(options, "bytes-sec", "0")}},
                               1);
  if (!limits.has_value()) return Fail(limits.error());
  const auto project = qos::Project::Create(base::SystemClock(), timer->get());
  auto exports = std::make_shared<Exports>(*volume, project->AddVolume("disk", *limits, &metrics),
                                           options.contains("list"));
  auto server = Server::Create(settings, exports, metrics);
  if (!server.has_value()) return Fail(server.error());
  const base::Result<void> listening = Listen(options, **server);
  if (!listening.has_value()) return Fail(listening.error());
  std::printf("ready %s\n", exports->Attach().c_str());
  std::fflush(stdout);
  char ignored[64];
  while (::read(STDIN_FILENO, ignored, sizeof(ignored)) > 0) {
  }
  return (*server)->Stop(10'000) ? 0 : 1;
}

}  // namespace
}  // namespace blockd::nbd

int main(int argc, char** argv) {
  blockd::nbd::Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word.rfind("--", 0) != 0) return 2;
    const bool flag = i + 1 == argc || std::string(argv[i + 1]).rfind("--", 0) == 0;
    options[word.substr(2)] = flag ? "" : argv[++i];
  }
  return blockd::nbd::Main(options);
}
