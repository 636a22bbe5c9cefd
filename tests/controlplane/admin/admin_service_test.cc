#include "controlplane/admin/admin_service.h"

#include <memory>
#include <string>
#include <thread>
#include <utility>

#include <gtest/gtest.h>

#include "base/check.h"
#include "base/uuid.h"
#include "chunkstore/memory/memory_blob_store.h"
#include "chunkstore/memory/memory_meta_store.h"
#include "controlplane/admin/reports.h"
#include "controlplane/admin/schedule.h"
#include "imaged/holder.h"
#include "tests/support/results.h"

namespace controlplane::admin {
namespace {

using base::Code;
using base::Json;
using base::Result;
using base::http::Request;
using base::http::Response;

class NobodyVerifies : public base::auth::TokenVerifier {
 public:
  Result<std::shared_ptr<const base::auth::Caller>> Verify(std::string_view) override {
    return base::Error(Code::kUnauthenticated, "no");
  }
};

class AdminServiceTest : public testing::Test {
 protected:
  AdminServiceTest() {
    auto opened = chunkstore::ChunkStore::Open({}, blobs_, meta_, base::SystemClock(), metrics_);
    CHECK(opened.has_value());
    store_ = *std::move(opened);
    operations_ = std::make_unique<Operations>(base::SystemClock());
    admin_ = std::make_unique<AdminService>(*store_, *operations_, verifier_, scrubs_);
    service_ = admin_->service();
  }

  Result<Response> Call(const std::string& method, const std::string& pattern, Request request) {
    for (const base::http::Route& route : service_.routes) {
      if (route.method == method && route.pattern == pattern) return route.handler(request);
    }
    return base::Error(Code::kNotFound, "no such route in the test");
  }

  std::string Store(const std::string& image_id, std::string_view content) {
    const std::string holder = imaged::HolderPrefix(image_id) + "1";
    auto ingest = store_->NewIngest(holder, "");
    CHECK(ingest.has_value());
    CHECK((*ingest)->Put(0, base::AsBytes(content)).has_value());
    CHECK((*ingest)->Finish(content.size()).has_value());
    return holder;
  }

  // Starts a pass and waits for its report.
  Json Report(const std::string& kind, const std::string& body) {
    Request request;
    request.body = body;
    Result<Response> started = Call("POST", "/v1/" + kind, request);
    CHECK(started.has_value() && started->status == 202);
    Request ask;
    ask.params["id"] = *base::FindString(*base::ParseJson(started->body), "id");
    while (true) {
      Result<Response> state = Call("GET", "/v1/operations/{id}", ask);
      CHECK(state.has_value());
      const Json json = *base::ParseJson(state->body);
      if (base::FindString(json, "state") == "done") return json.at("report");
      CHECK(base::FindString(json, "state") == "running");
      std::this_thread::yield();
    }
  }

