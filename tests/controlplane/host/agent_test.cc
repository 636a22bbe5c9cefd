#include "controlplane/host/agent.h"

#include <map>
#include <string>

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "blockd/remote/remote_volume.h"
#include "tests/controlplane/host/memory_image.h"
#include "tests/support/results.h"
#include "tests/support/temp_dir.h"

namespace controlplane::host {
namespace {

using base::Code;
using base::Error;
using base::Json;
using base::JsonArray;
using base::JsonObject;
using base::Result;

// A cloud with one image; volumes are not there.
class OneImage : public Services {
 public:
  Result<Found> FindImage(const std::string& name) override {
    if (name != "base" && name != "base-id") return Error(Code::kNotFound, "no image " + name);
    return Found{"base-id", "base"};
  }
  Result<Found> FindSnapshot(const std::string&) override {
    return Error(Code::kNotFound, "no snapshot");
  }
  Result<std::shared_ptr<RemoteImage>> OpenRemote(const Origin&) override {
    if (down) return Error(Code::kUnavailable, "down");
    return std::shared_ptr<RemoteImage>(image);
  }
  Result<RemoteAttachment> AttachVolume(const std::string&) override {
    return Error(Code::kNotFound, "no volume");
  }
  Result<void> DetachVolume(const std::string&) override { return {}; }

  const std::shared_ptr<MemoryImage> image = std::make_shared<MemoryImage>(SomeBytes(3));
  std::atomic<bool> down{false};
};

class AgentTest : public testing::Test {
 protected:
  AgentSettings Settings() {
    AgentSettings settings;
    settings.cache_dir = dir / "cache";
    settings.cache_bytes = 64 * base::kMiB;
    settings.socket_dir = dir / "sockets";
    settings.images.patience_ms = 1;
    return settings;
  }
  void Start() {
    auto started = Agent::Start(Settings(), cloud);
    ASSERT_OK(started);
    agent = *std::move(started);
  }
  Result<Json> Ask(const JsonObject& request) {
    return AskAgent(dir / "sockets/control.sock", request,
                    {.progress = [](uint64_t, uint64_t) { return true; }, .bytes = {}});
  }
  static std::string Text(const Json& object, std::string_view key) {
    return base::FindString(object, key).value_or("");
  }
  static Result<std::shared_ptr<blockd::remote::RemoteVolume>> Connect(const std::string& uri) {
    blockd::remote::RemoteSettings settings;
    settings.uri = uri;
    settings.connections = 1;
    settings.reconnect_ms = 1;
    return blockd::remote::RemoteVolume::Open(settings);
  }

