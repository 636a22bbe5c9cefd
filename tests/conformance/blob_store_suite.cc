#include "tests/conformance/blob_store_suite.h"

#include <atomic>
#include <map>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "tests/support/results.h"

namespace conformance {

using base::Code;
using chunkstore::BlobStore;

namespace {

std::string RandomText(size_t size, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::string text(size, '\0');
  for (char& c : text) c = static_cast<char>(random());
  return text;
}

base::Result<void> PutText(BlobStore& store, std::string_view name, std::string_view text) {
  base::ByteView bytes = base::AsBytes(text);
  base::ByteView pieces[] = {bytes.first(text.size() / 3), bytes.subspan(text.size() / 3)};
  return store.Put(name, pieces);
}

base::Result<std::string> GetText(BlobStore& store, std::string_view name) {
  ASSIGN_OR_RETURN(uint64_t size, store.Size(name));
  std::string text(size, '\0');
  RETURN_IF_ERROR(store.Get(name, 0, {reinterpret_cast<uint8_t*>(text.data()), size}));
  return text;
}

testing::AssertionResult Holds(BlobStore& store, std::string_view name, std::string_view text) {
  auto read = GetText(store, name);
  if (!read) return testing::AssertionFailure() << read.error().ToString();
  if (*read != text) return testing::AssertionFailure() << name << " holds other bytes";
  return testing::AssertionSuccess();
}

std::map<std::string, uint64_t> ListAll(BlobStore& store) {
  std::map<std::string, uint64_t> names;
  EXPECT_OK(store.List([&](std::string_view name, uint64_t size) {
    EXPECT_TRUE(names.emplace(name, size).second) << name << " is listed twice";
    return true;
  }));
  return names;
}

std::string NameOf(uint64_t number) { return "ab-" + std::to_string(number); }

}  // namespace

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(BlobStoreSuite);

TEST_P(BlobStoreSuite, GivesBackWhatWasPut) {
  for (size_t size : {0, 1, 4096, 100'000, 1 << 22}) {
    std::string name = NameOf(size);
    std::string text = RandomText(size, size);
    ASSERT_OK(PutText(store(), name, text));
    EXPECT_EQ(store().Size(name).value(), size);
    EXPECT_TRUE(Holds(store(), name, text));
  }
}

TEST_P(BlobStoreSuite, JoinsManyPieces) {
  std::string text = RandomText(3000, 1);
  std::vector<base::ByteView> pieces;
  for (size_t i = 0; i < text.size(); ++i) pieces.push_back(base::AsBytes(text).subspan(i, 1));
  pieces.insert(pieces.begin() + 7, base::ByteView());
  ASSERT_OK(store().Put("ff", pieces));
  EXPECT_TRUE(Holds(store(), "ff", text));
}

TEST_P(BlobStoreSuite, ReadsRanges) {
  std::string text = RandomText(10'000, 2);
  ASSERT_OK(PutText(store(), "00-1", text));
  std::vector<uint8_t> part(1234);
  ASSERT_OK(store().Get("00-1", 8766, part));
  EXPECT_EQ(base::AsText(part), text.substr(8766));
  EXPECT_OK(store().Get("00-1", 10'000, base::MutableByteView()));
  EXPECT_ERROR(store().Get("00-1", 8767, part), Code::kCorruption);
  EXPECT_ERROR(store().Get("00-1", UINT64_MAX - 10, part), Code::kCorruption);
}

TEST_P(BlobStoreSuite, AnswersForWhatIsNotThere) {
  std::vector<uint8_t> part(1);
  EXPECT_ERROR(store().Get("aa", 0, part), Code::kNotFound);
  EXPECT_ERROR(store().Size("aa"), Code::kNotFound);
  EXPECT_OK(store().Remove("aa"));
  EXPECT_FALSE(store().OpenFile("aa").has_value());
}

TEST_P(BlobStoreSuite, NeverOverwrites) {
  ASSERT_OK(PutText(store(), "aa", "first"));
  EXPECT_ERROR(PutText(store(), "aa", "second"), Code::kAlreadyExists);
  EXPECT_EQ(GetText(store(), "aa").value(), "first");
}

TEST_P(BlobStoreSuite, RefusesBadNamesEverywhere) {
  std::vector<uint8_t> part(1);
  const std::string kTooLong(BlobStore::kMaxNameBytes + 1, 'a');
  for (const std::string& name :
       {std::string(), std::string("../aa"), std::string("a/b"), std::string("AB"),
        std::string("g"), std::string("."), std::string("a\0b", 3), kTooLong}) {
    SCOPED_TRACE(name);
    EXPECT_ERROR(PutText(store(), name, "x"), Code::kInvalidArgument);
    EXPECT_ERROR(store().Get(name, 0, part), Code::kInvalidArgument);
    EXPECT_ERROR(store().Size(name), Code::kInvalidArgument);
    EXPECT_ERROR(store().Remove(name), Code::kInvalidArgument);
    EXPECT_ERROR(store().OpenFile(name), Code::kInvalidArgument);
  }
  EXPECT_OK(PutText(store(), std::string(BlobStore::kMaxNameBytes, 'f'), "x"));
  EXPECT_OK(PutText(store(), "-", "x"));
}

TEST_P(BlobStoreSuite, RefusesWhatIsTooLarge) {
  std::string text(BlobStore::kMaxBlobBytes + 1, 'x');
  EXPECT_ERROR(PutText(store(), "aa", text), Code::kTooLarge);
  EXPECT_TRUE(ListAll(store()).empty());
}

TEST_P(BlobStoreSuite, GetsMany) {
  ASSERT_OK(PutText(store(), "a0", "0123456789"));
  ASSERT_OK(PutText(store(), "b0", "abcdefghij"));
  std::string x(3, '\0'), y(2, '\0'), z(1, '\0');
  auto view = [](std::string& text) {
    return base::MutableByteView(reinterpret_cast<uint8_t*>(text.data()), text.size());
  };
  std::vector<BlobStore::GetRequest> requests(3);
  requests[0] = {"b0", 1, view(x), {}};
  requests[1] = {"c0", 0, view(z), {}};
  requests[2] = {"a0", 8, view(y), {}};
  store().GetMany(requests);
  ASSERT_OK(requests[0].result);
  EXPECT_ERROR(requests[1].result, Code::kNotFound);
  ASSERT_OK(requests[2].result);
  EXPECT_EQ(x, "bcd");
  EXPECT_EQ(y, "89");
}

TEST_P(BlobStoreSuite, ListsEachNameOnceAndStopsWhenTold) {
  std::map<std::string, uint64_t> expected;
  for (uint64_t i = 0; i < 300; ++i) {
    ASSERT_OK(PutText(store(), NameOf(i), std::string(i, 'x')));
    if (i % 3 == 0) {
      ASSERT_OK(store().Remove(NameOf(i)));
    } else {
      expected[NameOf(i)] = i;
    }
  }
  EXPECT_EQ(ListAll(store()), expected);
  int visits = 0;
  ASSERT_OK(store().List([&](std::string_view, uint64_t) { return ++visits < 5; }));
  EXPECT_EQ(visits, 5);
}

TEST_P(BlobStoreSuite, ListMayCallTheStore) {
  for (uint64_t i = 0; i < 20; ++i) ASSERT_OK(PutText(store(), NameOf(i), "x"));
  ASSERT_OK(store().List([&](std::string_view name, uint64_t) {
    EXPECT_OK(store().Remove(name));
    return true;
  }));
  EXPECT_TRUE(ListAll(store()).empty());
}

TEST_P(BlobStoreSuite, OpensFilesIfItSaysSo) {
  ASSERT_OK(PutText(store(), "aa", "content"));
  auto file = store().OpenFile("aa");
  if (!store().properties().has_files) {
    EXPECT_ERROR(file, Code::kInvalidArgument);
    return;
  }
  ASSERT_OK(file);
  ASSERT_OK(store().Remove("aa"));  // an open file outlives its name
  std::vector<uint8_t> bytes(7);
  ASSERT_OK((*file)->ReadAt(0, bytes));
  EXPECT_EQ(base::AsText(bytes), "content");
}

TEST_P(BlobStoreSuite, KeepsWhatWasPutOverACrash) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    std::string name = NameOf(seed);
    ASSERT_OK(PutText(store(), name, RandomText(5000, seed)));
    harness_->Crash(seed);
    for (uint64_t i = 0; i <= seed; ++i) {
      ASSERT_TRUE(Holds(store(), NameOf(i), RandomText(5000, i))) << i;
    }
  }
}

TEST_P(BlobStoreSuite, PutsAtOnce) {
  constexpr uint64_t kThreads = 8, kEach = 25;
  std::vector<std::thread> threads;
  std::atomic<int> winners = 0;
  for (uint64_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (uint64_t i = 0; i < kEach; ++i) {
        uint64_t number = t * kEach + i;
        EXPECT_OK(PutText(store(), NameOf(number), RandomText(2000, number)));
      }
      if (PutText(store(), "eeee", "all want this one")) ++winners;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(winners, 1);
  harness_->Crash(1);
  for (uint64_t number = 0; number < kThreads * kEach; ++number) {
    ASSERT_TRUE(Holds(store(), NameOf(number), RandomText(2000, number)));
  }
}

TEST_P(BlobStoreSuite, AFullDiskIsOutOfSpaceAndRemovalsMakeRoom) {
  if (!harness_->injects()) GTEST_SKIP() << "no full disk can be had here";
  harness_->SetCapacity(harness_->UsedBytes() + 300'000);
  std::vector<std::string> stored;
  base::Result<void> put;
  for (uint64_t i = 0; i < 10; ++i) {
    put = PutText(store(), NameOf(i), RandomText(100'000, i));
    if (!put) break;
    stored.push_back(NameOf(i));
  }
  EXPECT_ERROR(put, Code::kOutOfSpace);
  ASSERT_FALSE(stored.empty());
  for (size_t i = 0; i < stored.size(); ++i) {
    EXPECT_TRUE(Holds(store(), stored[i], RandomText(100'000, i)));
  }
  ASSERT_OK(store().Remove(stored.back()));
  EXPECT_OK(PutText(store(), "cc", RandomText(90'000, 77)));
}

// A little of everything, with every n-th call below failing once: what was acknowledged is there
// after a crash, what is there is right, and nothing but the names that were tried exists.
TEST_P(BlobStoreSuite, SurvivesEveryFailingCall) {
  if (!harness_->injects()) GTEST_SKIP() << "no failure can be had here";
  int failures = 1;
  uint64_t n = 1;
  for (; failures > 0; ++n) {
    SCOPED_TRACE("call " + std::to_string(n));
    harness_ = GetParam().make();
    harness_->FailCall(n, base::Error(Code::kIo, "injected"));
    failures = 0;
    auto count = [&failures](const auto& result) {
      if (!result) ++failures;
      return result.has_value();
    };
    std::map<std::string, std::string> acknowledged;
    std::map<std::string, std::string> tried;
    for (uint64_t i = 0; i < 4; ++i) {
      std::string text = RandomText(9000 + i, i);
      tried[NameOf(i)] = text;
      if (count(PutText(store(), NameOf(i), text))) acknowledged[NameOf(i)] = text;
      auto read = GetText(store(), NameOf(i));
      if (count(read) && acknowledged.contains(NameOf(i))) EXPECT_TRUE(*read == text);
    }
    acknowledged.erase(NameOf(1));
    count(store().Remove(NameOf(1)));
    harness_->ClearFailures();
    harness_->Crash(n);
    for (const auto& [name, text] : acknowledged) {
      ASSERT_TRUE(Holds(store(), name, text)) << name;
    }
    for (const auto& [name, size] : ListAll(store())) {
      ASSERT_TRUE(tried.contains(name)) << name;
      EXPECT_LE(size, tried[name].size());
      EXPECT_OK(store().Remove(name));
    }
    EXPECT_TRUE(ListAll(store()).empty());
  }
  EXPECT_GT(n, 8u) << "the injection reached nothing";
}

}  // namespace conformance
