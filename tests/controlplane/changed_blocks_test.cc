#include "controlplane/changed_blocks.h"

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <ostream>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/uuid.h"
#include "blockd/catalog_keys.h"
#include "tests/blockd/api/harness.h"
#include "tests/blockd/chunk/store_world.h"
#include "tests/imaged/api.h"
#include "tests/support/results.h"

namespace controlplane {
namespace {

using base::http::Response;
using blockd::At;
using blockd::BodyOf;
using blockd::CallerPtr;
using blockd::kMyProject;
using blockd::kYourProject;
using blockd::TextAt;
using chunkstore::kChunkBytes;
using chunkstore::Root;
using chunkstore::testing::MakeBytes;

// A content as which chunk stands where; 0 is a hole.
using Chunks = std::vector<size_t>;

struct Stretch {
  uint64_t offset = 0;
  uint64_t length = 0;
  bool zero = false;
  bool operator==(const Stretch&) const = default;
};
void PrintTo(const Stretch& run, std::ostream* out) {
  *out << run.offset / kChunkBytes << "+" << run.length / kChunkBytes << (run.zero ? "z" : "");
}
using Runs = std::vector<Stretch>;

// By looking at every chunk.
Runs Expected(const Chunks& now, const Chunks& then) {
  Runs runs;
  for (size_t i = 0; i < now.size(); ++i) {
    if (now[i] == (i < then.size() ? then[i] : 0)) continue;
    const uint64_t offset = i * uint64_t{kChunkBytes};
    const bool zero = now[i] == 0;
    const bool goes_on = !runs.empty() && runs.back().zero == zero &&
                         runs.back().offset + runs.back().length == offset;
    if (!goes_on) runs.push_back({offset, 0, zero});
    runs.back().length += kChunkBytes;
  }
  return runs;
}

// Stands still, and lets something happen when it is looked at: once.
class EventfulClock : public base::ManualClock {
 public:
  int64_t NowUs() const override {
    if (on_look) std::exchange(on_look, nullptr)();
    return ManualClock::NowUs();
  }
  mutable std::function<void()> on_look;
};

// Both APIs, over one chunk store, with volumes that are sealed when the test says so.
class ChangedBlocksTest : public testing::Test {
 protected:
  ChangedBlocksTest() {
    world_.Open();
    for (const uint32_t seed : {0, 1, 3}) {
      bytes_.push_back(MakeBytes(seed, kChunkBytes));
      ids_.push_back(base::Sha256(base::AsBytes(bytes_.back())));
    }
    images_ = std::make_unique<imaged::Api>(
        imaged::QuotaLimits(), [this](chunkstore::MetaStore&, imaged::Catalog& catalog) {
          changed_ = std::make_unique<ChangedBlocks>(
              ChangedBlocks::Parts{world_.chunks(),
                                   catalog,
                                   {world_.chunks(), volumes_.catalog, world_.store()},
                                   clock_,
                                   kPageChunks});
          return std::vector<base::http::Route>{changed_->ImageRoute()};
        });
    volumes_.Mount(std::vector<blockd::api::Route>{changed_->SnapshotRoute()});
  }

  // --- what there is to compare

