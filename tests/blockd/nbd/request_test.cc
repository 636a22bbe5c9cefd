#include "blockd/nbd/request.h"

#include <gtest/gtest.h>

#include "blockd/nbd/block_status.h"
#include "blockd/nbd/reply.h"
#include "tests/blockd/nbd/client.h"

namespace blockd::nbd {
namespace {

constexpr uint64_t kSize = 1 << 20;
constexpr Shape kShape{kSize, false, true, true};

bool Parse(const std::string& bytes, Request* request) {
  return ParseRequest(reinterpret_cast<const uint8_t*>(bytes.data()), request);
}

TEST(ParseRequest, ReadsAllFields) {
  const Request sent{Command::kWrite, kCommandFua, 0x1122334455667788, 0x99aabbccddeeff00, 4096};
  Request got;
  ASSERT_TRUE(Parse(Client::Encode(sent), &got));
  EXPECT_EQ(got.command, sent.command);
  EXPECT_EQ(got.flags, sent.flags);
  EXPECT_EQ(got.cookie, sent.cookie);
  EXPECT_EQ(got.offset, sent.offset);
  EXPECT_EQ(got.length, sent.length);
}

TEST(ParseRequest, GivesUpWhereTheStreamIsLost) {
  Request got;
  std::string bytes = Client::Encode({Command::kRead, 0, 1, 0, 512});
  bytes[0] = 0;
  EXPECT_FALSE(Parse(bytes, &got));
  EXPECT_FALSE(Parse(Client::Encode({Command::kWrite, 0, 1, 0, kMaxIoBytes + 1}), &got));
  // A length that brings no payload loses nothing.
  EXPECT_TRUE(Parse(Client::Encode({Command::kRead, 0, 1, 0, 0xffffffff}), &got));
}

TEST(Validate, HoldsEachCommandAgainstTheExport) {
  const auto check = [](Command command, uint64_t offset, uint32_t length, uint16_t flags = 0,
                        const Shape& shape = kShape) {
    return Validate({command, flags, 1, offset, length}, shape);
  };
  EXPECT_EQ(check(Command::kRead, 0, kSize), WireError::kOk);
  EXPECT_EQ(check(Command::kRead, kSize, 0), WireError::kOk);
  EXPECT_EQ(check(Command::kRead, kSize - 512, 1024), WireError::kInval);
  EXPECT_EQ(check(Command::kWrite, kSize - 512, 1024), WireError::kNoSpc);
  EXPECT_EQ(check(Command::kWriteZeroes, kSize, 512), WireError::kNoSpc);
  EXPECT_EQ(check(Command::kTrim, kSize, 512), WireError::kInval);
  EXPECT_EQ(check(Command::kRead, UINT64_MAX - 511, 1024), WireError::kInval);
  EXPECT_EQ(check(Command::kWrite, UINT64_MAX - 511, 512), WireError::kNoSpc);
  EXPECT_EQ(check(Command::kRead, 1, 512), WireError::kInval);
  EXPECT_EQ(check(Command::kRead, 512, 511), WireError::kInval);
  EXPECT_EQ(check(Command::kRead, 0, kMaxIoBytes + 512, 0, {base::kTiB, false, true, true}),
            WireError::kInval);
  EXPECT_EQ(check(Command::kFlush, 0, 0), WireError::kOk);
  EXPECT_EQ(check(Command::kFlush, 512, 0), WireError::kInval);
  EXPECT_EQ(check(Command::kBlockStatus, 0, 0), WireError::kInval);
  EXPECT_EQ(check(Command::kBlockStatus, 0, 512), WireError::kOk);
  EXPECT_EQ(check(Command::kBlockStatus, 0, 512, 0, {kSize, false, true, false}),
            WireError::kInval);
  EXPECT_EQ(check(static_cast<Command>(8), 0, 512), WireError::kInval);
  EXPECT_EQ(check(static_cast<Command>(0xffff), 0, 512), WireError::kInval);
}

TEST(Validate, ReadOnlyMeansNoChange) {
  const Shape shape{kSize, true, true, true};
  for (const Command command : {Command::kWrite, Command::kTrim, Command::kWriteZeroes}) {
    EXPECT_EQ(Validate({command, 0, 1, 0, 512}, shape), WireError::kPerm);
  }
  EXPECT_EQ(Validate({Command::kRead, 0, 1, 0, 512}, shape), WireError::kOk);
  EXPECT_EQ(Validate({Command::kFlush, 0, 1, 0, 0}, shape), WireError::kOk);
}

TEST(Validate, FlagsBelongToCommands) {
  const auto check = [](Command command, uint16_t flags) {
    return Validate({command, flags, 1, 0, 512}, kShape);
  };
  EXPECT_EQ(check(Command::kWrite, kCommandFua), WireError::kOk);
  EXPECT_EQ(check(Command::kWrite, kCommandNoHole), WireError::kInval);
  EXPECT_EQ(check(Command::kWriteZeroes, kCommandFua | kCommandNoHole | kCommandFastZero),
            WireError::kOk);
  EXPECT_EQ(check(Command::kRead, kCommandDf), WireError::kOk);
  EXPECT_EQ(check(Command::kRead, 1 << 15), WireError::kInval);
  EXPECT_EQ(Validate({Command::kRead, kCommandDf, 1, 0, 512}, {kSize, false, false, false}),
            WireError::kInval);
}

// A volume that says what a test wants of its extents.
class Extents : public Volume {
 public:
  explicit Extents(uint64_t step) : step_(step) {}
  uint64_t size_bytes() const override { return base::kGiB; }
  base::Result<void> Read(uint64_t, base::MutableByteView) override { return {}; }
  base::Result<bool> TryRead(uint64_t, base::MutableByteView) override { return true; }
  base::Result<void> Write(uint64_t, base::ByteView) override { return {}; }
  base::Result<void> Zero(uint64_t, uint64_t, bool) override { return {}; }
  base::Result<void> Flush() override { return {}; }
  void Prefetch(uint64_t, uint64_t) override {}
  base::Result<void> VisitExtents(uint64_t offset, uint64_t length,
                                  const ExtentVisitor& visit) override {
    for (uint64_t at = offset; at < offset + length; at += step_) {
      const bool data = at / step_ % 2 == 0;
      if (!visit({at, std::min(step_, offset + length - at), data, !data})) return {};
    }
    return {};
  }

