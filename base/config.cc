#include "base/config.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <functional>
#include <set>
#include <utility>

#include <boost/program_options/errors.hpp>
#include <boost/program_options/options_description.hpp>
#include <boost/program_options/parsers.hpp>
#include <fmt/format.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/files.h"
#include "base/text.h"

namespace base {
namespace {

namespace po = boost::program_options;

constexpr uint64_t kMaxConfigFileBytes = kMiB;
constexpr std::string_view kEnvironmentPrefix = "QUARRY_";
constexpr size_t kHelpColumns = 80;
constexpr char kCommandLine[] = "command line";
constexpr std::string_view kBlanks = " \t\r";

// A value as it stood somewhere, not yet parsed.
struct RawValue {
  std::string key;
  std::string text;
  std::string source;  // kCommandLine, "environment QUARRY_LISTEN", "/etc/quarry.conf:12"
};

std::string Canonical(std::string key) {
  std::replace(key.begin(), key.end(), '-', '_');
  return key;
}

std::string EnvironmentName(const std::string& key) {
  std::string name(kEnvironmentPrefix);
  for (char c : key) name += c == '.' ? '_' : static_cast<char>(c >= 'a' && c <= 'z' ? c - 32 : c);
  return name;
}

std::string FlagName(std::string key) {
  std::replace(key.begin(), key.end(), '_', '-');
  return "--" + key;
}

// The words of a help text in lines of kHelpColumns.
std::string Wrapped(std::string_view text) {
  constexpr std::string_view kIndent = "      ";
  std::string lines(kIndent);
  for (size_t column = kIndent.size(); !text.empty();) {
    const std::string_view word = text.substr(0, text.find(' '));
    text.remove_prefix(std::min(word.size() + 1, text.size()));
    if (column > kIndent.size() && column + 1 + word.size() > kHelpColumns) {
      lines.append("\n").append(kIndent);
      column = kIndent.size();
    }
    const bool first = column == kIndent.size();
    lines.append(first ? "" : " ").append(word);
    column += word.size() + (first ? 0 : 1);
  }
  return lines + '\n';
}

std::string_view SectionOf(std::string_view name) {
  return name.substr(0, name.find('.') == std::string_view::npos ? 0 : name.find('.'));
}

// The file's own syntax is read here because Boost's reader cuts a value at '#' without a word, and
// a password may well hold one.
Result<std::vector<RawValue>> ReadConfigText(std::string_view text, const std::string& path) {
  std::vector<RawValue> values;
  std::string section;
  for (int line_number = 1; !text.empty(); ++line_number) {
    size_t end = text.find('\n');
    std::string_view line = Trim(text.substr(0, end), kBlanks);
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
    std::string source = fmt::format("{}:{}", path, line_number);
    if (line.empty() || line.front() == '#') continue;
    if (line.front() == '[' && line.back() == ']') {
      section = std::string(Trim(line.substr(1, line.size() - 2), kBlanks));
      continue;
    }
    size_t equals = line.find('=');
    if (equals == std::string_view::npos) {
      return Error(
          Code::kInvalidArgument,
          source + ": expected '[section]', 'name = value' or a line that begins with '#'");
    }
    std::string name(Trim(line.substr(0, equals), kBlanks));
    if (!section.empty()) name = section + "." + name;
    values.push_back(
        {Canonical(name), std::string(Trim(line.substr(equals + 1), kBlanks)), source});
  }
  return values;
}

struct CommandLine {
  std::vector<RawValue> values;
  std::vector<std::string> positional;
};

// '-' and '_' are the same in a name, not in what follows '='. A flag alone is made to say "=true"
// here: Boost would take the next word for its value.
std::string CanonicalArgument(const std::string& argument, const std::set<std::string>& flags) {
  if (!argument.starts_with("--")) return argument;
  size_t equals = std::min(argument.find('='), argument.size());
  std::string name = Canonical(argument.substr(2, equals - 2));
  std::string value = argument.substr(equals);
  if (value.empty() && flags.contains(name)) value = "=true";
  return "--" + name + value;
}

Result<CommandLine> ReadCommandLine(const std::vector<std::string>& args,
                                    const po::options_description& known,
                                    const std::set<std::string>& flags) {
  auto options_end = std::find(args.begin(), args.end(), "--");
  std::vector<std::string> canonical;
  for (auto argument = args.begin(); argument != options_end; ++argument)
    canonical.push_back(CanonicalArgument(*argument, flags));
  CommandLine found;
  try {
    using Style = po::command_line_style::style_t;
    int style = Style::allow_long | Style::long_allow_adjacent | Style::long_allow_next;
    po::command_line_parser parser(canonical);
    parser.options(known).style(style).allow_unregistered();
    for (const po::option& option : parser.run().options) {
      if (option.position_key < 0) {
        std::string text = option.value.empty() ? std::string() : option.value.front();
        found.values.push_back({option.string_key, text, kCommandLine});
        continue;
      }
      const std::string& word = option.value.front();
      if (word.size() > 1 && word.front() == '-') {
        return Error(Code::kInvalidArgument, "unknown option '" + word + "'; --help lists all");
      }
      found.positional.push_back(word);
    }
  } catch (const po::invalid_command_line_syntax& error) {
    return Error(Code::kInvalidArgument,
                 fmt::format("{} needs a value", FlagName(error.get_option_name().substr(2))));
  } catch (const po::error& error) {
    return Error(Code::kInvalidArgument, std::string("command line: ") + error.what());
  }
  if (options_end != args.end())
    found.positional.insert(found.positional.end(), options_end + 1, args.end());
  return found;
}

bool WantsHelp(const std::vector<std::string>& args) {
  auto end = std::find(args.begin(), args.end(), "--");
  return std::find(args.begin(), end, "--help") != end || std::find(args.begin(), end, "-h") != end;
}

std::string Join(const std::vector<std::string>& parts, std::string_view separator) {
  return fmt::format("{}", fmt::join(parts, separator));
}

Result<std::string> ParseString(std::string_view text) { return std::string(text); }

Result<bool> ParseBool(std::string_view text) {
  if (text == "true" || text == "yes" || text == "on" || text == "1") return true;
  if (text == "false" || text == "no" || text == "off" || text == "0") return false;
  return Error(Code::kInvalidArgument, fmt::format("'{}' is neither true nor false", text));
}

Result<int64_t> ParseInt(std::string_view text, int64_t min, int64_t max) {
  const std::optional<int64_t> value = ParseNumber<int64_t>(text);
  if (!value.has_value() || *value < min || *value > max) {
    return Error(Code::kInvalidArgument,
                 fmt::format("'{}' is no whole number from {} to {}", text, min, max));
  }
  return *value;
}

std::vector<std::string> SplitList(std::string_view text) {
  std::vector<std::string> parts;
  while (!text.empty()) {
    size_t comma = text.find(',');
    std::string_view part = Trim(text.substr(0, comma), kBlanks);
    if (!part.empty()) parts.emplace_back(part);
    text = comma == std::string_view::npos ? std::string_view() : text.substr(comma + 1);
  }
  return parts;
}

struct Unit {
  std::string_view suffix;
  uint64_t factor;
};

// "12" followed by one of the units, as a number of the smallest; nothing if it is not that, or too
// large.
std::optional<uint64_t> ParseWithUnit(std::string_view text, std::span<const Unit> units) {
  uint64_t count = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
  if (error != std::errc()) return std::nullopt;
  std::string_view suffix = Trim(text.substr(static_cast<size_t>(end - text.data())), kBlanks);
  for (const Unit& unit : units) {
    if (suffix != unit.suffix) continue;
    uint64_t value = 0;
    if (__builtin_mul_overflow(count, unit.factor, &value)) return std::nullopt;
    return value;
  }
  return std::nullopt;
}

constexpr std::array<Unit, 10> kByteUnits = {{{"", 1},
                                              {"B", 1},
                                              {"K", kKiB},
                                              {"KiB", kKiB},
                                              {"M", kMiB},
                                              {"MiB", kMiB},
                                              {"G", kGiB},
                                              {"GiB", kGiB},
                                              {"T", kTiB},
                                              {"TiB", kTiB}}};
constexpr std::array<Unit, 5> kDurationUnits = {
    {{"ms", 1}, {"s", 1000}, {"m", 60'000}, {"h", 3'600'000}, {"d", 86'400'000}}};

// The largest unit that says it exactly: what ParseDurationMs reads back.
std::string ShowDuration(int64_t duration_ms) {
  for (size_t i = kDurationUnits.size(); i-- > 0;) {
    auto factor = static_cast<int64_t>(kDurationUnits[i].factor);
    if (duration_ms != 0 && duration_ms % factor == 0)
      return fmt::format("{}{}", duration_ms / factor, kDurationUnits[i].suffix);
  }
  return "0s";
}

// Likewise for ParseBytes: a setting is shown exactly, not rounded as FormatBytes does.
std::string ShowBytes(uint64_t bytes) {
  for (size_t i = kByteUnits.size() - 1; i > 1; i -= 2) {
    if (bytes != 0 && bytes % kByteUnits[i].factor == 0)
      return fmt::format("{}{}", bytes / kByteUnits[i].factor, kByteUnits[i].suffix);
  }
  return fmt::format("{}", bytes);
}

}  // namespace

struct ConfigBuilder::Impl {
  struct Entry {
    std::string name;
    std::string type;
    std::string help;
    std::string fallback;
    bool secret = false;
    bool flag = false;    // may stand without a value
    bool hidden = false;  // not for this command
    std::string source = "default";
    std::shared_ptr<void> option;
    std::function<Result<void>(std::string_view)> set;
    std::function<std::string()> show;

    std::string HelpText() const {
      std::string text =
          secret ? fmt::format("  {} (environment or file only)\n", EnvironmentName(name))
                 : fmt::format("  {}{}\n", FlagName(name), flag ? "" : "=" + type);
      const bool shown = !fallback.empty() && fallback != "false";
      return text + Wrapped(shown ? fmt::format("{} [default: {}]", help, fallback) : help);
    }
  };

  std::vector<Entry> entries;
  std::vector<std::string> positional;
  bool help_wanted = false;
  bool parsed = false;

  // `parse` turns text into a T, `show` a T into text that parses to the same.
  template <typename T, typename Parse, typename Show>
  Option<T>& Declare(Entry entry, T fallback, Parse parse, Show show) {
    CHECK(!parsed);
    CHECK(FindEntry(entry.name) == nullptr);
    auto option = std::make_shared<Option<T>>();
    entry.fallback = show(fallback);
    option->value_ = std::move(fallback);
    entry.set = [option = option.get(), parse](std::string_view text) -> Result<void> {
      ASSIGN_OR_RETURN(option->value_, parse(text));
      return {};
    };
    entry.show = [option = option.get(), show] { return show(option->value_); };
    entry.option = option;
    entries.push_back(std::move(entry));
    return *option;
  }

  Entry* FindEntry(const std::string& name) {
    for (Entry& entry : entries)
      if (entry.name == name) return &entry;
    return nullptr;
  }

  // ", did you mean 'name'" in the form that `form` gives to a name; or nothing.
  template <typename Form>
  std::string Guess(const std::string& word, Form form) const {
    std::vector<std::string> candidates;
    for (const Entry& entry : entries)
      if (!entry.hidden) candidates.push_back(form(entry.name));
    const std::optional<std::string> closest = ClosestTo(word, candidates);
    return closest.has_value() ? fmt::format("; did you mean '{}'?", *closest) : ";";
  }

  Error UnknownKey(const std::string& key, const std::string& source) const {
    // In the form in which it stands there.
    const bool flag = source == kCommandLine;
    const auto form = [flag](const std::string& name) { return flag ? FlagName(name) : name; };
    return Error(Code::kInvalidArgument, fmt::format("unknown option '{}' ({}){} --help lists all",
                                                     form(key), source, Guess(form(key), form)));
  }

  Result<void> Apply(const RawValue& raw) {
    Entry* entry = FindEntry(raw.key);
    if (entry == nullptr) return UnknownKey(raw.key, raw.source);
    Result<void> set = entry->set(raw.text);
    if (!set.has_value())
      return set.error().Annotate(fmt::format("option '{}' ({})", raw.key, raw.source));
    entry->source = raw.source;
    return {};
  }

  Result<void> ApplyFile(const std::string& path, Unknown unknown) {
    ASSIGN_OR_RETURN(std::string text, ReadWholeFile(path, kMaxConfigFileBytes));
    ASSIGN_OR_RETURN(std::vector<RawValue> values, ReadConfigText(text, path));
    std::map<std::string, std::string> seen;
    for (const RawValue& raw : values) {
      if (raw.key == "config") {
        return Error(Code::kInvalidArgument,
                     raw.source + ": a configuration file can't name another with 'config'");
      }
      auto [first, fresh] = seen.emplace(raw.key, raw.source);
      if (!fresh) {
        return Error(Code::kInvalidArgument,
                     fmt::format("option '{}' stands twice: {} and {}; remove one", raw.key,
                                 first->second, raw.source));
      }
      if (unknown == Unknown::kIgnore && FindEntry(raw.key) == nullptr) continue;
      RETURN_IF_ERROR(Apply(raw));
    }
    return {};
  }

  Result<std::vector<RawValue>> ReadEnvironment(
      const std::map<std::string, std::string>& environment, Unknown unknown) const {
    std::map<std::string, std::string> keys;  // by the variable's name
    for (const Entry& entry : entries) keys[EnvironmentName(entry.name)] = entry.name;
    std::vector<RawValue> values;
    for (const auto& [name, text] : environment) {
      if (!name.starts_with(kEnvironmentPrefix)) continue;
      auto key = keys.find(name);
      if (key == keys.end() && unknown == Unknown::kIgnore) continue;
      if (key == keys.end()) {
        return Error(Code::kInvalidArgument,
                     fmt::format("unknown option '{}' in the environment{} --help lists all", name,
                                 Guess(name, EnvironmentName)));
      }
      values.push_back({key->second, text, "environment " + name});
    }
    return values;
  }

  Result<CommandLine> ParseCommandLine(const std::vector<std::string>& args) {
    po::options_description known;
    std::set<std::string> flags;
    for (const Entry& entry : entries) {
      known.add_options()(entry.name.c_str(), po::value<std::string>());
      if (entry.flag) flags.insert(entry.name);
    }
    ASSIGN_OR_RETURN(CommandLine found, ReadCommandLine(args, known, flags));
    for (const RawValue& raw : found.values) {
      const Entry* entry = FindEntry(raw.key);
      if (entry != nullptr && entry->hidden) {
        return Error(Code::kInvalidArgument,
                     fmt::format("'{}' is a setting that this command has no use for; --help lists "
                                 "those it has",
                                 FlagName(raw.key)));
      }
      if (entry == nullptr || !entry->secret) continue;
      return Error(Code::kInvalidArgument,
                   fmt::format("option '{}' is a secret, and other users of this machine can see a "
                               "command line: set {} or write it into the configuration file",
                               raw.key, EnvironmentName(raw.key)));
    }
    return found;
  }
};

ConfigBuilder::ConfigBuilder() : impl_(std::make_unique<Impl>()) {
  String("config", "", "file to read options from");
}

ConfigBuilder::~ConfigBuilder() = default;

ConfigBuilder::Option<std::string>& ConfigBuilder::String(const std::string& name,
                                                          std::string fallback,
                                                          const std::string& help) {
  return impl_->Declare({.name = name, .type = "TEXT", .help = help}, std::move(fallback),
                        ParseString, [](const std::string& value) { return value; });
}

ConfigBuilder::Option<std::string>& ConfigBuilder::Secret(const std::string& name,
                                                          const std::string& help) {
  return impl_->Declare({.name = name, .type = "SECRET", .help = help, .secret = true},
                        std::string(), ParseString,
                        [](const std::string& value) { return value.empty() ? "" : "***"; });
}

ConfigBuilder::Option<std::string>& ConfigBuilder::Choice(const std::string& name,
                                                          std::string fallback,
                                                          std::vector<std::string> choices,
                                                          const std::string& help) {
  auto parse = [choices](std::string_view text) -> Result<std::string> {
    for (const std::string& choice : choices)
      if (choice == text) return choice;
    return Error(Code::kInvalidArgument,
                 fmt::format("'{}' is none of {}", text, Join(choices, ", ")));
  };
  CHECK(parse(fallback).has_value());
  return impl_->Declare({.name = name, .type = Join(choices, "|"), .help = help},
                        std::move(fallback), parse, [](const std::string& value) { return value; });
}

ConfigBuilder::Option<bool>& ConfigBuilder::Bool(const std::string& name, bool fallback,
                                                 const std::string& help) {
  return impl_->Declare({.name = name, .type = "true|false", .help = help, .flag = true}, fallback,
                        ParseBool,
                        [](bool value) -> std::string { return value ? "true" : "false"; });
}

ConfigBuilder::Option<int64_t>& ConfigBuilder::Int(const std::string& name, int64_t fallback,
                                                   int64_t min, int64_t max,
                                                   const std::string& help) {
  CHECK(min <= fallback && fallback <= max);
  auto parse = [min, max](std::string_view text) { return ParseInt(text, min, max); };
  return impl_->Declare({.name = name, .type = fmt::format("{}..{}", min, max), .help = help},
                        fallback, parse, [](int64_t value) { return std::to_string(value); });
}

ConfigBuilder::Option<uint64_t>& ConfigBuilder::Bytes(const std::string& name, uint64_t fallback,
                                                      const std::string& help) {
  return impl_->Declare({.name = name, .type = "BYTES", .help = help}, fallback, ParseBytes,
                        ShowBytes);
}

ConfigBuilder::Option<int64_t>& ConfigBuilder::DurationMs(const std::string& name,
                                                          int64_t fallback_ms,
                                                          const std::string& help) {
  return impl_->Declare({.name = name, .type = "DURATION", .help = help}, fallback_ms,
                        ParseDurationMs, ShowDuration);
}

ConfigBuilder::Option<std::vector<std::string>>& ConfigBuilder::List(
    const std::string& name, std::vector<std::string> fallback, const std::string& help) {
  auto parse = [](std::string_view text) -> Result<std::vector<std::string>> {
    return SplitList(text);
  };
  return impl_->Declare({.name = name, .type = "LIST", .help = help}, std::move(fallback), parse,
                        [](const std::vector<std::string>& value) { return Join(value, ","); });
}

void ConfigBuilder::HideAllBut(const std::vector<std::string>& names) {
  for (const std::string& name : names) CHECK(impl_->FindEntry(name) != nullptr);
  for (Impl::Entry& entry : impl_->entries)
    entry.hidden = std::find(names.begin(), names.end(), entry.name) == names.end();
}

bool ConfigBuilder::hides_some() const {
  return std::any_of(impl_->entries.begin(), impl_->entries.end(),
                     [](const Impl::Entry& entry) { return entry.hidden; });
}

Result<void> ConfigBuilder::Parse(const std::vector<std::string>& args,
                                  const std::map<std::string, std::string>& environment,
                                  Unknown unknown) {
  CHECK(!impl_->parsed);
  impl_->parsed = true;
  impl_->help_wanted = WantsHelp(args);
  if (impl_->help_wanted) return {};

  ASSIGN_OR_RETURN(CommandLine command_line, impl_->ParseCommandLine(args));
  ASSIGN_OR_RETURN(std::vector<RawValue> variables, impl_->ReadEnvironment(environment, unknown));
  impl_->positional = std::move(command_line.positional);

  // Weakest first, so that the strongest is what stays; but where the file is must be known before
  // it.
  std::string path;
  for (const auto* values : {&variables, &command_line.values})
    for (const RawValue& raw : *values)
      if (raw.key == "config") path = raw.text;
  if (!path.empty())
    RETURN_IF_ERROR(impl_->ApplyFile(path, unknown).Annotate("configuration file"));
  for (const auto* values : {&variables, &command_line.values})
    for (const RawValue& raw : *values) RETURN_IF_ERROR(impl_->Apply(raw));
  return {};
}

const std::vector<std::string>& ConfigBuilder::positional() const { return impl_->positional; }

bool ConfigBuilder::OnCommandLine(const std::string& name) const {
  const Impl::Entry* entry = impl_->FindEntry(name);
  CHECK(entry != nullptr);
  return entry->source == kCommandLine;
}

bool ConfigBuilder::help_wanted() const { return impl_->help_wanted; }

std::string ConfigBuilder::HelpText() const {
  std::vector<std::string_view> sections{""};
  std::map<std::string_view, std::string> texts;
  for (const Impl::Entry& entry : impl_->entries) {
    if (entry.hidden) continue;
    const std::string_view section = SectionOf(entry.name);
    if (std::find(sections.begin(), sections.end(), section) == sections.end())
      sections.push_back(section);
    texts[section] += entry.HelpText();
  }
  std::string text =
      "Options (from the command line, else the environment, as QUARRY_DATA_DIR for --data-dir,\n"
      "else the file of --config, else the default):\n";
  for (const std::string_view section : sections) {
    if (!section.empty()) text += fmt::format("\n{}:\n", section);
    text += texts[section];
    if (section.empty()) text += "  --help\n      this text\n";
  }
  return text;
}

std::string ConfigBuilder::Describe() const {
  std::string text;
  for (const Impl::Entry& entry : impl_->entries)
    text += fmt::format("{} = {}  # from {}\n", entry.name, entry.show(), entry.source);
  return text;
}

size_t ConfigBuilder::option_count() const { return impl_->entries.size(); }

std::map<std::string, std::string> QuarryEnvironment() {
  std::map<std::string, std::string> found;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    std::string_view text = *variable;
    size_t equals = text.find('=');
    if (equals == std::string_view::npos || !text.starts_with(kEnvironmentPrefix)) continue;
    found.emplace(text.substr(0, equals), text.substr(equals + 1));
  }
  return found;
}

Result<uint64_t> ParseBytes(std::string_view text) {
  std::optional<uint64_t> bytes = ParseWithUnit(text, kByteUnits);
  if (bytes) return *bytes;
  return Error(Code::kInvalidArgument,
               fmt::format("'{}' is no size; write bytes, or a number with K, M, G or T (powers of "
                           "1024), as in 64MiB or 10G",
                           text));
}

Result<int64_t> ParseDurationMs(std::string_view text) {
  std::optional<uint64_t> duration_ms = ParseWithUnit(text, kDurationUnits);
  if (duration_ms && *duration_ms <= static_cast<uint64_t>(INT64_MAX))
    return static_cast<int64_t>(*duration_ms);
  return Error(
      Code::kInvalidArgument,
      fmt::format("'{}' is no duration; write a number with ms, s, m, h or d, as in 30s", text));
}

std::string FormatBytes(uint64_t bytes) {
  constexpr std::array<std::string_view, 7> kNames = {"B",   "KiB", "MiB", "GiB",
                                                      "TiB", "PiB", "EiB"};
  size_t unit = 0;
  double value = static_cast<double>(bytes);
  // 1023.96 would be shown as "1024.0".
  while (value >= (unit == 0 ? 1024.0 : 1023.95) && unit + 1 < kNames.size()) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.1f} {}", value, kNames[unit]);
}

}  // namespace base
