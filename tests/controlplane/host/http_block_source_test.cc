#include "controlplane/host/http_block_source.h"

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/async/pool.h"
#include "base/async/sleep.h"
#include "base/http/server.h"
#include "chunkstore/blob_format.h"
#include "imaged/block_wire.h"
#include "imaged/chunk_wire.h"
#include "tests/chunkstore/stored_blocks.h"
#include "tests/imaged/data/fixture.h"
#include "tests/support/results.h"

// Images as blocks over HTTP: from the Image API itself, and from a service that lies, breaks off
// and refuses.

namespace controlplane::host {
namespace {

using base::Code;
using base::Error;
using base::Result;
using base::http::Request;
using base::http::Response;
using chunkstore::layers::BlockInfo;
using chunkstore::testing::DecodeStored;

constexpr size_t kChunk = chunkstore::kChunkBytes;

HttpSourceOptions Quick() {
  HttpSourceOptions options;
  options.pause_ms = 1;
  return options;
}

// --- from the Image API

// A raw chunk, a hole, one that is not raw, and a short end.
std::string Disk() {
  std::string text;
  while (text.size() < kChunk) text += fmt::format("line {} of text\n", text.size());
  text.resize(kChunk);
  return imaged::RandomBytes(kChunk, 5) + std::string(kChunk, '\0') + text +
         imaged::RandomBytes(99, 6);
}

class FromTheImageApi : public testing::Test {
 protected:
  FromTheImageApi() : bytes_(Disk()), id_(service_.CreateImage()) {
    EXPECT_EQ(service_.Upload(id_, bytes_).status, 204);
  }
  std::shared_ptr<ServiceSession> Session(const std::string& who, HttpSourceOptions options) {
    const auto login = [this, who]() -> Result<ServiceAccess> {
      return ServiceAccess{who, "http://" + service_.address() + "/image", ""};
    };
    auto session = ServiceSession::Open(login, options);
    EXPECT_OK(session);
    return *session;
  }
  std::shared_ptr<HttpBlockSource> Source(const std::string& who = "p1") {
    return HttpBlockSource::OfImage(Session(who, Quick()), id_);
  }
  // A whole chunk through Table and Fetch.
  std::string ReadChunk(HttpBlockSource& source, uint64_t chunk) {
    const auto table = source.Table(chunk);
    EXPECT_OK(table);
    if (!table.has_value()) return "no table";
    std::vector<size_t> numbers(table->size());
    for (size_t i = 0; i < numbers.size(); ++i) numbers[i] = i;
    std::string plain;
    EXPECT_OK(
        source.Fetch(chunk, numbers, [&](size_t number, base::ByteView stored) -> Result<void> {
          ASSIGN_OR_RETURN(const std::string block, DecodeStored((*table)[number], stored));
          plain += block;
          return Result<void>();
        }));
    return plain;
  }

