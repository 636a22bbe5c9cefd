#include "base/config.h"

#include <cstdlib>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/files.h"
#include "tests/support/results.h"
#include "tests/support/temp_dir.h"

namespace base {
namespace {

using testing::HasSubstr;
using testing::Not;

// One option of each kind.
struct Settings {
  ConfigBuilder builder;
  ConfigBuilder::Option<std::string>& listen =
      builder.String("listen", "127.0.0.1:9696", "HOST:PORT to serve on");
  ConfigBuilder::Option<std::string>& password =
      builder.Secret("identity.admin_password", "the first password");
  ConfigBuilder::Option<std::string>& log_level =
      builder.Choice("log.level", "info", {"debug", "info", "warn"}, "what is logged");
  ConfigBuilder::Option<bool>& json = builder.Bool("json", false, "print JSON");
  ConfigBuilder::Option<int64_t>& level =
      builder.Int("chunkstore.zstd_level", 3, -5, 19, "effort of compression");
  ConfigBuilder::Option<uint64_t>& cache =
      builder.Bytes("cache.memory", 256 * kMiB, "decoded blocks kept in memory");
  ConfigBuilder::Option<int64_t>& lifetime =
      builder.DurationMs("identity.token_lifetime", 3'600'000, "how long a token is good");
  ConfigBuilder::Option<std::vector<std::string>>& stores =
      builder.List("stores", {"a", "b"}, "names of stores");
};

class ConfigTest : public testing::Test {
 protected:
  std::string WriteConfig(std::string_view text) {
    std::string path = dir_ / "quarry.conf";
    EXPECT_OK(WriteFileDurably(path, text));
    return path;
  }

  std::string ErrorOf(const std::vector<std::string>& args,
                      const std::map<std::string, std::string>& environment = {}) {
    Settings settings;
    auto parsed = settings.builder.Parse(args, environment);
    return parsed.has_value() ? "no error" : parsed.error().ToString();
  }