  support::TempDir dir;
  OneImage cloud;
  std::unique_ptr<Agent> agent;
};

TEST_F(AgentTest, ServesAnImageUntilItIsDetached) {
  Start();
  ASSERT_OK_AND_ASSIGN(const Json disk, Ask({{"do", "attach"}, {"image", "base"}}));
  const std::string uri = Text(disk, "uri");
  ASSERT_OK_AND_ASSIGN(auto guest, Connect(uri));
  EXPECT_TRUE(guest->read_only());
  ASSERT_EQ(guest->size_bytes(), cloud.image->bytes().size());
  base::Buffer all(cloud.image->bytes().size());
  ASSERT_OK(guest->Read(0, all.view()));
  EXPECT_EQ(base::AsText(all.view()), cloud.image->bytes());
  ASSERT_OK_AND_ASSIGN(const Json listed, Ask({{"do", "ls"}}));
  ASSERT_EQ(listed.as_array().size(), 1);
  EXPECT_TRUE(base::Find(listed.as_array()[0], "connected")->as_bool());
  ASSERT_OK_AND_ASSIGN(const Json stats, Ask({{"do", "stats"}}));
  EXPECT_GT(base::FindUint(stats, "disk_bytes").value_or(0), 0);

  ASSERT_OK(Ask({{"do", "detach"}, {"disk", "base"}}));
  EXPECT_FALSE(guest->Read(0, all.view().first(512)).has_value()) << "not cut off";
  guest.reset();
  EXPECT_FALSE(Connect(uri).has_value());
  EXPECT_ERROR(Ask({{"do", "detach"}, {"disk", "base"}}), Code::kNotFound);
}

TEST_F(AgentTest, AnotherOneServesTheSameDisks) {
  Start();
  ASSERT_OK_AND_ASSIGN(const Json disk, Ask({{"do", "attach"}, {"image", "base"}}));
  ASSERT_OK_AND_ASSIGN(const Json second, Ask({{"do", "attach"}, {"image", "base"}}));
  EXPECT_NE(Text(disk, "uri"), Text(second, "uri"));
  EXPECT_ERROR(Ask({{"do", "detach"}, {"disk", "base"}}), Code::kConflict) << "which?";
  agent.reset();
  struct stat file{};
  ASSERT_EQ(::stat((dir / "sockets/attached.json").c_str(), &file), 0);
  EXPECT_EQ(file.st_mode & 0777, 0600);
  // While the service is down, it starts all the same.
  cloud.down = true;
  Start();
  EXPECT_FALSE(Connect(Text(disk, "uri")).has_value());
  cloud.down = false;
  for (const Json& one : {disk, second}) {
    ASSERT_OK_AND_ASSIGN(const auto guest, Connect(Text(one, "uri")));
    base::Buffer sector(512);
    EXPECT_OK(guest->Read(0, sector.view()));
  }
}

TEST_F(AgentTest, CopiesChunksThroughTheCache) {
  Start();
  constexpr std::string_view kId = "11111111-2222-4333-8444-555555555555";
  const std::string& bytes = cloud.image->bytes();
  // Of its three chunks the second is a hole.
  std::map<uint64_t, std::string> came;
  uint64_t fetched = 0;
  ControlOutput output{.progress = [](uint64_t, uint64_t) { return true; },
                       .bytes =
                           [&](const JsonObject& head, base::ByteView chunk) {
                             came[base::FindUint(head, "chunk").value_or(9)] = base::AsText(chunk);
                             fetched += base::FindUint(head, "fetched_bytes").value_or(0);
                             return true;
                           }};
  const auto copy = [&](const JsonArray& chunks) {
    return AskAgent(dir / "sockets/control.sock",
                    JsonObject{{"do", "copy"}, {"image", kId}, {"chunks", chunks}}, output);
  };
  for (const bool again : {false, true}) {
    came.clear();
    fetched = 0;
    ASSERT_OK(copy({0, 2}));
    ASSERT_EQ(came.size(), 2);
    EXPECT_EQ(came[0], bytes.substr(0, chunkstore::kChunkBytes));
    EXPECT_EQ(came[2], bytes.substr(2 * chunkstore::kChunkBytes));
    EXPECT_EQ(fetched, again ? 0 : cloud.image->fetched_bytes.load());
  }
  for (const JsonArray& wrong : {JsonArray{1}, JsonArray{3}, JsonArray{-1}, JsonArray{"0"},
                                 JsonArray(kMaxCopiedChunks + 1, Json(0))})
    EXPECT_ERROR(copy(wrong), Code::kInvalidArgument);
  EXPECT_ERROR(Ask({{"do", "copy"}, {"image", "../x"}}), Code::kInvalidArgument);
  // One that leaves ends it; and it was no boot.
  output.bytes = [](const JsonObject&, base::ByteView) { return false; };
  EXPECT_ERROR(copy({0, 2}), Code::kCancelled);
  EXPECT_FALSE(cloud.image->ReadTrace().value().has_value());
}

TEST_F(AgentTest, RefusesWhatItCannotDoAndForgetsIt) {
  Start();
  EXPECT_ERROR(Ask({{"do", "attach"}, {"image", "none"}}), Code::kNotFound);
  EXPECT_ERROR(Ask({{"do", "attach"}, {"snapshot", "none"}}), Code::kNotFound);
  EXPECT_ERROR(Ask({{"do", "attach"}, {"volume", "none"}}), Code::kNotFound);
  EXPECT_ERROR(Ask({{"do", "attach"}}), Code::kInvalidArgument);
  EXPECT_ERROR(Ask({{"do", "fly"}}), Code::kInvalidArgument);
  EXPECT_ERROR(Ask({}), Code::kInvalidArgument);
  cloud.down = true;
  EXPECT_ERROR(Ask({{"do", "attach"}, {"image", "base"}}), Code::kUnavailable);
  ASSERT_OK_AND_ASSIGN(const Json listed, Ask({{"do", "ls"}}));
  EXPECT_TRUE(listed.as_array().empty());
}

TEST_F(AgentTest, OneAgentADirectory) {
  Start();
  EXPECT_ERROR(Agent::Start(Settings(), cloud), Code::kConflict);
  AgentSettings other = Settings();
  other.cache_dir = dir / "other";
  EXPECT_ERROR(Agent::Start(other, cloud), Code::kConflict);
  EXPECT_OK(Ask({{"do", "ls"}}));
}

TEST_F(AgentTest, ADirectoryOfOthersOrAFileThatSaysNothingIsRefused) {
  AgentSettings settings = Settings();
  ASSERT_EQ(::mkdir(settings.socket_dir.c_str(), 0700), 0);
  ASSERT_EQ(::chmod(settings.socket_dir.c_str(), 0777), 0);
  EXPECT_ERROR(Agent::Start(settings, cloud), Code::kInvalidArgument);
  ASSERT_EQ(::chmod(settings.socket_dir.c_str(), 0700), 0);
  for (const char* text : {"", "{}", R"({"version":2,"disks":[]})",
                           R"({"version":1,"disks":[{"id":"x","kind":"image"}]})"}) {
    ASSERT_OK(base::WriteFileDurably(settings.socket_dir + "/attached.json", text));
    EXPECT_ERROR(Agent::Start(settings, cloud), Code::kCorruption) << text;
  }
}

}  // namespace
}  // namespace controlplane::host
