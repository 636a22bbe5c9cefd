#include "blockd/nbd/handshake.h"

#include <gtest/gtest.h>

#include "blockd/memory/memory_volume.h"
#include "tests/blockd/nbd/client.h"
#include "tests/support/results.h"

namespace blockd::nbd {
namespace {

constexpr uint64_t kSizeBytes = base::kGiB;

class Provider : public ExportProvider {
 public:
  base::Result<std::shared_ptr<const Export>> Open(std::string_view name) override {
    ++opened;
    if (name == "busy") return base::Error(base::Code::kConflict, "attached elsewhere");
    if (name != "disk" && name != "readonly") return base::Error(base::Code::kNotFound, "no");
    Export made;
    made.volume = std::make_shared<memory::MemoryVolume>(kSizeBytes);
    made.read_only = name == "readonly";
    return std::make_shared<const Export>(std::move(made));
  }
  int opened = 0;
};

struct Answer {
  uint32_t option;
  OptionReply type;
  std::string data;
};

class HandshakeTest : public testing::Test {
 protected:
  void Make(Handshake::Tls tls = Handshake::Tls::kOff) {
    handshake_ =
        std::make_unique<Handshake>(provider_, tls, [this](std::string_view) { return may_open_; });
    std::string flags;
    PutBig(&flags, uint32_t{kFlagFixedNewstyle | kFlagNoZeroes});
    EXPECT_EQ(Feed(flags), Handshake::Next::kMore);
  }

  Handshake::Next Feed(std::string_view bytes) {
    size_t used = 0;
    const Handshake::Next next = handshake_->Feed(base::AsBytes(bytes), &used, &out_);
    rest_ = bytes.size() - used;
    return next;
  }

  static std::string Message(uint32_t option, std::string_view data) {
    std::string out;
    PutBig(&out, kOptionMagic);
    PutBig(&out, option);
    PutBig(&out, static_cast<uint32_t>(data.size()));
    out.append(data);
    return out;
  }
  Handshake::Next Say(Option option, std::string_view data = {}) {
    return Feed(Message(static_cast<uint32_t>(option), data));
  }

  std::vector<Answer> TakeAnswers() {
    std::vector<Answer> answers;
    const auto* raw = reinterpret_cast<const uint8_t*>(out_.data());
    for (size_t at = 0; at + 20 <= out_.size();) {
      EXPECT_EQ(LoadBig<uint64_t>(raw + at), kOptionReplyMagic);
      const uint32_t length = LoadBig<uint32_t>(raw + at + 16);
      answers.push_back({LoadBig<uint32_t>(raw + at + 8),
                         static_cast<OptionReply>(LoadBig<uint32_t>(raw + at + 12)),
                         out_.substr(at + 20, length)});
      at += 20 + length;
    }
    out_.clear();
    return answers;
  }
  OptionReply LastType() {
    const std::vector<Answer> answers = TakeAnswers();
    return answers.empty() ? OptionReply::kErrShutdown : answers.back().type;
  }

  static std::string Contexts(std::string_view name, const std::vector<std::string>& queries) {
    std::string data;
    PutBig(&data, static_cast<uint32_t>(name.size()));
    data.append(name);
    PutBig(&data, static_cast<uint32_t>(queries.size()));
    for (const std::string& query : queries) {
      PutBig(&data, static_cast<uint32_t>(query.size()));
      data.append(query);
    }
    return data;
  }

