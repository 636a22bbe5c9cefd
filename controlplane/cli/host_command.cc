#include <cstdio>
#include <functional>
#include <optional>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "base/log.h"
#include "controlplane/cli/cloud_options.h"
#include "controlplane/cli/command.h"
#include "controlplane/cli/host_copy.h"
#include "controlplane/cli/host_services.h"
#include "controlplane/cli/interrupt.h"
#include "controlplane/cli/progress.h"
#include "controlplane/cli/stop_signals.h"
#include "controlplane/host/agent.h"

// `quarry host`: the agent of a compute host; and the commands that tell it what to do.

namespace controlplane::cli {
namespace {

using base::Code;
using base::Error;
using base::Json;
using base::JsonObject;
using base::Result;
using host::Agent;

// Below the deadline of a request of a guest.
constexpr int64_t kMaxPatienceMs = 50'000;
constexpr uint64_t kDefaultCacheBytes = 20 * base::kGiB;

// What every command to the agent can be told. Borrows the builder.
struct AgentOptions {
  explicit AgentOptions(base::ConfigBuilder& options)
      : socket_dir(SocketDirOption(options)),
        json(options.Bool("json", false, "answer in JSON on stdout, without progress")) {}

  Result<Json> Ask(const JsonObject& request, const std::string& title = {}) const {
    // Only who hears of progress can notice it.
    std::optional<InterruptScope> interrupts;
    if (!title.empty()) interrupts.emplace();
    ProgressBar bar(title, ProgressBar::Unit::kItems, *json || title.empty());
    return host::AskAgent(*socket_dir + "/" + host::kControlSocketName, request,
                          {.progress =
                               [&](uint64_t done, uint64_t total) {
                                 bar.Update(done, total, "");
                                 return CheckInterrupt().has_value();
                               },
                           .bytes = {}});
  }

  base::ConfigBuilder::Option<std::string>& socket_dir;
  base::ConfigBuilder::Option<bool>& json;
};

// What the agent itself can be told. Borrows the builder.
struct HostOptions {
  explicit HostOptions(base::ConfigBuilder& options)
      : cloud(options.String(
            "cloud", "",
            "name of a cloud in clouds.yaml; else the first of: " + std::string(kCloudElse))),
        data_dir(options.String(
            "data_dir", "", "of a service on this machine: its clouds.yaml says how to log in")),
        cache(options.String("cache", "", "directory of the cache; the agent's own")),
        cache_size(options.Bytes("cache_size", kDefaultCacheBytes,
                                 "what the cache may take on disk: it never takes more")),
        socket_dir(SocketDirOption(options)),
        metrics_listen(
            options.String("metrics_listen", "", "HOST:PORT of /metrics and /healthz; else none")),
        tables_memory(options.Bytes("tables_memory", host::Tables::kDefaultMemoryBytes,
                                    "for what the agent remembers of where blocks are")),
        patience(options.DurationMs(
            "patience", host::ImageVolume::kDefaultPatienceMs,
            "how long a guest's read waits for a service that is down before it fails; at most "
            "50s")),
        trace(options.Choice("trace", "on", {"on", "off"},
                             "record what boots read, and bring it ahead of the next boot")),
        trace_window(options.DurationMs("trace_window", 60'000,
                                        "how long after its first read a boot is recorded")),
        nbd_tls_dir(options.String(
            "nbd_tls_dir", "",
            "for volumes over nbds://: directory of ca-cert.pem, and of client-cert.pem and "
            "client-key.pem where the service wants those; else the system's CAs")),
        nbd_tls_psk(options.String("nbd_tls_psk", "", "file of keys instead, NAME:HEX a line")),
        nbd_tls_user(options.String("nbd_tls_user", "", "which of those keys")),
        log_level(options.Choice("log_level", "info", {"debug", "info", "warn", "error"},
                                 "least important lines to log, on stderr")) {}

