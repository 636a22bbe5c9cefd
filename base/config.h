#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

// Typed options, each declared once with name, type, help and default. A value comes from the
// command line, or else the environment, or else the file, or else the default. An unknown key and
// a bad value are errors that name the key, where it stood, and what would be right.
//
// Option "identity.token_lifetime" is --identity.token-lifetime=1h on the command line ('-' and '_'
// are the same), QUARRY_IDENTITY_TOKEN_LIFETIME in the environment, and in the file
//     [identity]
//     token_lifetime = 1h
// An option marked secret is refused on the command line (others can see it) and never printed.
//
//   ConfigBuilder options;
//   auto& listen = options.String("listen", "127.0.0.1:9696", "HOST:PORT to serve on");
//   auto& cache = options.Bytes("cache.memory", 256 * kMiB, "for decoded blocks");
//   RETURN_IF_ERROR(options.Parse(args, environment));
//   Use(*listen);

namespace base {

class ConfigBuilder {
 public:
  template <typename T>
  class Option {
   public:
    const T& operator*() const { return value_; }
    const T* operator->() const { return &value_; }

   private:
    friend class ConfigBuilder;
    T value_{};
  };

  ConfigBuilder();
  ~ConfigBuilder();

  // Each returns a value that is filled in by Parse and lives as long as the builder.
  Option<std::string>& String(const std::string& name, std::string fallback,
                              const std::string& help);
  Option<std::string>& Secret(const std::string& name, const std::string& help);
  Option<std::string>& Choice(const std::string& name, std::string fallback,
                              std::vector<std::string> choices, const std::string& help);
  Option<bool>& Bool(const std::string& name, bool fallback, const std::string& help);
  Option<int64_t>& Int(const std::string& name, int64_t fallback, int64_t min, int64_t max,
                       const std::string& help);
  // "64MiB", "10G" (binary), plain bytes.
  Option<uint64_t>& Bytes(const std::string& name, uint64_t fallback, const std::string& help);
  // "250ms", "30s", "5m", "1h", "7d"; held in milliseconds.
  Option<int64_t>& DurationMs(const std::string& name, int64_t fallback_ms,
                              const std::string& help);
  Option<std::vector<std::string>>& List(const std::string& name, std::vector<std::string> fallback,
                                         const std::string& help);  // comma-separated

  // For a command that shares its file and variables with others but uses only these of the options
  // declared so far: the rest may still stand in file and environment, but the command line refuses
  // them and HelpText does not show them.
  void HideAllBut(const std::vector<std::string>& names);

  bool hides_some() const;

  // What becomes of a variable or a key of the file that no option is declared for.
  enum class Unknown { kRefuse, kIgnore };

  // Reads all sources. `args` without the program's name; what is no option is kept as
  // positional(). The file is the one named by --config or QUARRY_CONFIG, if any. Once.
  Result<void> Parse(const std::vector<std::string>& args,
                     const std::map<std::string, std::string>& environment,
                     Unknown unknown = Unknown::kRefuse);

  const std::vector<std::string>& positional() const;
  // True if the command line itself says what this option is. After Parse.
  bool OnCommandLine(const std::string& name) const;
  // True if --help stood on the command line: Parse then succeeds without looking at anything else.
  bool help_wanted() const;
  // All options that are not hidden, with types, defaults and help: in order of declaration, those
  // of one section ("store.") together below its name.
  std::string HelpText() const;
  // "name = value  # from file" a line; secrets as "***". For the log at start.
  std::string Describe() const;
  size_t option_count() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The candidate that `word` was most likely meant to be; nothing if none is near enough to offer.
std::optional<std::string> ClosestTo(std::string_view word,
                                     const std::vector<std::string>& candidates);

// The process's environment, only the QUARRY_ ones.
std::map<std::string, std::string> QuarryEnvironment();

Result<uint64_t> ParseBytes(std::string_view text);
Result<int64_t> ParseDurationMs(std::string_view text);
std::string FormatBytes(uint64_t bytes);  // "1.5 GiB"

}  // namespace base