  Provider provider_;
  bool may_open_ = true;
  std::unique_ptr<Handshake> handshake_;
  std::string out_;
  size_t rest_ = 0;
};

TEST_F(HandshakeTest, GreetsAsFixedNewstyle) {
  Make();
  EXPECT_EQ(handshake_->Greeting(), std::string("NBDMAGICIHAVEOPT\0\3", 18));
}

TEST_F(HandshakeTest, GoOpensAndTellsTheExport) {
  Make();
  EXPECT_EQ(Say(Option::kGo, GoData("disk")), Handshake::Next::kTransmit);
  const std::vector<Answer> answers = TakeAnswers();
  ASSERT_EQ(answers.size(), 3u);
  std::string expected;
  PutBig(&expected, kInfoExport);
  PutBig(&expected, kSizeBytes);
  PutBig(&expected, uint16_t{kHasFlags | kSendFlush | kSendFua | kSendTrim | kSendWriteZeroes |
                             kCanMultiConn | kSendCache | kSendFastZero});
  EXPECT_EQ(answers[0].data, expected);
  EXPECT_EQ(answers[1].data.size(), 14u);
  EXPECT_EQ(answers[2].type, OptionReply::kAck);
  EXPECT_NE(handshake_->session().exported, nullptr);
  EXPECT_FALSE(handshake_->session().structured_replies);
}

TEST_F(HandshakeTest, TakesBytesOneByOneAndSeveralMessagesAtOnce) {
  Make();
  const std::string all =
      Message(8, "") + Message(6, GoData("disk")) + Message(7, GoData("disk")) + "requests";
  Handshake::Next next = Handshake::Next::kMore;
  std::string pending;
  for (size_t i = 0; i < all.size() && next == Handshake::Next::kMore; ++i) {
    pending += all[i];
    size_t used = 0;
    next = handshake_->Feed(base::AsBytes(pending), &used, &out_);
    pending.erase(0, used);
  }
  EXPECT_EQ(next, Handshake::Next::kTransmit);
  EXPECT_EQ(TakeAnswers().size(), 7u);
  EXPECT_EQ(provider_.opened, 1);
  Make();
  EXPECT_EQ(Feed(all), Handshake::Next::kTransmit);
  EXPECT_EQ(rest_, 8u);
}

TEST_F(HandshakeTest, ReadOnlyExportsSaySo) {
  Make();
  Say(Option::kGo, GoData("readonly"));
  const std::string info = TakeAnswers()[0].data;
  const uint16_t flags = LoadBig<uint16_t>(reinterpret_cast<const uint8_t*>(info.data()) + 10);
  EXPECT_TRUE(flags & kReadOnly);
  EXPECT_FALSE(flags & (kSendTrim | kSendWriteZeroes));
}

TEST_F(HandshakeTest, ExportNameAnswersInTheOldShape) {
  Make();
  EXPECT_EQ(Say(Option::kExportName, "disk"), Handshake::Next::kTransmit);
  EXPECT_EQ(out_.size(), 10u);
  handshake_ = std::make_unique<Handshake>(provider_, Handshake::Tls::kOff,
                                           [](std::string_view) { return true; });
  std::string flags;
  PutBig(&flags, uint32_t{kFlagFixedNewstyle});
  out_.clear();
  Feed(flags);
  EXPECT_EQ(Say(Option::kExportName, "disk"), Handshake::Next::kTransmit);
  EXPECT_EQ(out_.size(), 134u);  // with the zeroes
  Make();
  EXPECT_EQ(Say(Option::kExportName, "nosuch"), Handshake::Next::kClose);
}

TEST_F(HandshakeTest, RefusalsLeaveItOpenForTheNextOption) {
  Make();
  const auto expect = [&](Option option, std::string_view data, OptionReply type) {
    EXPECT_EQ(Say(option, data), Handshake::Next::kMore);
    EXPECT_EQ(LastType(), type) << static_cast<uint32_t>(option);
  };
  expect(Option::kGo, GoData("nosuch"), OptionReply::kErrUnknown);
  expect(Option::kGo, GoData("busy"), OptionReply::kErrPolicy);
  expect(Option::kList, "", OptionReply::kErrPolicy);
  expect(Option::kList, "x", OptionReply::kErrInvalid);
  expect(Option::kStructuredReply, "x", OptionReply::kErrInvalid);
  expect(Option::kStartTls, "", OptionReply::kErrUnsup);
  expect(static_cast<Option>(4), "", OptionReply::kErrUnsup);
  expect(static_cast<Option>(11), "", OptionReply::kErrUnsup);  // extended headers
  expect(static_cast<Option>(0xffffffff), "data", OptionReply::kErrUnsup);
  expect(Option::kSetMetaContext, Contexts("disk", {"base:allocation"}), OptionReply::kErrInvalid);
  may_open_ = false;
  expect(Option::kGo, GoData("disk"), OptionReply::kErrShutdown);
  may_open_ = true;
  EXPECT_EQ(Say(Option::kGo, GoData("disk")), Handshake::Next::kTransmit);
}

TEST_F(HandshakeTest, OptionsThatAreCutShortOrTooLongAreInvalid) {
  Make();
  const std::string whole = GoData("disk");
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_EQ(Say(Option::kGo, whole.substr(0, size)), Handshake::Next::kMore);
    EXPECT_EQ(LastType(), OptionReply::kErrInvalid) << size;
  }
  EXPECT_EQ(Say(Option::kGo, whole + "x"), Handshake::Next::kMore);
  EXPECT_EQ(LastType(), OptionReply::kErrInvalid);
  std::string lying = whole;
  lying[0] = '\x7f';  // a name of two gigabytes
  EXPECT_EQ(Say(Option::kGo, lying), Handshake::Next::kMore);
  EXPECT_EQ(LastType(), OptionReply::kErrInvalid);
}

TEST_F(HandshakeTest, AnOptionTooBigIsSkippedNotKept) {
  Make();
  std::string message = Message(static_cast<uint32_t>(Option::kGo), "");
  StoreBig(reinterpret_cast<uint8_t*>(message.data()) + 12, uint32_t{kMaxOptionBytes + 1});
  EXPECT_EQ(Feed(message), Handshake::Next::kMore);
  EXPECT_EQ(LastType(), OptionReply::kErrTooBig);
  EXPECT_EQ(Feed(std::string(kMaxOptionBytes, 'x')), Handshake::Next::kMore);
  EXPECT_EQ(rest_, 0u);
  EXPECT_EQ(Feed("x" + Message(static_cast<uint32_t>(Option::kGo), GoData("disk"))),
            Handshake::Next::kTransmit);
}

TEST_F(HandshakeTest, EndsWhatIsNoNbd) {
  Make();
  EXPECT_EQ(Feed("GET / HTTP/1.1\r\n\r\n"), Handshake::Next::kClose);
  handshake_ = std::make_unique<Handshake>(provider_, Handshake::Tls::kOff,
                                           [](std::string_view) { return true; });
  EXPECT_EQ(Feed(std::string(4, '\0')), Handshake::Next::kClose);
  handshake_ = std::make_unique<Handshake>(provider_, Handshake::Tls::kOff,
                                           [](std::string_view) { return true; });
  EXPECT_EQ(Feed(std::string("\0\0\0\7", 4)), Handshake::Next::kClose);
  Make();
  EXPECT_EQ(Say(Option::kAbort), Handshake::Next::kClose);
  EXPECT_EQ(LastType(), OptionReply::kAck);
}

TEST_F(HandshakeTest, DoesNotTalkForEver) {
  Make();
  Handshake::Next next = Handshake::Next::kMore;
  uint32_t options = 0;
  while (next == Handshake::Next::kMore && options < 10 * kMaxOptions) {
    next = Say(Option::kList);
    ++options;
  }
  EXPECT_EQ(next, Handshake::Next::kClose);
  EXPECT_EQ(options, kMaxOptions + 1);
}

TEST_F(HandshakeTest, ContextsAreChosenForTheExportThatIsOpened) {
  Make();
  Say(Option::kStructuredReply);
  Say(Option::kListMetaContext, Contexts("disk", {}));
  std::vector<Answer> answers = TakeAnswers();
  ASSERT_EQ(answers.size(), 3u);
  EXPECT_EQ(answers[1].data, std::string(4, '\0') + "base:allocation");
  Say(Option::kSetMetaContext,
      Contexts("disk", {"other:thing", "base:allocation", "base:allocation"}));
  answers = TakeAnswers();
  ASSERT_EQ(answers.size(), 2u);
  EXPECT_EQ(answers[0].type, OptionReply::kMetaContext);
  Say(Option::kGo, GoData("disk"));
  ASSERT_EQ(handshake_->session().contexts.size(), 1u);

  Make();
  Say(Option::kStructuredReply);
  Say(Option::kSetMetaContext, Contexts("readonly", {"base:allocation"}));
  Say(Option::kGo, GoData("disk"));
  EXPECT_TRUE(handshake_->session().contexts.empty());

  Make();
  Say(Option::kStructuredReply);
  Say(Option::kSetMetaContext, Contexts("disk", {"base:allocation"}));
  TakeAnswers();
  Say(Option::kSetMetaContext, Contexts("nosuch", {"base:allocation"}));
  EXPECT_EQ(LastType(), OptionReply::kErrUnknown);
  Say(Option::kGo, GoData("disk"));
  EXPECT_TRUE(handshake_->session().contexts.empty());
}

TEST_F(HandshakeTest, TlsComesFirstWhereItIsRequired) {
  Make(Handshake::Tls::kRequired);
  EXPECT_EQ(Say(Option::kStructuredReply), Handshake::Next::kMore);
  EXPECT_EQ(LastType(), OptionReply::kErrTlsReqd);
  Say(Option::kGo, GoData("disk"));
  EXPECT_EQ(LastType(), OptionReply::kErrTlsReqd);
  EXPECT_EQ(provider_.opened, 0);
  Say(Option::kStartTls, "x");
  EXPECT_EQ(LastType(), OptionReply::kErrInvalid);
  EXPECT_EQ(Say(Option::kStartTls), Handshake::Next::kStartTls);
  handshake_->TlsStarted();
  Say(Option::kStartTls);
  EXPECT_EQ(LastType(), OptionReply::kErrInvalid);
  EXPECT_EQ(Say(Option::kGo, GoData("disk")), Handshake::Next::kTransmit);
  Make(Handshake::Tls::kRequired);
  EXPECT_EQ(Say(Option::kExportName, "disk"), Handshake::Next::kClose);
}

TEST_F(HandshakeTest, WhatWasSaidInClearTextCountsForNothing) {
  Make(Handshake::Tls::kOffered);
  Say(Option::kStructuredReply);
  Say(Option::kSetMetaContext, Contexts("disk", {"base:allocation"}));
  EXPECT_EQ(Say(Option::kStartTls), Handshake::Next::kStartTls);
  handshake_->TlsStarted();
  EXPECT_EQ(Say(Option::kGo, GoData("disk")), Handshake::Next::kTransmit);
  EXPECT_FALSE(handshake_->session().structured_replies);
  EXPECT_TRUE(handshake_->session().contexts.empty());
}

}  // namespace
}  // namespace blockd::nbd
