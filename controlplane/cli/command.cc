#include "controlplane/cli/command.h"

#include <algorithm>
#include <cstdio>
#include <optional>

#include <fmt/format.h>

#include "controlplane/cli/cloud_options.h"

namespace controlplane::cli {
namespace {

constexpr std::string_view kVersion = QUARRY_VERSION;  // of CMake's project()

// The longest name or synopsis of all commands: the width of its column.
size_t Longest(std::string_view Command::* column) {
  size_t longest = 0;
  for (const Command& command : Commands()) longest = std::max(longest, (command.*column).size());
  return longest;
}

std::string ExampleOf(const Command& command) {
  return fmt::format("quarry {}{}{}", command.name, command.example.empty() ? "" : " ",
                     command.example);
}

std::string Usage() {
  std::string text =
      "quarry: an image and block service: content-addressed, deduplicated, verified\n\n"
      "usage: quarry COMMAND [OPTION...] [ARGUMENT...]\n\n";
  const size_t width = Longest(&Command::name);
  for (const Command& command : Commands())
    text += fmt::format("  {:<{}}  {}\n", command.name, width, command.summary);
  text +=
      "\n`quarry COMMAND --help` lists a command's options, and has an example.\n"
      "First steps: `quarry serve --data-dir DIR`, then in another terminal\n"
      "`quarry image push FILE --data-dir DIR`.\n";
  return text;
}

bool IsGroup(std::string_view word) {
  return std::ranges::any_of(Commands(), [&](const Command& command) {
    return command.name.substr(0, command.name.find(' ')) == word &&
           command.name.size() > word.size();
  });
}

// Those that a command which is one word by itself has below it: `quarry host`.
std::string SubcommandsOf(std::string_view group) {
  std::string text;
  for (const Command& command : Commands()) {
    if (!command.name.starts_with(std::string(group) + " ")) continue;
    text += fmt::format("  quarry {:<{}}  {}\n", command.name, Longest(&Command::name),
                        command.summary);
  }
  return text;
}

// The commands that begin with one word: `quarry image`.
std::string GroupUsage(std::string_view group) {
  std::string text =
      fmt::format("usage: quarry {} SUBCOMMAND [OPTION...] [ARGUMENT...]\n\n", group);
  const size_t names = Longest(&Command::name);
  const size_t synopses = Longest(&Command::synopsis);
  std::string examples;
  for (const Command& command : Commands()) {
    if (command.name.substr(0, command.name.find(' ')) != group) continue;
    text += fmt::format("  {:<{}}  {:<{}}  {}\n", command.name, names, command.synopsis, synopses,
                        command.summary);
    examples += fmt::format("  {}\n", ExampleOf(command));
  }
  text += "\nFor example:\n" + examples;
  if (group == "cache") {
    return text +
           "\nThe cache is that of the agent (`quarry host`) whose sockets are in "
           "--socket-dir.\n";
  }
  return text +
         fmt::format("\nThe cloud is the one of --cloud, else the first that is set of:\n  {}\n",
                     kCloudElse);
}

// What there is instead of the command that the words try to name.
int UnknownCommand(const std::vector<std::string>& args) {
  const bool group = IsGroup(args[0]);
  const std::string tried = group ? args[0] + " " + args[1] : args[0];
  std::vector<std::string> names;
  for (const Command& command : Commands()) names.emplace_back(command.name);
  std::optional<std::string> closest = base::ClosestTo(tried, names);
  if (!closest.has_value() && args.size() == 1 && !group) {
    for (const std::string& name : names)
      if (name.ends_with(" " + tried)) closest = name;
  }
  fmt::print(stderr, "quarry: no command '{}'", tried);
  if (closest.has_value()) {
    fmt::print(stderr, "; did you mean `quarry {}`? `quarry --help` lists all\n", *closest);
  } else {
    fmt::print(stderr, "; `quarry {}--help` lists all\n", group ? args[0] + " " : "");
  }
  return kUsage;
}

// How many of the words a command's name takes; 0 if it is another command.
size_t WordsMatched(const Command& command, const std::vector<std::string>& args) {
  const size_t space = command.name.find(' ');
  if (args.empty() || args[0] != command.name.substr(0, space)) return 0;
  if (space == std::string_view::npos) return 1;
  return args.size() > 1 && args[1] == command.name.substr(space + 1) ? 2 : 0;
}

}  // namespace

const std::vector<Command>& Commands() {
  static const std::vector<Command> commands = {
      {"serve", "", "run the service in the foreground",
       "--data-dir /srv/quarry --listen 10.0.0.5:9696", RunServe},
      {"image push", "FILE", "upload a disk image; FILE - is standard input",
       "debian.raw --name debian-12", RunImagePush},
      {"image pull", "IMAGE FILE",
       "download what is lacking here of an image, verified; goes on where it was broken off",
       "debian-12.5 copy.raw --from debian-12.4.raw", RunImagePull},
      {"image ls", "", "list images", "--json", RunImageLs},
      {"image rm", "IMAGE...", "delete images", "debian-11 debian-12", RunImageRm},
      {"volume ls", "", "list volumes", "--cloud mycloud", RunVolumeLs},
      {"volume attach", "VOLUME", "attach a volume, and print the NBD URI to open it at", "disk-1",
       RunVolumeAttach},
      {"volume detach", "VOLUME", "cut off whoever has a volume attached", "disk-1",
       RunVolumeDetach},
      {"diff", "OLD NEW",
       "which bytes of an image or snapshot changed since another one, for incremental backups",
       "monday tuesday --json", RunDiff},
      {"host attach", "[IMAGE]",
       "on a compute host: attach an image, snapshot or volume, and print the NBD URI to open it "
       "at",
       "debian-12", RunHostAttach},
      {"host detach", "DISK", "on a compute host: cut off whoever has a disk attached", "debian-12",
       RunHostDetach},
      {"host ls", "", "on a compute host: list what is attached", "--json", RunHostLs},
      {"host", "--cache DIR --cache-size BYTES",
       "run the agent of a compute host in the foreground: disks for its guests, with a cache",
       "--cache /var/cache/quarry --cache-size 20GiB", RunHost},
      {"cache stats", "", "what the cache of this host holds, and what it saved", "--json",
       RunCacheStats},
      {"cache warm", "IMAGE [--trace]", "bring an image into the cache, before it is booted",
       "debian-12 --trace", RunCacheWarm},
      {"cache pin", "IMAGE", "keep an image in the cache, whatever else comes", "debian-12",
       RunCachePin},
      {"cache unpin", "IMAGE", "let the cache drop an image again", "debian-12", RunCacheUnpin},
      {"cache drop", "IMAGE|--all", "drop an image, or everything, from the cache", "debian-11",
       RunCacheDrop},
      {"stats", "[IMAGE]",
       "what the store holds and what deduplication saves; or one image's share",
       "debian-12 --data-dir /srv/quarry", RunStats},
      {"gc", "[--orphans]", "give back the space of what nothing refers to any more",
       "--data-dir /srv/quarry", RunGc},
      {"scrub", "[--repair]", "read and verify everything that is stored",
       "--repair --data-dir /srv/quarry", RunScrub},
      {"fsck", "--rebuild-index", "make the index again from the stored blobs alone",
       "--rebuild-index --data-dir /srv/quarry", RunFsck},
  };
  return commands;
}

int Run(const std::vector<std::string>& args) {
  if (args.empty()) {
    std::fputs(Usage().c_str(), stderr);
    return kUsage;
  }
  if (args[0] == "help" && args.size() > 1) {
    std::vector<std::string> asked(args.begin() + 1, args.end());
    asked.emplace_back("--help");
    return Run(asked);
  }
  if (args[0] == "--help" || args[0] == "-h" || args[0] == "help") {
    std::fputs(Usage().c_str(), stdout);
    return kOk;
  }
  if (args[0] == "--version" || args[0] == "version") {
    fmt::print("quarry {}\n", kVersion);
    return kOk;
  }
  for (const Command& command : Commands()) {
    const size_t words = WordsMatched(command, args);
    if (words > 0)
      return command.run(command, {args.begin() + static_cast<long>(words), args.end()});
  }
  if (IsGroup(args[0]) && (args.size() == 1 || args[1].starts_with("-") || args[1] == "help")) {
    const bool asked = args.size() > 1 && args[1] != "-";
    std::fputs(GroupUsage(args[0]).c_str(), asked ? stdout : stderr);
    return asked ? kOk : kUsage;
  }
  return UnknownCommand(args);
}

bool ParseOptions(const Command& command, base::ConfigBuilder& options,
                  const std::vector<std::string>& args, base::ConfigBuilder::Unknown unknown,
                  size_t positional_min, size_t positional_max, int* exit_code) {
  const std::string usage = fmt::format("usage: quarry {}{}{} [OPTION...]", command.name,
                                        command.synopsis.empty() ? "" : " ", command.synopsis);
  const auto refuse = [&](std::string_view why) {
    fmt::print(stderr, "quarry {0}: {1}\n{2}\n`quarry {0} --help` tells more\n", command.name, why,
               usage);
    *exit_code = kUsage;
    return false;
  };
  const base::Result<void> parsed = options.Parse(args, base::QuarryEnvironment(), unknown);
  if (!parsed.has_value()) return refuse(parsed.error().message());
  if (options.help_wanted()) {
    fmt::print("{}\n  {}\n  for example: {}\n\n{}", usage, command.summary, ExampleOf(command),
               options.HelpText());
    if (IsGroup(command.name)) fmt::print("\nMore commands:\n{}", SubcommandsOf(command.name));
    if (options.hides_some()) {
      fmt::print(
          "\nThe service's other settings may stand in the file and the environment too;\n"
          "`quarry serve --help` has them.\n");
    }
    *exit_code = kOk;
    return false;
  }
  const std::vector<std::string>& words = options.positional();
  if (words.size() > positional_max)
    return refuse(fmt::format("'{}' is one word too many", words[positional_max]));
  if (words.size() < positional_min) {
    return refuse(words.empty() ? "something is missing"
                                : fmt::format("something is missing after '{}'", words.back()));
  }
  return true;
}

int Fail(const base::Error& error) {
  fmt::print(stderr, "quarry: {}\n", error.message());
  return kFailed;
}

std::string Printable(std::string text) {
  std::ranges::replace_if(text, [](unsigned char c) { return c < 0x20 || c == 0x7f; }, '?');
  return text;
}

void PrintJson(const base::Json& value) { fmt::print("{}\n", base::ToText(value)); }

}  // namespace controlplane::cli
