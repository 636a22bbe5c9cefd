#include "controlplane/cli/command.h"

#include <algorithm>
#include <cstdio>

#include <fmt/format.h>

namespace controlplane::cli {
namespace {

constexpr std::string_view kVersion = "0.1.0";

std::string Usage() {
  std::string text =
      "quarry: an image and block service: content-addressed, deduplicated, verified\n\n"
      "usage: quarry COMMAND [OPTION...] [ARGUMENT...]\n\n";
  for (const Command& command : Commands()) {
    text += fmt::format("  {:<12} {}\n", command.name, command.summary);
  }
  text +=
      "\n`quarry COMMAND --help` lists a command's options.\n"
      "First steps: `quarry serve --data-dir DIR`, then `quarry image push FILE --data-dir DIR`.\n";
  return text;
}

// How many of the words a command's name takes; 0 if it is another command.
size_t WordsMatched(const Command& command, const std::vector<std::string>& args) {
  const size_t space = command.name.find(' ');
  if (args.empty() || args[0] != command.name.substr(0, space)) return 0;
  if (space == std::string_view::npos) return 1;
  return args.size() > 1 && args[1] == command.name.substr(space + 1) ? 2 : 0;
}

std::map<std::string, std::string> EnvironmentFor(const base::ConfigBuilder& options, bool whole) {
  std::map<std::string, std::string> environment = base::QuarryEnvironment();
  if (whole) return environment;
  const std::string help = options.HelpText();
  std::erase_if(environment, [&help](const auto& variable) {
    std::string option = variable.first.substr(std::string_view("QUARRY_").size());
    std::ranges::transform(option, option.begin(),
                           [](unsigned char c) { return c == '_' ? '-' : std::tolower(c); });
    return help.find("--" + option) == std::string::npos;
  });
  return environment;
}

}  // namespace

const std::vector<Command>& Commands() {
  static const std::vector<Command> commands = {
      {"serve", "[OPTION...]", "run the service in the foreground", RunServe},
      {"image push", "FILE", "upload a disk image", RunImagePush},
      {"image pull", "IMAGE FILE", "download an image, verified; goes on where it was broken off",
       RunImagePull},
      {"image ls", "", "list images", RunImageLs},
      {"image rm", "IMAGE...", "delete images", RunImageRm},
      {"stats", "[IMAGE]",
       "what the store holds and what deduplication saves; or one image's share", RunStats},
      {"gc", "[--orphans]", "give back the space of what nothing refers to any more", RunGc},
      {"scrub", "[--repair]", "read and verify everything that is stored", RunScrub},
      {"fsck", "--rebuild-index", "make the index again from the stored blobs alone", RunFsck},
  };
  return commands;
}

int Run(const std::vector<std::string>& args) {
  if (args.empty()) {
    std::fputs(Usage().c_str(), stderr);
    return kUsage;
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
  fmt::print(stderr, "quarry: no command '{}'\n\n{}", args[0], Usage());
  return kUsage;
}

bool ParseOptions(const Command& command, base::ConfigBuilder& options,
                  const std::vector<std::string>& args, bool whole_environment,
                  size_t positional_min, size_t positional_max, int* exit_code) {
  const std::string usage = fmt::format("usage: quarry {} {}", command.name, command.synopsis);
  const base::Result<void> parsed = options.Parse(args, EnvironmentFor(options, whole_environment));
  if (!parsed.has_value()) {
    fmt::print(stderr, "quarry {}: {}\n{}\n", command.name, parsed.error().message(), usage);
    *exit_code = kUsage;
    return false;
  }
  if (options.help_wanted()) {
    fmt::print("{}\n  {}\n\n{}", usage, command.summary, options.HelpText());
    *exit_code = kOk;
    return false;
  }
  const size_t words = options.positional().size();
  if (words < positional_min || words > positional_max) {
    fmt::print(stderr, "{}\n`quarry {} --help` tells more\n", usage, command.name);
    *exit_code = kUsage;
    return false;
  }
  return true;
}

int Fail(const base::Error& error) {
  fmt::print(stderr, "quarry: {}\n", error.message());
  return kFailed;
}

void PrintJson(const base::Json& value) { fmt::print("{}\n", base::ToText(value)); }

}  // namespace controlplane::cli