  base::Metrics metrics_;
  chunkstore::MemoryBlobStore blobs_;
  chunkstore::MemoryMetaStore meta_;
  NobodyVerifies verifier_;
  base::ManualClock clock_;
  ScrubLog scrubs_{meta_, clock_};
  std::unique_ptr<chunkstore::ChunkStore> store_;
  std::unique_ptr<Operations> operations_;
  std::unique_ptr<AdminService> admin_;
  base::http::Service service_;
};

TEST_F(AdminServiceTest, EveryRouteWantsAnAdmin) {
  EXPECT_EQ(service_.prefix, "/admin");
  EXPECT_GE(service_.routes.size(), 7u);
  for (const base::http::Route& route : service_.routes) {
    EXPECT_EQ(route.access, base::http::Access::kAdmin) << route.method << " " << route.pattern;
  }
}

TEST_F(AdminServiceTest, CollectsWhatWasReleased) {
  const std::string holder = Store(base::NewUuid(), "some bytes of an image");
  EXPECT_EQ(Report("gc", "").at("removed_chunks").to_number<int>(), 0);
  ASSERT_OK(store_->Release(holder));
  EXPECT_EQ(Report("gc", R"({"orphans": true})").at("removed_chunks").to_number<int>(), 1);
}

TEST_F(AdminServiceTest, ScrubFindsNothingWrongWithAGoodStore) {
  Store(base::NewUuid(), "some bytes of an image");
  const Json report = Report("scrub", R"({"repair": false})");
  EXPECT_EQ(report.at("finding_count").to_number<int>(), 0);
  EXPECT_GT(report.at("checked_blobs").to_number<int>(), 0);
  EXPECT_NE(DescribeScrub(report).find("0 problems"), std::string::npos);
}

constexpr int64_t kDayMs = 24 * 3600 * 1000;
constexpr int64_t kDayUs = kDayMs * 1000;

TEST_F(AdminServiceTest, AScrubIsDueAnIntervalAfterTheLastOneThatEnded) {
  ASSERT_OK_AND_ASSIGN(int64_t due, scrubs_.DueInMs(7 * kDayMs));
  EXPECT_EQ(due, 7 * kDayMs) << "counted from when it was first asked";
  clock_.AdvanceUs(5 * kDayUs);
  ASSERT_OK_AND_ASSIGN(due, ScrubLog(meta_, clock_).DueInMs(7 * kDayMs));
  EXPECT_EQ(due, 2 * kDayMs) << "by another process too";
  clock_.AdvanceUs(9 * kDayUs);
  ASSERT_OK_AND_ASSIGN(due, scrubs_.DueInMs(7 * kDayMs));
  EXPECT_EQ(due, 0);
  Report("scrub", "");
  ASSERT_OK_AND_ASSIGN(due, scrubs_.DueInMs(7 * kDayMs));
  EXPECT_EQ(due, 7 * kDayMs);
  clock_.AdvanceUs(-1000 * kDayUs);
  ASSERT_OK_AND_ASSIGN(due, scrubs_.DueInMs(7 * kDayMs));
  EXPECT_EQ(due, 7 * kDayMs) << "a clock that was set back";
}

TEST_F(AdminServiceTest, AServiceThatIsRestartedDailyStillScrubsWeekly) {
  const auto scrubs = [this] { return operations_->DescribeAll()->as_array().size(); };
  ASSERT_OK(scrubs_.Ended());
  for (int day = 1; day <= 8; ++day) {
    clock_.AdvanceUs(kDayUs);
    Schedule schedule({.gc_interval_ms = 0, .scrub_interval_ms = 7 * kDayMs}, *store_, *admin_,
                      scrubs_, clock_);
    if (day < 7) {
      EXPECT_EQ(scrubs(), 0u) << day;
      continue;
    }
    while (scrubs() == 0) std::this_thread::yield();
    while (*base::FindString(operations_->DescribeAll()->at(0), "state") == "running")
      std::this_thread::yield();
    EXPECT_EQ(scrubs(), 1u) << day;
  }
}

TEST_F(AdminServiceTest, RefusesABodyThatItDoesNotUnderstand) {
  for (const char* body : {"[]", "{\"orphans\": 1}", "{\"orphan\": true}", "{"}) {
    Request request;
    request.body = body;
    EXPECT_ERROR(Call("POST", "/v1/gc", request), Code::kInvalidArgument) << body;
  }
}

TEST_F(AdminServiceTest, TellsTheStoresFiguresAndAnImages) {
  const std::string a = base::NewUuid();
  const std::string b = base::NewUuid();
  Store(a, "the same bytes");
  Store(b, "the same bytes");
  ASSERT_OK_AND_ASSIGN(const Response all, Call("GET", "/v1/stats", {}));
  const Json stats = *base::ParseJson(all.body);
  EXPECT_EQ(stats.at("logical_bytes").to_number<int>(), 28);
  EXPECT_EQ(stats.at("unique_bytes").to_number<int>(), 14);
  EXPECT_NE(DescribeStats(stats).find("2.00 x"), std::string::npos);

  Request request;
  request.params["image_id"] = a;
  ASSERT_OK_AND_ASSIGN(const Response one, Call("GET", "/v1/stats/{image_id}", request));
  const Json share = *base::ParseJson(one.body);
  EXPECT_EQ(share.at("unique_bytes").to_number<int>(), 0);
  EXPECT_EQ(share.at("shared_bytes").to_number<int>(), 14);
  request.params["image_id"] = base::NewUuid();
  EXPECT_ERROR(Call("GET", "/v1/stats/{image_id}", request), Code::kNotFound);
  request.params["image_id"] = "../holders";
  EXPECT_ERROR(Call("GET", "/v1/stats/{image_id}", request), Code::kNotFound);
}

}  // namespace
}  // namespace controlplane::admin
