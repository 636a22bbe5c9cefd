#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/config.h"
#include "base/json.h"
#include "base/result.h"

// The commands of `quarry`. Each declares its options, so that `quarry COMMAND --help` teaches all
// of them, and answers with an exit code:
//   0  done
//   1  failed; stderr says why and what to do
//   2  the command line is wrong
//   3  done, and something is wrong with the data (scrub, fsck)

namespace controlplane::cli {

enum ExitCode { kOk = 0, kFailed = 1, kUsage = 2, kFindings = 3 };

struct Command {
  std::string_view name;      // "gc", "image push"
  std::string_view synopsis;  // "[--orphans]"
  std::string_view summary;   // one line
  std::string_view example;   // the arguments of a typical call
  int (*run)(const Command& command, const std::vector<std::string>& args);
};

// In the order in which help shows them.
const std::vector<Command>& Commands();

// Finds the command that the words begin with and runs it.
int Run(const std::vector<std::string>& args);

// Parses, and deals with --help and with mistakes: true to go on, or else *exit_code is the answer.
// Commands that declare the service's settings refuse what they do not know in its file and its
// variables; the others (Unknown::kIgnore) read only what they have options for.
// `positional_max`: how many words besides options are fine.
bool ParseOptions(const Command& command, base::ConfigBuilder& options,
                  const std::vector<std::string>& args, base::ConfigBuilder::Unknown unknown,
                  size_t positional_min, size_t positional_max, int* exit_code);

// Prints "quarry: ..." to stderr; the code to exit with.
int Fail(const base::Error& error);

// For a terminal: names come from other people, and what could move the cursor or colour the screen
// is shown as '?'.
std::string Printable(std::string text);

// One JSON value and a newline to stdout.
void PrintJson(const base::Json& value);

// The commands, by the file they are in.
int RunServe(const Command& command, const std::vector<std::string>& args);  // serve.cc
int RunGc(const Command& command, const std::vector<std::string>& args);     // store_commands.cc
int RunScrub(const Command& command, const std::vector<std::string>& args);
int RunFsck(const Command& command, const std::vector<std::string>& args);
int RunStats(const Command& command, const std::vector<std::string>& args);
int RunImagePush(const Command& command,
                 const std::vector<std::string>& args);  // image_commands.cc
int RunImagePull(const Command& command, const std::vector<std::string>& args);
int RunImageLs(const Command& command, const std::vector<std::string>& args);
int RunImageRm(const Command& command, const std::vector<std::string>& args);
int RunVolumeLs(const Command& command,
                const std::vector<std::string>& args);  // volume_commands.cc
int RunVolumeAttach(const Command& command, const std::vector<std::string>& args);
int RunVolumeDetach(const Command& command, const std::vector<std::string>& args);
int RunHost(const Command& command, const std::vector<std::string>& args);  // host_command.cc
int RunHostAttach(const Command& command, const std::vector<std::string>& args);
int RunHostDetach(const Command& command, const std::vector<std::string>& args);
int RunHostLs(const Command& command, const std::vector<std::string>& args);
int RunCacheStats(const Command& command, const std::vector<std::string>& args);
int RunCachePin(const Command& command, const std::vector<std::string>& args);
int RunCacheUnpin(const Command& command, const std::vector<std::string>& args);
int RunCacheDrop(const Command& command, const std::vector<std::string>& args);
int RunCacheWarm(const Command& command, const std::vector<std::string>& args);
int RunDiff(const Command& command, const std::vector<std::string>& args);  // diff_command.cc

}  // namespace controlplane::cli