 private:
  const uint64_t step_;
};

std::vector<std::pair<uint32_t, uint32_t>> Status(const Session& session, const Request& request) {
  const std::string reply = BlockStatusReply(session, request).value();
  const auto* raw = reinterpret_cast<const uint8_t*>(reply.data());
  std::vector<std::pair<uint32_t, uint32_t>> runs;
  const uint32_t length = LoadBig<uint32_t>(raw + 16);
  EXPECT_EQ(reply.size(), kChunkHeaderBytes + length);
  for (uint32_t at = 4; at < length; at += 8) {
    const uint8_t* run = raw + kChunkHeaderBytes + at;
    runs.emplace_back(LoadBig<uint32_t>(run), LoadBig<uint32_t>(run + 4));
  }
  return runs;
}

Session SessionOver(uint64_t step) {
  Session session;
  Export exported;
  exported.volume = std::make_shared<Extents>(step);
  session.exported = std::make_shared<const Export>(std::move(exported));
  session.structured_replies = true;
  session.contexts = {{std::string(kAllocationContext), nullptr}};
  return session;
}

TEST(BlockStatus, TellsRunsFromTheStart) {
  const Session session = SessionOver(65536);
  const Request request{Command::kBlockStatus, 0, 1, 0, 3 * 65536};
  EXPECT_EQ(Status(session, request),
            (std::vector<std::pair<uint32_t, uint32_t>>{
                {65536, 0}, {65536, kStateHole | kStateZero}, {65536, 0}}));
  const Request one{Command::kBlockStatus, kCommandReqOne, 1, 0, 3 * 65536};
  EXPECT_EQ(Status(session, one).size(), 1u);
}

TEST(BlockStatus, StopsAtTheLimitAndLetsTheClientAskOn) {
  const Session session = SessionOver(512);
  const Request request{Command::kBlockStatus, 0, 1, 0, 64 << 20};
  const auto runs = Status(session, request);
  ASSERT_EQ(runs.size(), kMaxExtents);
  EXPECT_EQ(runs.back().first, 512u);
}

TEST(ToWire, KnowsEveryCode) {
  EXPECT_EQ(ToWire(base::Code::kOutOfSpace), WireError::kNoSpc);
  EXPECT_EQ(ToWire(base::Code::kCorruption), WireError::kIo);
  EXPECT_EQ(ToWire(base::Code::kInvalidArgument), WireError::kInval);
  EXPECT_EQ(ToWire(base::Code::kPermissionDenied), WireError::kPerm);
  EXPECT_EQ(ToWire(base::Code::kCancelled), WireError::kShutdown);
}

TEST(StatusReply, CarriesTheMessageOnlyWhereThereIsRoom) {
  const Request read{Command::kRead, 0, 7, 0, 512};
  const Request write{Command::kWrite, 0, 7, 0, 512};
  EXPECT_EQ(StatusReply(read, false, WireError::kIo, "why").size(), kSimpleReplyBytes);
  EXPECT_EQ(StatusReply(write, true, WireError::kIo, "why").size(), kSimpleReplyBytes);
  EXPECT_EQ(StatusReply(read, true, WireError::kIo, "why").size(), kChunkHeaderBytes + 6 + 3);
}

}  // namespace
}  // namespace blockd::nbd