  imaged::Service service_;
  const std::string bytes_;
  const std::string id_;
};

TEST_F(FromTheImageApi, TheBlocksAreTheImage) {
  const auto source = Source();
  ASSERT_OK_AND_ASSIGN(const Shape shape, source->ReadShape());
  EXPECT_EQ(shape.size_bytes, bytes_.size());
  EXPECT_EQ(shape.holes, (std::vector<bool>{false, true, false, false}));
  for (const uint64_t chunk : {0, 2, 3}) {
    EXPECT_TRUE(ReadChunk(*source, chunk) == bytes_.substr(chunk * kChunk, kChunk)) << chunk;
  }
  EXPECT_EQ(ReadChunk(*source, 1), "");
  const std::vector<uint64_t> chunks = {3, 1, 0};
  ASSERT_OK_AND_ASSIGN(const auto tables, source->Tables(chunks));
  ASSERT_EQ(tables.size(), 3u);
  EXPECT_EQ(tables[0].size(), 1u);
  EXPECT_TRUE(tables[1].empty());
  EXPECT_GT(tables[2].size(), 10u);
}

TEST_F(FromTheImageApi, ManyThreadsShareItsConnections) {
  HttpSourceOptions options = Quick();
  options.max_connections = 3;
  const auto source = HttpBlockSource::OfImage(Session("p1", options), id_);
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      const uint64_t chunk = i % 2 == 0 ? 0 : 2;
      EXPECT_TRUE(ReadChunk(*source, chunk) == bytes_.substr(chunk * kChunk, kChunk));
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(FromTheImageApi, ATraceGoesThereAndBack) {
  const auto source = Source();
  ASSERT_OK_AND_ASSIGN(const auto none, source->ReadTrace());
  EXPECT_FALSE(none.has_value());
  const BootTrace trace = {{2, 1, 3}, {0, 0, 1}};
  ASSERT_OK(source->WriteTrace(trace));
  ASSERT_OK_AND_ASSIGN(const auto kept, Source()->ReadTrace());
  EXPECT_EQ(kept, trace);
  EXPECT_ERROR(source->WriteTrace({{9, 0, 1}}), Code::kInvalidArgument);
  EXPECT_ERROR(source->WriteTrace({{0, UINT32_MAX, 1}}), Code::kTooLarge);
  ASSERT_OK(source->DropTrace());
  ASSERT_OK_AND_ASSIGN(const auto dropped, source->ReadTrace());
  EXPECT_FALSE(dropped.has_value());
}

TEST_F(FromTheImageApi, WhatIsNotOnesOwnIsNotThere) {
  const auto stranger = Source("p2");
  EXPECT_ERROR(stranger->Table(0), Code::kNotFound);
  EXPECT_ERROR(stranger->ReadShape(), Code::kNotFound);
  EXPECT_ERROR(stranger->ReadTrace(), Code::kNotFound);
  EXPECT_ERROR(stranger->WriteTrace({{0, 0, 1}}), Code::kNotFound);
  const auto source = Source();
  ASSERT_OK(source->Table(0));
  EXPECT_EQ(service_.Call("p1", "DELETE", "/v2/images/" + id_).status, 204);
  EXPECT_ERROR(source->Table(0), Code::kNotFound);
  EXPECT_ERROR(Source()->Fetch(0, std::vector<size_t>{0}, nullptr), Code::kNotFound);
}

TEST_F(FromTheImageApi, NumbersThatItHasNot) {
  const auto source = Source();
  const auto nothing = [](size_t, base::ByteView) { return Result<void>(); };
  EXPECT_ERROR(source->Table(4), Code::kInvalidArgument);
  EXPECT_ERROR(source->Table(UINT64_MAX), Code::kInvalidArgument);
  EXPECT_ERROR(source->Fetch(1, std::vector<size_t>{0}, nothing), Code::kInvalidArgument);
  EXPECT_ERROR(source->Fetch(0, std::vector<size_t>{500}, nothing), Code::kInvalidArgument);
  EXPECT_ERROR(source->Fetch(0, std::vector<size_t>{70'000}, nothing), Code::kInvalidArgument);
  EXPECT_OK(source->Fetch(0, {}, nothing));
  const auto snapshot = HttpBlockSource::OfSnapshot(Session("p1", Quick()), id_);
  EXPECT_ERROR(snapshot->Table(0), Code::kNotFound);  // a cloud without volumes
}

// --- from a service of the test

// A body that breaks the connection behind its bytes.
class Breaking : public base::http::BodySource {
 public:
  explicit Breaking(std::string bytes) : bytes_(std::move(bytes)) {}
  std::optional<uint64_t> size_bytes() const override { return std::nullopt; }
  base::async::Task<Result<base::http::Piece>> Next() override {
    if (sent_) co_return Error(Code::kIo, "broken on purpose");
    sent_ = true;
    base::http::Piece piece;
    piece.bytes = base::AsBytes(bytes_);
    co_return piece;
  }

 private:
  const std::string bytes_;
  bool sent_ = false;
};

// A body whose last bytes never end to come, one now and then.
class Dripping : public base::http::BodySource {
 public:
  explicit Dripping(std::string first) : bytes_(std::move(first)) {}
  std::optional<uint64_t> size_bytes() const override { return std::nullopt; }
  base::async::Task<Result<base::http::Piece>> Next() override {
    if (dripping_) {
      co_await base::async::SleepMs(10);
      bytes_ = "x";
    }
    dripping_ = true;
    base::http::Piece piece;
    piece.bytes = base::AsBytes(bytes_);
    co_return piece;
  }

 private:
  std::string bytes_;
  bool dripping_ = false;
};

class FromALiar : public testing::Test {
 protected:
  using Liar = std::function<Result<Response>(const Request& request)>;

  FromALiar() : pool_("liar", 2, 16) {
    base::http::Service service;
    service.name = "liar";
    for (const auto& [method, last] :
         {std::pair("POST", "blocks"), {"GET", "chunks"}, {"GET", "trace"}, {"PUT", "trace"}}) {
      base::http::Route route;
      route.method = method;
      route.pattern = fmt::format("/v2/quarry/images/x/{}", last);
      route.access = base::http::Access::kPublic;
      route.handler = [this](const Request& request) {
        ++asked_;
        return lie_(request);
      };
      service.routes.push_back(std::move(route));
    }
    service.render_error = [](const Request&, int status, const Error& error) {
      return Response::OfJson(status, base::JsonObject{{"message", error.message()}});
    };
    router_.Mount(std::move(service));
    server_ = std::move(*base::http::Server::Start({}, router_, pool_, metrics_));
    source_ = Source(Quick());
  }

  std::shared_ptr<HttpBlockSource> Source(const HttpSourceOptions& options) {
    const auto login = [this]() -> Result<ServiceAccess> {
      return ServiceAccess{fmt::format("token {}", ++logins_), "http://" + server_->address(), ""};
    };
    auto session = ServiceSession::Open(login, options);
    EXPECT_OK(session);
    return HttpBlockSource::OfImage(*session, "x");
  }

  static Response Blocks(std::string body) {
    return Response::Text(200, std::move(body), imaged::kBlocksType);
  }
  static std::string HeadOf(uint64_t size_bytes) {
    return imaged::EncodeBlockAnswerHead({size_bytes, {}});
  }
  // The answer to a request for these blocks of chunk 0: each is "block <number>".
  static std::string Answer(const std::vector<uint16_t>& numbers) {
    std::string body = HeadOf(kChunk);
    if (numbers.empty()) return body;
    imaged::AppendBlockItemHead(&body, 0, imaged::BlockHow::kBlocks, numbers.size());
    std::string bytes;
    for (const uint16_t number : numbers) {
      const std::string block = fmt::format("block {}", number);
      BlockInfo info;
      info.plain_length = info.stored_length = static_cast<uint32_t>(block.size());
      imaged::AppendBlockEntry(&body, number, info);
      bytes += block;
    }
    return body + bytes;
  }
  static std::vector<uint16_t> Asked(const Request& request) {
    const auto items = imaged::DecodeBlockRequest(request.body, 1);
    EXPECT_OK(items);
    return items->empty() ? std::vector<uint16_t>() : items->front().numbers;
  }

  Result<void> Fetch(std::vector<size_t> numbers) {
    came_.clear();
    return source_->Fetch(0, numbers, [this](size_t number, base::ByteView stored) {
      came_.push_back(fmt::format("{}: {}", number, base::AsText(stored)));
      return Result<void>();
    });
  }

  base::http::Router router_;
  base::async::Pool pool_;
  base::Metrics metrics_;
  Liar lie_;  // set before the source is asked
  std::atomic<int> asked_ = 0;
  std::atomic<int> logins_ = 0;
  std::vector<std::string> came_;
  std::unique_ptr<base::http::Server> server_;
  std::shared_ptr<HttpBlockSource> source_;
};

TEST_F(FromALiar, WhatIsWrongIsFoundOut) {
  const std::string good = Answer({0, 2});
  const std::string huge = std::string(good).replace(40 + 32, 8, 8, '\xff');
  for (const std::string& lie :
       {std::string(), good.substr(0, 20), good.substr(0, good.size() - 1), good + "more",
        Answer({0}), Answer({0, 1, 2}), Answer({0, 3}), Answer({}), huge, HeadOf(kChunk + 1)}) {
    lie_ = [&](const Request&) -> Result<Response> { return Blocks(lie); };
    EXPECT_ERROR(Fetch({0, 2}), Code::kCorruption) << lie.size();
  }
  EXPECT_EQ(asked_, 10);  // a lie is no reason to ask again
  lie_ = [&](const Request&) -> Result<Response> { return Blocks(good); };
  ASSERT_OK(Fetch({0, 2}));
  EXPECT_EQ(came_, (std::vector<std::string>{"0: block 0", "2: block 2"}));
  // From now on it is an image of this size.
  lie_ = [&](const Request&) -> Result<Response> {
    return Blocks(std::string(good).replace(8, 8, HeadOf(2 * kChunk).substr(8, 8)));
  };
  EXPECT_ERROR(Fetch({0, 2}), Code::kCorruption);
}

TEST_F(FromALiar, AnotherBodyIsAnotherLanguage) {
  lie_ = [](const Request&) -> Result<Response> {
    return Response::Text(200, "<html>", "text/html");
  };
  EXPECT_ERROR(source_->Table(0), Code::kInvalidArgument);
  EXPECT_ERROR(source_->ReadShape(), Code::kInvalidArgument);
  EXPECT_EQ(asked_, 2);
}

TEST_F(FromALiar, AShapeThatIsNoneIsFoundOut) {
  for (const imaged::ChunkList& list :
       {imaged::ChunkList{.size_bytes = 2 * kChunk},                              // never ends
        imaged::ChunkList{.size_bytes = 2 * kChunk, .first = 1, .ids = {{}}}}) {  // another part
    lie_ = [&](const Request& request) -> Result<Response> {
      if (request.method == "POST") return Blocks(HeadOf(2 * kChunk));
      return Response::Text(200, imaged::EncodeChunkList(list), imaged::kChunkListType);
    };
    EXPECT_ERROR(source_->ReadShape(), Code::kCorruption);
  }
  lie_ = [](const Request& request) -> Result<Response> {
    if (request.method == "POST") return Blocks(HeadOf(2 * kChunk));
    return Response::Text(200, "QCHL", imaged::kChunkListType);
  };
  EXPECT_ERROR(source_->ReadShape(), Code::kCorruption);
}

// An image that is made anew under its id while it is opened: holes of the one are none of the
// other.
TEST_F(FromALiar, AListOfOtherDataIsFoundOut) {
  const imaged::ChunkList list{.size_bytes = 2 * kChunk,
                               .ids = {base::Digest256{}, base::Sha256(base::AsBytes("1"))}};
  int heads = 0;
  const auto answer = [&](bool changes) {
    return [&, changes](const Request& request) -> Result<Response> {
      if (request.method != "POST")
        return Response::Text(200, imaged::EncodeChunkList(list), imaged::kChunkListType);
      std::string head = HeadOf(2 * kChunk);
      if (changes && heads++ > 0) head[16] ^= 1;
      return Blocks(head);
    };
  };
  lie_ = answer(false);
  ASSERT_OK_AND_ASSIGN(const Shape shape, source_->ReadShape());
  EXPECT_EQ(shape.holes, (std::vector<bool>{true, false}));
  lie_ = answer(true);
  heads = 1;
  EXPECT_ERROR(source_->ReadShape(), Code::kCorruption);
  // A list of another size than the blocks are of.
  lie_ = [](const Request& request) -> Result<Response> {
    if (request.method == "POST") return Blocks(HeadOf(2 * kChunk));
    const imaged::ChunkList longer{.size_bytes = 3 * kChunk, .ids = {{}, {}, {}}};
    return Response::Text(200, imaged::EncodeChunkList(longer), imaged::kChunkListType);
  };
  EXPECT_ERROR(source_->ReadShape(), Code::kCorruption);
}

TEST_F(FromALiar, ATraceOfOtherDataIsNone) {
  imaged::BootTrace trace{{}, {{0, 0, 1}}};
  lie_ = [&](const Request& request) -> Result<Response> {
    if (request.method == "POST") return Blocks(HeadOf(kChunk));
    return Response::Text(200, imaged::EncodeTrace(trace), imaged::kTraceType);
  };
  ASSERT_OK_AND_ASSIGN(const auto same, source_->ReadTrace());
  EXPECT_TRUE(same.has_value());
  trace.data.bytes[0] = 1;
  ASSERT_OK_AND_ASSIGN(const auto other, source_->ReadTrace());
  EXPECT_FALSE(other.has_value());
  trace.runs = {{1, 0, 1}};
  EXPECT_ERROR(source_->ReadTrace(), Code::kCorruption);
}

TEST_F(FromALiar, ABreakIsTakenUpBehindWhatCame) {
  lie_ = [&](const Request& request) -> Result<Response> {
    const std::vector<uint16_t> numbers = Asked(request);
    // The first time two blocks and a part of the third; then the rest, without an end.
    const std::string body = Answer(numbers);
    Response response = Blocks("");
    if (numbers.empty()) return Blocks(body);
    response.source =
        std::make_unique<Breaking>(numbers.size() == 4 ? body.substr(0, body.size() - 10) : body);
    return response;
  };
  ASSERT_OK(Fetch({0, 1, 2, 5}));
  EXPECT_EQ(came_,
            (std::vector<std::string>{"0: block 0", "1: block 1", "2: block 2", "5: block 5"}));
  EXPECT_EQ(asked_, 3);
}

TEST_F(FromALiar, ADripHasAnEnd) {
  lie_ = [](const Request&) -> Result<Response> {
    BlockInfo info;
    info.plain_length = info.stored_length = chunkstore::kMaxBlockBytes;
    std::string first = HeadOf(kChunk);
    imaged::AppendBlockItemHead(&first, 0, imaged::BlockHow::kBlocks, 1);
    imaged::AppendBlockEntry(&first, 0, info);
    Response response = Blocks("");
    response.source = std::make_unique<Dripping>(std::move(first));
    return response;
  };
  HttpSourceOptions options = Quick();
  options.try_timeout_ms = 100;
  const auto nothing = [](size_t, base::ByteView) { return Result<void>(); };
  EXPECT_ERROR(Source(options)->Fetch(0, std::vector<size_t>{0}, nothing), Code::kUnavailable);
  EXPECT_EQ(asked_, 3);
}

TEST_F(FromALiar, WithoutRoomItIsAskedAgainSomeTimes) {
  const auto refuse = [](int status) {
    return Response::OfJson(status, base::JsonObject{{"message", "no room"}});
  };
  lie_ = [&](const Request& request) -> Result<Response> {
    if (asked_ < 3) return refuse(503);
    return Blocks(Answer(Asked(request)));
  };
  ASSERT_OK(Fetch({1}));
  EXPECT_EQ(asked_, 3);
  lie_ = [&](const Request&) -> Result<Response> { return refuse(503); };
  EXPECT_ERROR(Fetch({1}), Code::kUnavailable);
  EXPECT_EQ(asked_, 6);
  lie_ = [&](const Request&) -> Result<Response> { return refuse(404); };
  EXPECT_ERROR(Fetch({1}), Code::kNotFound);
  EXPECT_EQ(asked_, 7);
}

TEST_F(FromALiar, AnExpiredTokenIsMadeAnewOnce) {
  lie_ = [&](const Request& request) -> Result<Response> {
    if (request.headers.Get("X-Auth-Token") == "token 1") return Response::Empty(401);
    return Blocks(Answer(Asked(request)));
  };
  ASSERT_OK(Fetch({1}));
  ASSERT_OK(Fetch({2}));
  EXPECT_EQ(logins_, 2);
  lie_ = [](const Request&) -> Result<Response> { return Response::Empty(401); };
  EXPECT_ERROR(Fetch({1}), Code::kUnauthenticated);
  EXPECT_EQ(logins_, 3);
}

TEST_F(FromALiar, AnErrorOfTheSinkEndsIt) {
  lie_ = [&](const Request& request) -> Result<Response> { return Blocks(Answer(Asked(request))); };
  const std::vector<size_t> numbers = {0, 1};
  // Even one that looks as if trying again could help.
  EXPECT_ERROR(source_->Fetch(0, numbers,
                              [](size_t, base::ByteView) -> Result<void> {
                                return Error(Code::kUnavailable, "the reader's own");
                              }),
               Code::kUnavailable);
  EXPECT_EQ(asked_, 1);
}

TEST_F(FromALiar, WhoIsNotThereIsUnavailable) {
  server_->Stop();
  EXPECT_ERROR(Fetch({1}), Code::kUnavailable);
}

TEST(ServiceSession, SaysWhatTheLoginSays) {
  const auto login = []() -> Result<ServiceAccess> {
    return Error(Code::kUnauthenticated, "a wrong password");
  };
  EXPECT_ERROR(ServiceSession::Open(login, {}), Code::kUnauthenticated);
}

}  // namespace
}  // namespace controlplane::host