  std::string NewImage(std::string_view visibility = "private", const CallerPtr& owner = Mine()) {
    return images_->CreateImage(owner, R"({"visibility": ")" + std::string(visibility) + R"("})");
  }
  void Fill(const std::string& id, const Root& root) {
    const std::string holder = "image/" + id + "/1";
    const auto anybody = [](const imaged::Image&) -> base::Result<void> { return {}; };
    ASSERT_OK(
        images_->catalog().BeginUpload(id, imaged::UploadKind::kData, holder, 1000, 0, anybody));
    imaged::DataFacts facts;
    facts.root = root;
    ASSERT_OK(images_->catalog().FinishUpload(id, holder, holder, facts));
  }
  std::string Image(const Chunks& chunks, std::string_view visibility = "private",
                    const CallerPtr& owner = Mine()) {
    const std::string id = NewImage(visibility, owner);
    const auto root = Store("image/" + id + "/1", chunks, chunks.size() * kChunkBytes);
    EXPECT_OK(root);
    if (root.has_value()) Fill(id, *root);
    return id;
  }
  base::Result<Root> Store(const std::string& holder, const Chunks& chunks, uint64_t size_bytes) {
    ASSIGN_OR_RETURN(const auto ingest, world_.chunks().NewIngest(holder, ""));
    for (size_t i = 0; i < chunks.size(); ++i) {
      const std::string_view bytes =
          std::string_view(bytes_[chunks[i]]).substr(0, size_bytes - i * uint64_t{kChunkBytes});
      const bool whole = bytes.size() == kChunkBytes;
      if (chunks[i] == 0) continue;
      RETURN_IF_ERROR(whole ? ingest->PutHashed(i, base::AsBytes(bytes), ids_[chunks[i]])
                            : ingest->Put(i, base::AsBytes(bytes)));
    }
    return ingest->Finish(size_bytes);
  }

  // A snapshot of a volume with these bytes, put into the chunk store at the next Settle.
  std::string Snapshot(const Chunks& chunks, std::string_view project = kMyProject) {
    const blockd::VolumeRecord volume = volumes_.AddVolume(project, 1, "t");
    EXPECT_OK(world_.Make(volume.id, {}, chunks.size() * kChunkBytes));
    {
      const auto open = world_.store().Open(volume.id);
      EXPECT_OK(open);
      for (size_t i = 0; i < chunks.size(); ++i) {
        if (chunks[i] == 0) continue;
        EXPECT_OK(
            blockd::chunk::testing::Write(**open, i * uint64_t{kChunkBytes}, bytes_[chunks[i]]));
      }
    }
    blockd::SnapshotRecord snapshot;
    snapshot.id = base::NewUuid();
    snapshot.volume_id = volume.id;
    snapshot.project_id = std::string(project);
    snapshot.size_gb = 1;
    snapshot.status = blockd::SnapshotStatus::kAvailable;
    EXPECT_OK(world_.store().Snapshot(volume.id, snapshot.id));
    EXPECT_OK(volumes_.catalog.Transact(
        [&](blockd::Transaction& transaction) { return transaction.Put(snapshot); }));
    return snapshot.id;
  }

  // --- asking

  static CallerPtr Mine() { return blockd::MemberOf(kMyProject); }

  Response OfImage(const std::string& id, const std::string& query,
                   const CallerPtr& caller = Mine()) {
    return images_->Call(caller, "GET", "/v2/images/" + id + "/changed?" + query);
  }
  Response OfSnapshot(const std::string& id, const std::string& query,
                      const CallerPtr& caller = Mine()) {
    return volumes_.Call(caller, "GET", "/snapshots/" + id + "/changed?" + query);
  }
  using Ask = std::function<Response(const std::string& query)>;
  Ask AskImage(const std::string& id) {
    return [this, id](const std::string& query) { return OfImage(id, query); };
  }
  Ask AskSnapshot(const std::string& id) {
    return [this, id](const std::string& query) { return OfSnapshot(id, query); };
  }

  static Runs RunsOf(const Response& response) {
    const base::Json body = BodyOf(response);
    const base::Json& changed = At(body, "changed");
    Runs runs;
    if (!changed.is_array()) {
      ADD_FAILURE() << response.body;
      return runs;
    }
    for (const base::Json& run : changed.get_array()) {
      runs.push_back({base::FindUint(run, "offset").value_or(1),
                      base::FindUint(run, "length").value_or(0), At(run, "zero").as_bool()});
    }
    return runs;
  }
  static std::string TokenOf(const Response& response) {
    return TextAt(response, "next_page_token");
  }