  support::TempDir dir_;
};

TEST_F(ConfigTest, HasDefaults) {
  Settings settings;
  ASSERT_OK(settings.builder.Parse({}, {}));
  EXPECT_EQ(*settings.listen, "127.0.0.1:9696");
  EXPECT_EQ(*settings.password, "");
  EXPECT_EQ(*settings.log_level, "info");
  EXPECT_EQ(*settings.json, false);
  EXPECT_EQ(*settings.level, 3);
  EXPECT_EQ(*settings.cache, 256 * kMiB);
  EXPECT_EQ(*settings.lifetime, 3'600'000);
  EXPECT_EQ(*settings.stores, (std::vector<std::string>{"a", "b"}));
}

TEST_F(ConfigTest, ReadsTheCommandLine) {
  Settings settings;
  ASSERT_OK(settings.builder.Parse(
      {"serve", "--listen", "0.0.0.0:1", "--json", "--chunkstore.zstd-level=-2",
       "--cache.memory=1GiB", "--identity.token_lifetime=30s", "--stores=x, y,,z", "FILE", "-",
       "--", "--json", "-x"},
      {}));
  EXPECT_EQ(*settings.listen, "0.0.0.0:1");
  EXPECT_EQ(*settings.json, true);
  EXPECT_EQ(*settings.level, -2);
  EXPECT_EQ(*settings.cache, kGiB);
  EXPECT_EQ(*settings.lifetime, 30'000);
  EXPECT_EQ(*settings.stores, (std::vector<std::string>{"x", "y", "z"}));
  EXPECT_EQ(settings.builder.positional(),
            (std::vector<std::string>{"serve", "FILE", "-", "--json", "-x"}));
}

TEST_F(ConfigTest, AFlagTakesNoWordAfterIt) {
  Settings settings;
  ASSERT_OK(settings.builder.Parse({"--json", "false"}, {}));
  EXPECT_TRUE(*settings.json);
  EXPECT_EQ(settings.builder.positional(), std::vector<std::string>{"false"});
  Settings off;
  ASSERT_OK(off.builder.Parse({"--json", "--json=off"}, {}));
  EXPECT_FALSE(*off.json) << "the last one counts";
}

TEST_F(ConfigTest, StrongerSourcesWin) {
  std::string path = WriteConfig("listen = file:1\n[cache]\nmemory = 1M\n[log]\nlevel = debug\n");
  Settings settings;
  ASSERT_OK(settings.builder.Parse(
      {"--listen=command:1", "--config", path},
      {{"QUARRY_LISTEN", "environment:1"}, {"QUARRY_CACHE_MEMORY", "2M"}, {"PATH", "/bin"}}));
  EXPECT_EQ(*settings.listen, "command:1");
  EXPECT_EQ(*settings.cache, 2 * kMiB);
  EXPECT_EQ(*settings.log_level, "debug");
  EXPECT_EQ(*settings.level, 3);
  std::string description = settings.builder.Describe();
  EXPECT_THAT(description, HasSubstr("listen = command:1  # from command line\n"));
  EXPECT_THAT(description,
              HasSubstr("cache.memory = 2MiB  # from environment QUARRY_CACHE_MEMORY"));
  EXPECT_THAT(description, HasSubstr("log.level = debug  # from " + path + ":5\n"));
  EXPECT_THAT(description, HasSubstr("identity.token_lifetime = 1h  # from default\n"));
}

TEST_F(ConfigTest, ReadsTheFileThatTheEnvironmentNames) {
  std::string path = WriteConfig(
      "# a comment\r\n\n  listen=host:1  \n [identity]\nadmin-password = a # b = c \nTOKEN = x\n");
  Settings settings;
  auto parsed = settings.builder.Parse({}, {{"QUARRY_CONFIG", path}});
  ASSERT_ERROR(parsed, Code::kInvalidArgument);
  EXPECT_THAT(parsed.error().message(),
              HasSubstr("unknown option 'identity.TOKEN' (" + path + ":6"));
  EXPECT_EQ(*settings.listen, "host:1");
  EXPECT_EQ(*settings.password, "a # b = c");
}

TEST_F(ConfigTest, UnknownKeysAreNamedWithTheClosestOne) {
  EXPECT_THAT(ErrorOf({"--cache.memroy=1"}),
              HasSubstr("unknown option '--cache.memroy' (command line); "
                        "did you mean '--cache.memory'"));
  EXPECT_THAT(ErrorOf({}, {{"QUARRY_LISTN", "x"}}), HasSubstr("did you mean 'QUARRY_LISTEN'"));
  EXPECT_THAT(ErrorOf({"--config=" + WriteConfig("[identity]\ntoken_lifetim = 1h\n")}),
              HasSubstr("did you mean 'identity.token_lifetime'"));
  EXPECT_THAT(ErrorOf({"-j"}), HasSubstr("unknown option '-j'"));
  EXPECT_THAT(ErrorOf({"--lis=x"}), HasSubstr("unknown option '--lis'")) << "no guessing";
}

TEST_F(ConfigTest, OnlyWhatIsNearIsOffered) {
  EXPECT_THAT(ErrorOf({"--frobnicate=1"}), Not(HasSubstr("did you mean")));
  EXPECT_THAT(ErrorOf({}, {{"QUARRY_TEST_BINARY", "x"}}), Not(HasSubstr("did you mean")));
  EXPECT_THAT(ErrorOf({"--memory=1MiB"}), HasSubstr("did you mean '--cache.memory'"))
      << "the section may be left out";
  EXPECT_EQ(ClosestTo("stat", {"serve", "stats"}), "stats");
  EXPECT_EQ(ClosestTo("x", {"serve", "stats"}), std::nullopt);
  EXPECT_EQ(ClosestTo("x", {}), std::nullopt);
}

TEST_F(ConfigTest, HiddenOptionsStandOnlyInFileAndEnvironment) {
  Settings settings;
  settings.builder.HideAllBut({"config", "listen", "cache.memory"});
  const std::string help = settings.builder.HelpText();
  EXPECT_THAT(help, HasSubstr("--listen"));
  EXPECT_THAT(help, HasSubstr("\ncache:\n  --cache.memory"));
  EXPECT_THAT(help, Not(HasSubstr("log")));
  EXPECT_THAT(help, Not(HasSubstr("identity")));
  const std::string path = WriteConfig("[log]\nlevel = warn\n");
  ASSERT_OK(settings.builder.Parse({"--config=" + path}, {{"QUARRY_JSON", "true"}}));
  EXPECT_EQ(*settings.log_level, "warn");
  EXPECT_TRUE(*settings.json);

  Settings other;
  other.builder.HideAllBut({"config"});
  const Result<void> refused = other.builder.Parse({"--cache.memory=1"}, {});
  ASSERT_ERROR(refused, Code::kInvalidArgument);
  EXPECT_THAT(refused.error().message(), HasSubstr("'--cache.memory' is a setting that"));
}

TEST_F(ConfigTest, WhatNobodyDeclaredCanBeIgnoredInFileAndEnvironment) {
  const std::string path = WriteConfig("listen = host:1\n[image]\nquota = 3\n");
  const std::map<std::string, std::string> environment = {{"QUARRY_NONSENSE", "x"}};
  Settings settings;
  ASSERT_OK(
      settings.builder.Parse({"--config=" + path}, environment, ConfigBuilder::Unknown::kIgnore));
  EXPECT_EQ(*settings.listen, "host:1");
  Settings other;
  EXPECT_ERROR(other.builder.Parse({"--nonsense=1"}, {}, ConfigBuilder::Unknown::kIgnore),
               Code::kInvalidArgument);
}

TEST_F(ConfigTest, BadValuesAreNamedWithWhatWouldBeRight) {
  EXPECT_THAT(ErrorOf({"--cache.memory=lots"}),
              HasSubstr("option 'cache.memory' (command line): 'lots' is no size"));
  EXPECT_THAT(ErrorOf({"--chunkstore.zstd-level=20"}), HasSubstr("whole number from -5 to 19"));
  EXPECT_THAT(ErrorOf({"--chunkstore.zstd-level="}),
              HasSubstr("chunkstore.zstd-level needs a value"));
  EXPECT_THAT(ErrorOf({"--log.level=loud"}), HasSubstr("none of debug, info, warn"));
  EXPECT_THAT(ErrorOf({"--json=maybe"}), HasSubstr("neither true nor false"));
  EXPECT_THAT(ErrorOf({}, {{"QUARRY_IDENTITY_TOKEN_LIFETIME", "soon"}}),
              HasSubstr("(environment QUARRY_IDENTITY_TOKEN_LIFETIME): 'soon' is no duration"));
  EXPECT_THAT(ErrorOf({"--listen"}), HasSubstr("--listen"));
}

TEST_F(ConfigTest, BadFilesAreNamedWithTheLine) {
  EXPECT_THAT(ErrorOf({"--config=" + WriteConfig("listen = a\nnonsense\n")}),
              HasSubstr("quarry.conf:2: expected"));
  EXPECT_THAT(ErrorOf({"--config=" + WriteConfig("listen = a\nlisten = b\n")}),
              HasSubstr("stands twice"));
  EXPECT_THAT(ErrorOf({"--config=" + WriteConfig("config = other\n")}), HasSubstr("can't name"));
  EXPECT_THAT(ErrorOf({"--config=" + (dir_ / "missing")}), HasSubstr("missing"));
}

TEST_F(ConfigTest, SecretsStayOffTheCommandLineAndOutOfEveryText) {
  std::string error = ErrorOf({"--identity.admin-password=hunter2"});
  EXPECT_THAT(error, HasSubstr("is a secret"));
  EXPECT_THAT(error, HasSubstr("QUARRY_IDENTITY_ADMIN_PASSWORD"));
  EXPECT_THAT(error, Not(HasSubstr("hunter2")));
  Settings settings;
  ASSERT_OK(settings.builder.Parse({}, {{"QUARRY_IDENTITY_ADMIN_PASSWORD", "hunter2"}}));
  EXPECT_EQ(*settings.password, "hunter2");
  EXPECT_THAT(settings.builder.Describe(), HasSubstr("identity.admin_password = ***"));
  EXPECT_THAT(settings.builder.Describe(), Not(HasSubstr("hunter2")));
}

TEST_F(ConfigTest, HelpWinsOverErrorsAndListsAll) {
  for (const char* flag : {"--help", "-h"}) {
    Settings settings;
    ASSERT_OK(settings.builder.Parse({"--nonsense", flag}, {{"QUARRY_NONSENSE", "x"}}));
    EXPECT_TRUE(settings.builder.help_wanted());
  }
  Settings settings;
  ASSERT_OK(settings.builder.Parse({"--", "--help"}, {}));
  EXPECT_FALSE(settings.builder.help_wanted());
  std::string help = settings.builder.HelpText();
  EXPECT_THAT(help, HasSubstr("--listen=TEXT"));
  EXPECT_THAT(help, HasSubstr("HOST:PORT to serve on [default: 127.0.0.1:9696]"));
  EXPECT_THAT(help, HasSubstr("--chunkstore.zstd-level=-5..19"));
  EXPECT_THAT(help, HasSubstr("--log.level=debug|info|warn"));
  EXPECT_THAT(help, HasSubstr("QUARRY_IDENTITY_ADMIN_PASSWORD (environment or file only)"));
  EXPECT_THAT(help, HasSubstr("[default: 256MiB]"));
  EXPECT_EQ(settings.builder.option_count(), 9u);  // the eight above and --config
}

TEST(ConfigDeathTest, OptionsAreDeclaredOnce) {
  ConfigBuilder builder;
  builder.String("listen", "", "");
  EXPECT_DEATH(builder.Bool("listen", false, ""), "CHECK failed");
  EXPECT_DEATH(builder.Int("level", 9, 0, 5, ""), "CHECK failed");
}

TEST(QuarryEnvironment, HoldsOnlyOurs) {
  setenv("QUARRY_TEST_ONLY", "a=b", 1);
  std::map<std::string, std::string> environment = QuarryEnvironment();
  unsetenv("QUARRY_TEST_ONLY");
  EXPECT_EQ(environment["QUARRY_TEST_ONLY"], "a=b");
  EXPECT_FALSE(environment.contains("PATH"));
}

TEST(ParseBytes, KnowsBinaryUnitsOnly) {
  EXPECT_EQ(ParseBytes("0").value(), 0u);
  EXPECT_EQ(ParseBytes("4096").value(), 4096u);
  EXPECT_EQ(ParseBytes("64MiB").value(), 64 * kMiB);
  EXPECT_EQ(ParseBytes("64 MiB").value(), 64 * kMiB);
  EXPECT_EQ(ParseBytes("10G").value(), 10 * kGiB);
  EXPECT_EQ(ParseBytes("1T").value(), kTiB);
  EXPECT_EQ(ParseBytes("18446744073709551615").value(), UINT64_MAX);
  for (const char* text :
       {"", "M", "-1", "1.5G", "1GB", "10g", "18446744073709551616", "99999999T", "1 M x", " 1"}) {
    EXPECT_ERROR(ParseBytes(text), Code::kInvalidArgument) << text;
  }
}

TEST(ParseDuration, KnowsItsUnits) {
  EXPECT_EQ(ParseDurationMs("250ms").value(), 250);
  EXPECT_EQ(ParseDurationMs("30s").value(), 30'000);
  EXPECT_EQ(ParseDurationMs("5m").value(), 300'000);
  EXPECT_EQ(ParseDurationMs("1h").value(), 3'600'000);
  EXPECT_EQ(ParseDurationMs("7d").value(), 604'800'000);
  EXPECT_EQ(ParseDurationMs("0s").value(), 0);
  for (const char* text :
       {"", "5", "s", "-5s", "1w", "9999999999999999999d", "18446744073709551ms5"})
    EXPECT_ERROR(ParseDurationMs(text), Code::kInvalidArgument) << text;
}

TEST(FormatBytes, IsForPeople) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(1536 * kMiB), "1.5 GiB");
  EXPECT_EQ(FormatBytes(kMiB - 1), "1.0 MiB") << "not 1024.0 KiB";
  EXPECT_EQ(FormatBytes(UINT64_MAX), "16.0 EiB");
}

}  // namespace
}  // namespace base