  Result<host::AgentSettings> Settings() const {
    if (cache->empty()) {
      return Error(Code::kInvalidArgument,
                   "say where the cache is, and how large it may get: `quarry host --cache "
                   "/var/cache/quarry --cache-size 20GiB`");
    }
    if (*patience > kMaxPatienceMs) {
      return Error(Code::kInvalidArgument,
                   "--patience is 50s at most: after 60s a guest's read fails in any case");
    }
    host::AgentSettings settings;
    settings.cache_dir = *cache;
    settings.cache_bytes = *cache_size;
    settings.socket_dir = *socket_dir;
    settings.metrics_listen = *metrics_listen;
    settings.tables_bytes = *tables_memory;
    settings.images.patience_ms = *patience;
    settings.images.traces = *trace == "on";
    settings.images.trace_window_ms = *trace_window;
    settings.remote.tls_certificates_dir = *nbd_tls_dir;
    settings.remote.tls_psk_file = *nbd_tls_psk;
    settings.remote.tls_username = *nbd_tls_user;
    return settings;
  }

  base::ConfigBuilder::Option<std::string>& cloud;
  base::ConfigBuilder::Option<std::string>& data_dir;
  base::ConfigBuilder::Option<std::string>& cache;
  base::ConfigBuilder::Option<uint64_t>& cache_size;
  base::ConfigBuilder::Option<std::string>& socket_dir;
  base::ConfigBuilder::Option<std::string>& metrics_listen;
  base::ConfigBuilder::Option<uint64_t>& tables_memory;
  base::ConfigBuilder::Option<int64_t>& patience;
  base::ConfigBuilder::Option<std::string>& trace;
  base::ConfigBuilder::Option<int64_t>& trace_window;
  base::ConfigBuilder::Option<std::string>& nbd_tls_dir;
  base::ConfigBuilder::Option<std::string>& nbd_tls_psk;
  base::ConfigBuilder::Option<std::string>& nbd_tls_user;
  base::ConfigBuilder::Option<std::string>& log_level;
};

std::string Text(const Json& object, std::string_view key) {
  return Printable(base::FindString(object, key).value_or("-"));
}

std::string Bytes(const Json& object, std::string_view key) {
  return base::FormatBytes(base::FindUint(object, key).value_or(0));
}

uint64_t Number(const Json& object, std::string_view key) {
  return base::FindUint(object, key).value_or(0);
}

// The answer as JSON if that is wanted: then there is nothing more to print.
bool Answered(const Result<Json>& answer, bool json, int* exit_code) {
  if (!answer.has_value()) {
    *exit_code = ExitCodeAfterInterrupt(Fail(answer.error()));
    return true;
  }
  if (json) PrintJson(*answer);
  return json;
}

void Welcome(const Agent& agent, const std::string& socket_dir) {
  fmt::print("\nQuarry's agent serves this host; its sockets are in {}\n", socket_dir);
  if (!agent.metrics_address().empty())
    fmt::print("metrics: http://{}/metrics\n", agent.metrics_address());
  const std::string told = socket_dir == kDefaultSocketDir ? "" : " --socket-dir " + socket_dir;
  fmt::print(
      "\nTry, in another terminal:\n"
      "  quarry host attach IMAGE{0}\n"
      "  quarry cache stats{0}\n\n"
      "Ctrl-C stops it; what is attached is served again by the next one.\n\n",
      told);
  std::fflush(stdout);
}

// What takes long and is shown as it goes on; nothing for the rest.
std::string TitleOf(const JsonObject& request) {
  const std::string work(base::View(request.at("do").get_string()));
  const Json* const image = request.if_contains("image");
  if (work != "pin" && work != "warm" && work != "drop") return {};
  return image == nullptr ? work : work + " " + std::string(base::View(image->get_string()));
}

// A command to the agent, from its words to what it prints. `make_request` is called when the
// options were read; its error says how the command is used.
struct WordCount {
  size_t least = 0;
  size_t most = 0;
};
int TellAgent(const Command& command, const std::vector<std::string>& args,
              base::ConfigBuilder& options, WordCount words,
              const std::function<Result<JsonObject>()>& make_request,
              const std::function<void(const Json& answer)>& print) {
  const AgentOptions common(options);
  int exit_code = kOk;
  if (!ParseOptions(command, options, args, base::ConfigBuilder::Unknown::kIgnore, words.least,
                    words.most, &exit_code))
    return exit_code;
  const Result<JsonObject> request = make_request();
  if (!request.has_value()) {
    fmt::print(stderr, "quarry {}: {}\n", command.name, request.error().message());
    return kUsage;
  }
  const Result<Json> answer = common.Ask(*request, TitleOf(*request));
  if (!Answered(answer, *common.json, &exit_code)) print(*answer);
  return exit_code;
}

// The same for a command that is told of one image, disk or nothing, and has no options of its own.
int TellAgent(const Command& command, const std::vector<std::string>& args, const char* work,
              const char* word, const std::function<void(const Json& answer)>& print) {
  base::ConfigBuilder options;
  const size_t words = word == nullptr ? 0 : 1;
  const auto request = [&]() -> Result<JsonObject> {
    JsonObject made = {{"do", work}};
    if (word != nullptr) made.emplace(word, options.positional()[0]);
    return made;
  };
  return TellAgent(command, args, options, {words, words}, request, print);
}

void PrintDisks(const Json& disks) {
  fmt::print("{:<36}  {:<8}  {:<36}  {:<9}  {}\n", "ID", "KIND", "OF", "GUEST", "NAME");
  for (const Json& disk : disks.as_array()) {
    const std::string kind = Text(disk, "kind");
    const Json* const connected = base::Find(disk, "connected");
    fmt::print("{:<36}  {:<8}  {:<36}  {:<9}  {}\n", Text(disk, "id"), kind, Text(disk, kind),
               connected != nullptr && connected->as_bool() ? "connected" : "-",
               Text(disk, "name"));
  }
}

void PrintCacheStats(const Json& stats) {
  const auto plain = [&](std::string_view key) { return static_cast<double>(Number(stats, key)); };
  const double read =
      plain("hit_plain_bytes") + plain("ahead_plain_bytes") + plain("miss_plain_bytes");
  const auto share = [&](std::string_view key) {
    return read == 0 ? 0.0 : 100 * plain(key) / read;
  };
  fmt::print("on disk        {} of {}, {} blocks\n", Bytes(stats, "disk_bytes"),
             Bytes(stats, "limit_bytes"), Number(stats, "blocks"));
  fmt::print("pinned         {}, {} blocks\n", Bytes(stats, "pinned_bytes"),
             Number(stats, "pinned_blocks"));
  for (const Json& group : base::Find(stats, "pinned")->as_array())
    fmt::print("  {}  {}\n", Text(group, "name"), Bytes(group, "bytes"));
  fmt::print("since the start:\n");
  fmt::print(
      "read           {}, {:.1f} % of it from the cache, {:.1f} % fetched just ahead of it\n",
      base::FormatBytes(static_cast<uint64_t>(read)), share("hit_plain_bytes"),
      share("ahead_plain_bytes"));
  fmt::print("fetched        {}, {} blocks; {} of it before it was asked for\n",
             Bytes(stats, "fetched_bytes"), Number(stats, "fetched_blocks"),
             Bytes(stats, "ahead_fetched_bytes"));
  fmt::print("evicted        {} blocks; damaged {}\n", Number(stats, "evicted_blocks"),
             Number(stats, "damaged_blocks"));
  const Json* const writing = base::Find(stats, "writing");
  if (writing != nullptr && !writing->as_bool())
    fmt::print("the disk is full, or fails: nothing new is kept now\n");
}

}  // namespace

int RunHost(const Command& command, const std::vector<std::string>& args) {
  base::ConfigBuilder options;
  const HostOptions told(options);
  int exit_code = kOk;
  if (!ParseOptions(command, options, args, base::ConfigBuilder::Unknown::kIgnore, 0, 0,
                    &exit_code))
    return exit_code;
  const Result<host::AgentSettings> settings = told.Settings();
  if (!settings.has_value()) return Fail(settings.error());
  base::SetLogLevel(*told.log_level);
  const bool here = options.OnCommandLine("data_dir");
  Result<Cloud> cloud =
      FindCloud({*told.cloud, here ? *told.data_dir : "", here ? "" : *told.data_dir});
  if (!cloud.has_value()) return Fail(cloud.error());
  const StopSignals signals;
  RaiseDescriptorLimit();
  // Who reads it is at the agent's commands, which have no such options.
  cloud->otherwise =
      "the agent of this host has another when it is started with one: `quarry host "
      "--cloud NAME ...`";
  HostServices services(*std::move(cloud));
  const Result<std::unique_ptr<Agent>> agent = Agent::Start(*settings, services);
  if (!agent.has_value()) return Fail(agent.error());
  Welcome(**agent, settings->socket_dir);
  signals.Wait();
  (*agent)->Stop();
  LOG(kInfo, "host", "stopped");
  return kOk;
}

int RunHostAttach(const Command& command, const std::vector<std::string>& args) {
  base::ConfigBuilder options;
  auto& snapshot =
      options.String("snapshot", "", "a snapshot of a volume, by id or name, instead of an image");
  auto& volume =
      options.String("volume", "",
                     "a volume, by id or name, to read and write; what it has of its image is read "
                     "through the cache");
  const auto request = [&]() -> Result<JsonObject> {
    JsonObject made = {{"do", "attach"}};
    if (!options.positional().empty()) made.emplace("image", options.positional()[0]);
    if (!snapshot->empty()) made.emplace("snapshot", *snapshot);
    if (!volume->empty()) made.emplace("volume", *volume);
    if (made.size() == 2) return made;
    return Error(Code::kInvalidArgument, "name one image, or --snapshot, or --volume");
  };
  return TellAgent(command, args, options, {.most = 1}, request,
                   [](const Json& disk) { fmt::print("{}\n", Text(disk, "uri")); });
}

int RunHostDetach(const Command& command, const std::vector<std::string>& args) {
  return TellAgent(command, args, "detach", "disk", [](const Json& disk) {
    fmt::print("{}  detached from {} {}\n", Text(disk, "id"), Text(disk, "kind"),
               Text(disk, "name"));
  });
}

int RunHostLs(const Command& command, const std::vector<std::string>& args) {
  return TellAgent(command, args, "ls", nullptr, PrintDisks);
}

int RunCacheStats(const Command& command, const std::vector<std::string>& args) {
  return TellAgent(command, args, "stats", nullptr, PrintCacheStats);
}

int RunCachePin(const Command& command, const std::vector<std::string>& args) {
  return TellAgent(command, args, "pin", "image", [](const Json& pinned) {
    fmt::print("{}  pinned: what of it is here, or comes, stays; `quarry cache warm` brings it\n",
               Text(pinned, "image"));
  });
}

int RunCacheUnpin(const Command& command, const std::vector<std::string>& args) {
  return TellAgent(command, args, "unpin", "image", [](const Json& unpinned) {
    fmt::print("{}  not pinned any more\n", Text(unpinned, "image"));
  });
}

int RunCacheDrop(const Command& command, const std::vector<std::string>& args) {
  base::ConfigBuilder options;
  auto& all = options.Bool("all", false, "everything but what is pinned");
  const auto request = [&]() -> Result<JsonObject> {
    // One image by its name, or all: that must be said.
    if (*all != options.positional().empty())
      return Error(Code::kInvalidArgument, "name an image, or say --all");
    JsonObject made = {{"do", "drop"}};
    if (!*all) made.emplace("image", options.positional()[0]);
    return made;
  };
  return TellAgent(command, args, options, {.most = 1}, request, [](const Json& dropped) {
    fmt::print("dropped {}, {} blocks", Bytes(dropped, "bytes"), Number(dropped, "blocks"));
    const uint64_t pinned = Number(dropped, "pinned_blocks");
    fmt::print("{}\n", pinned == 0 ? "" : fmt::format("; {} are pinned and stay", pinned));
  });
}

int RunCacheWarm(const Command& command, const std::vector<std::string>& args) {
  base::ConfigBuilder options;
  auto& trace = options.Bool("trace", false, "only what a boot of the image reads");
  const auto request = [&]() -> Result<JsonObject> {
    return JsonObject{{"do", "warm"}, {"image", options.positional()[0]}, {"trace", *trace}};
  };
  return TellAgent(command, args, options, {1, 1}, request, [](const Json& warmed) {
    fmt::print("{}  is here now; fetched {}\n", Text(warmed, "image"),
               Bytes(warmed, "fetched_bytes"));
  });
}

}  // namespace controlplane::cli