  // Page by page; a run that a page's end cut is put together again.
  static Runs All(const Ask& ask, const std::string& query, size_t limit, size_t* pages = nullptr) {
    Runs all;
    std::string token;
    do {
      const Response page = ask(query + "&limit=" + std::to_string(limit) +
                                (token.empty() ? "" : "&page_token=" + token));
      EXPECT_EQ(page.status, 200) << page.body;
      const Runs runs = RunsOf(page);
      EXPECT_LE(runs.size(), limit);
      EXPECT_EQ(TextAt(page, "expires_at").empty(), TokenOf(page).empty());
      for (const Stretch& run : runs) {
        const bool goes_on = !all.empty() && all.back().zero == run.zero &&
                             all.back().offset + all.back().length == run.offset;
        if (goes_on) all.back().length += run.length;
        if (!goes_on) all.push_back(run);
      }
      token = TokenOf(page);
      if (pages != nullptr) ++*pages;
      if (page.status != 200) break;
    } while (!token.empty());
    return all;
  }

  static constexpr uint64_t kPageChunks = 40;

  EventfulClock clock_;
  blockd::chunk::testing::StoreWorld world_;
  blockd::Harness volumes_;
  std::unique_ptr<ChangedBlocks> changed_;
  std::unique_ptr<imaged::Api> images_;
  std::vector<std::string> bytes_;
  std::vector<base::Digest256> ids_;
};

TEST_F(ChangedBlocksTest, PagesOfAnySizeTellWhatDiffers) {
  std::mt19937_64 random(11);
  std::vector<Chunks> contents;
  std::vector<std::string> images;
  for (const size_t size : {30, 31, 17, 1030}) {
    Chunks chunks(size);
    for (size_t i = 0; i < size; ++i) {
      // Alike for the most part, so that there are long runs, too.
      const bool as_before = !contents.empty() && i < contents[0].size() && random() % 3 != 0;
      const bool is_hole = i > 40 && i < 1000;
      chunks[i] = as_before ? contents[0][i] : is_hole ? 0 : random() % 3;
    }
    images.push_back(Image(chunks));
    contents.push_back(std::move(chunks));
  }
  for (size_t now = 0; now < images.size(); ++now) {
    const Response whole = OfImage(images[now], "since=" + images[0]);
    EXPECT_EQ(base::FindUint(BodyOf(whole), "size"), contents[now].size() * kChunkBytes);
    EXPECT_EQ(base::FindUint(BodyOf(whole), "block_size"), kChunkBytes);
    for (const size_t limit : {1, 2, 3, 7, 1000}) {
      for (size_t then = 0; then < images.size(); ++then) {
        EXPECT_EQ(All(AskImage(images[now]), "since=" + images[then], limit),
                  Expected(contents[now], contents[then]))
            << now << " since " << then << " by " << limit;
      }
      EXPECT_EQ(All(AskImage(images[now]), "", limit), Expected(contents[now], {}));
    }
  }
}

TEST_F(ChangedBlocksTest, ImagesAndSnapshotsWithoutACommonPast) {
  const Chunks a = {1, 0, 2, 2};
  const Chunks b = {1, 1, 0, 2, 1};
  const std::string image = Image(a);
  const std::string snapshot = Snapshot(b);
  const std::string same = Snapshot(a);
  world_.Settle();
  EXPECT_EQ(RunsOf(OfSnapshot(snapshot, "since=" + image)), Expected(b, a));
  EXPECT_EQ(RunsOf(OfImage(image, "since=" + snapshot)), Expected(a, b));
  EXPECT_EQ(RunsOf(OfSnapshot(snapshot, "since=" + same)), Expected(b, a));
  EXPECT_EQ(RunsOf(OfSnapshot(snapshot, "")), Expected(b, {}));
  const Runs none;
  EXPECT_EQ(RunsOf(OfSnapshot(same, "since=" + image)), none);
  EXPECT_EQ(RunsOf(OfImage(image, "since=" + same)), none);
  EXPECT_EQ(RunsOf(OfImage(image, "since=" + image)), none);
}

TEST_F(ChangedBlocksTest, TheLastRunEndsWhereTheImageEnds) {
  const std::string id = NewImage();
  const uint64_t size_bytes = kChunkBytes + 5;
  ASSERT_OK_AND_ASSIGN(const Root root, Store("image/" + id + "/1", {1, 2}, size_bytes));
  Fill(id, root);
  const std::string longer = Image({1, 2});
  const Runs last = {{kChunkBytes, 5, false}};
  EXPECT_EQ(RunsOf(OfImage(id, "since=" + longer)), last);
  EXPECT_EQ(RunsOf(OfImage(longer, "since=" + id)), Expected({1, 2}, {1}));
  const std::string empty = NewImage();
  ASSERT_OK_AND_ASSIGN(const Root nothing, Store("image/" + empty + "/1", {}, 0));
  Fill(empty, nothing);
  EXPECT_EQ(RunsOf(OfImage(empty, "since=" + longer)), Runs());
  EXPECT_EQ(RunsOf(OfImage(longer, "since=" + empty)), Expected({1, 2}, {}));
}

TEST_F(ChangedBlocksTest, APageLooksAtSoManyChunksAtMost) {
  const Chunks chunks(3 * kPageChunks - 1, 1);
  const std::string image = Image(chunks);
  size_t pages = 0;
  const Runs runs = All(AskImage(image), "", 1000, &pages);
  EXPECT_EQ(pages, 3u);
  EXPECT_EQ(runs, Expected(chunks, {}));
  const Runs first = {{0, kPageChunks * kChunkBytes, false}};
  EXPECT_EQ(RunsOf(OfImage(image, "")), first);
}

TEST_F(ChangedBlocksTest, ATokenIsOfOneComparisonAndExpires) {
  const std::string a = Image({1, 0, 2, 0, 1});
  const std::string b = Image({2, 0, 1, 0, 2});
  const std::string c = Image({0, 0, 0, 0, 2});
  const std::string snapshot = Snapshot({1, 0, 2, 0, 1});
  world_.Settle();
  const std::string query = "limit=1&since=" + b;
  const std::string token = TokenOf(OfImage(a, query));
  ASSERT_FALSE(token.empty());
  const auto status = [&](const std::string& id, const std::string& since, const std::string& of) {
    return OfImage(id, (since.empty() ? "" : "since=" + since + "&") + "page_token=" + of).status;
  };
  EXPECT_EQ(status(a, b, token), 200);
  EXPECT_EQ(status(b, a, token), 400);
  EXPECT_EQ(status(a, c, token), 400);
  EXPECT_EQ(status(a, "", token), 400);
  EXPECT_EQ(status(a, b, TokenOf(OfImage(a, "limit=1"))), 400);
  // It is bound to bytes, not to names.
  EXPECT_EQ(OfSnapshot(snapshot, query + "&page_token=" + token).status, 200);

  EXPECT_EQ(status(a, b, ""), 400);
  EXPECT_EQ(status(a, b, "x"), 400);
  EXPECT_EQ(status(a, b, token + "AA"), 400);
  EXPECT_EQ(status(a, b, token.substr(0, 22)), 400);
  for (size_t i = 0; i < token.size(); ++i) {
    std::string other = token;
    other[i] = other[i] == 'A' ? 'B' : 'A';
    EXPECT_EQ(status(a, b, other), 400) << other;
  }

  clock_.AdvanceUs(kPageTokenMs * 1000 - 1);
  EXPECT_EQ(status(a, b, token), 200);
  clock_.AdvanceUs(1);
  const Response expired = OfImage(a, query + "&page_token=" + token);
  EXPECT_EQ(expired.status, 400);
  EXPECT_NE(expired.body.find("page_token has expired"), std::string::npos) << expired.body;
}

TEST_F(ChangedBlocksTest, WhoMayAsk) {
  const std::string image = Image({1});
  const std::string snapshot = Snapshot({1});
  world_.Settle();
  const CallerPtr stranger = blockd::MemberOf(kYourProject);
  for (const auto& [caller, status] : {std::pair<CallerPtr, int>{nullptr, 401},
                                       {blockd::Reader(), 200},
                                       {Mine(), 200},
                                       {stranger, 404},
                                       {blockd::Admin(), 200}}) {
    EXPECT_EQ(OfImage(image, "", caller).status, status);
    EXPECT_EQ(OfSnapshot(snapshot, "", caller).status, status);
  }
}

// What is hidden is told apart from what does not exist by nothing: status, words, or headers.
TEST_F(ChangedBlocksTest, AnothersThingsAreNotThere) {
  const std::string mine = Image({1});
  const std::string my_snapshot = Snapshot({1});
  const CallerPtr you = blockd::MemberOf(kYourProject);
  const std::string yours = Image({1}, "private", you);
  const std::string your_snapshot = Snapshot({1}, kYourProject);
  const std::string of_all = Image({1}, "community", you);
  world_.Settle();
  const auto without = [](const Response& response, const std::string& id) {
    std::string text = std::to_string(response.status) + response.body;
    for (const auto& [name, value] : response.headers.fields()) text += name + value;
    for (size_t at = text.find(id); at != std::string::npos; at = text.find(id))
      text.replace(at, id.size(), "ID");
    return text;
  };
  const std::string nobodys = base::NewUuid();
  for (const std::string& hidden : {yours, your_snapshot}) {
    EXPECT_EQ(OfImage(mine, "since=" + hidden).status, 404);
    EXPECT_EQ(without(OfImage(mine, "since=" + hidden), hidden),
              without(OfImage(mine, "since=" + nobodys), nobodys));
    EXPECT_EQ(without(OfSnapshot(my_snapshot, "since=" + hidden), hidden),
              without(OfSnapshot(my_snapshot, "since=" + nobodys), nobodys));
    EXPECT_EQ(without(OfImage(hidden, ""), hidden), without(OfImage(nobodys, ""), nobodys));
    EXPECT_EQ(without(OfSnapshot(hidden, ""), hidden), without(OfSnapshot(nobodys, ""), nobodys));
  }
  EXPECT_EQ(OfSnapshot(my_snapshot, "since=" + of_all).status, 200);
  for (const char* wrong : {"", "x", "%2e%2e"})
    EXPECT_EQ(OfImage(mine, "since=" + std::string(wrong)).status, 404) << wrong;
  // An image is no snapshot, in either path.
  EXPECT_EQ(OfImage(my_snapshot, "").status, 404);
  EXPECT_EQ(OfSnapshot(mine, "").status, 404);
}

TEST_F(ChangedBlocksTest, ADeactivatedImageIsNotRead) {
  const std::string image = Image({1});
  const std::string other = Image({2});
  ASSERT_EQ(images_->Call(Mine(), "POST", "/v2/images/" + image + "/actions/deactivate").status,
            204);
  EXPECT_EQ(OfImage(image, "").status, 403);
  EXPECT_EQ(OfImage(other, "since=" + image).status, 403);
  EXPECT_EQ(OfImage(other, "since=" + image, blockd::Admin()).status, 200);
}

TEST_F(ChangedBlocksTest, RightsAndThingsMayGoBetweenPages) {
  const std::string now = Image({1, 0, 1, 0, 1});
  const std::string then = Image({2, 0, 2, 0, 2}, "shared", blockd::MemberOf(kYourProject));
  const CallerPtr you = blockd::MemberOf(kYourProject);
  const std::string members = "/v2/images/" + then + "/members";
  const std::string me(kMyProject);
  ASSERT_EQ(images_->Call(you, "POST", members, R"({"member": ")" + me + R"("})").status, 200);
  const std::string query = "limit=1&since=" + then;
  const std::string next = query + "&page_token=" + TokenOf(OfImage(now, query));
  EXPECT_EQ(OfImage(now, next).status, 200);
  ASSERT_EQ(images_->Call(you, "DELETE", members + "/" + me).status, 204);
  EXPECT_EQ(OfImage(now, next).status, 404);

  const std::string mine = Image({2, 0, 2, 0, 2});
  const std::string again =
      "limit=1&since=" + mine + "&page_token=" + TokenOf(OfImage(now, "limit=1&since=" + mine));
  EXPECT_EQ(OfImage(now, again).status, 200);
  ASSERT_EQ(images_->Call(Mine(), "DELETE", "/v2/images/" + mine).status, 204);
  EXPECT_EQ(OfImage(now, again).status, 404);
  ASSERT_EQ(images_->Call(Mine(), "DELETE", "/v2/images/" + now).status, 204);
  EXPECT_EQ(OfImage(now, "").status, 404);
}

TEST_F(ChangedBlocksTest, WhatIsNotReadyYet) {
  const std::string image = Image({1});
  const std::string queued = NewImage();
  EXPECT_EQ(OfImage(queued, "").status, 409);
  EXPECT_EQ(OfImage(image, "since=" + queued).status, 409);

  const std::string snapshot = Snapshot({2});
  const Response unsealed = OfSnapshot(snapshot, "since=" + image);
  EXPECT_EQ(unsealed.status, 503);
  EXPECT_NE(blockd::Message(unsealed, "serviceUnavailable"), "") << unsealed.body;
  EXPECT_EQ(OfImage(image, "since=" + snapshot).status, 503);
  world_.Settle();
  EXPECT_EQ(RunsOf(OfSnapshot(snapshot, "since=" + image)), Expected({2}, {1}));

  ASSERT_OK(volumes_.catalog.Transact([&](blockd::Transaction& transaction) -> base::Result<void> {
    ASSIGN_OR_RETURN(blockd::SnapshotRecord record, transaction.GetSnapshot(snapshot));
    record.status = blockd::SnapshotStatus::kDeleting;
    return transaction.Put(record);
  }));
  const Response deleting = OfSnapshot(snapshot, "");
  EXPECT_EQ(deleting.status, 400);
  EXPECT_NE(blockd::Message(deleting, "badRequest"), "") << deleting.body;
}

TEST_F(ChangedBlocksTest, LimitsThatAreNone) {
  const std::string image = Image({1});
  const std::string snapshot = Snapshot({1});
  world_.Settle();
  for (const char* limit : {"", "0", "-1", "10001", "1e3", "x", "99999999999999999999", "1%20"}) {
    EXPECT_EQ(OfImage(image, "limit=" + std::string(limit)).status, 400) << limit;
    EXPECT_EQ(OfSnapshot(snapshot, "limit=" + std::string(limit)).status, 400) << limit;
  }
  EXPECT_EQ(OfImage(image, "limit=10000").status, 200);
}

// The store collects what was deleted a moment ago, under the comparison.
TEST_F(ChangedBlocksTest, WhatIsDeletedMeanwhileIsNotThere) {
  Chunks chunks(1030, 0);
  chunks[0] = chunks[2] = chunks[1025] = 1;  // the last one is on another page of the map
  const std::string image = Image(chunks);
  const std::string token = TokenOf(OfImage(image, "limit=1"));
  clock_.on_look = [&] {
    EXPECT_EQ(images_->Call(Mine(), "DELETE", "/v2/images/" + image).status, 204);
    EXPECT_OK(world_.chunks().Release("image/" + image + "/1"));
    EXPECT_OK(world_.chunks().Collect(false, nullptr));
  };
  const Response gone = OfImage(image, "page_token=" + token);
  EXPECT_EQ(gone.status, 404);
  EXPECT_NE(gone.body.find("No image found with ID " + image), std::string::npos) << gone.body;
}

}  // namespace
}  // namespace controlplane
