#include "imaged/kept_parts.h"

#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/clock.h"
#include "base/metrics.h"
#include "imaged/holder.h"
#include "tests/imaged/data/chunk_uploads.h"
#include "tests/support/results.h"

// What becomes of uploads whose process died or stands still: a store of their own, over the same
// back ends, plays it.

namespace imaged {
namespace {

Catalog::Check Anybody() {
  return [](const Image&) { return base::Result<void>(); };
}

class KeptParts : public testing::Test {
 protected:
  static Service::Options OptionsOf(uint64_t kept_bytes) {
    Service::Options options = Service::Defaults();
    options.data.kept_bytes = kept_bytes;
    options.data.lease_ms = kLeaseMs;
    return options;
  }

  explicit KeptParts(uint64_t kept_bytes = base::kGiB) : service_(OptionsOf(kept_bytes)) {
    auto store = chunkstore::ChunkStore::Open({}, service_.blobs(), service_.meta(),
                                              base::SystemClock(), other_metrics_);
    EXPECT_OK(store);
    other_ = *std::move(store);
  }

  struct Upload {
    std::string image_id;
    std::string holder;
    std::unique_ptr<chunkstore::Ingest> ingest;
  };
  // The other process takes some chunks of this; and no more of it is heard.
  Upload BeginElsewhere(const Content& content, const std::vector<size_t>& chunks,
                        std::string_view keep_for = "p1", int64_t lease_ms = 600'000) {
    Upload upload;
    upload.image_id = service_.CreateImage();
    upload.holder = NewHolder(upload.image_id);
    auto ingest = other_->NewIngest(upload.holder, "");
    EXPECT_OK(ingest);
    upload.ingest = *std::move(ingest);
    for (const size_t i : chunks) {
      EXPECT_OK(upload.ingest->Put(i, base::AsBytes(content.Chunk(i))));
    }
    // Last, so that nobody finds it abandoned before.
    EXPECT_OK(service_.catalog().BeginUpload(upload.image_id, UploadKind::kData, upload.holder,
                                             lease_ms, 0, Anybody(), keep_for));
    return upload;
  }
  Flags Wanted(const Content& content, std::string_view who = "p1") {
    const std::string id = service_.CreateImage(who);
    const Answer answer = service_.Call(who, "POST", "/v2/quarry/images/" + id + "/wanted",
                                        EncodeChunkList(content.list), kChunkListType);
    EXPECT_EQ(answer.status, 200) << answer.body;
    auto flags = DecodeWanted(answer.body, content.list);
    EXPECT_OK(flags);
    return flags.value_or(Flags());
  }
  std::vector<chunkstore::ChunkStore::Held> Parts() {
    auto parts = service_.store().Holders(kPartHolderPrefix, "", 100);
    EXPECT_OK(parts);
    return *parts;
  }
  uint64_t BytesOfParts() {
    uint64_t bytes = 0;
    for (const auto& part : Parts()) bytes += part.root.has_value() ? part.root->size_bytes : 0;
    return bytes;
  }
  void ExpectNothingLeft() {
    for (const auto& part : Parts()) ASSERT_OK(service_.store().Release(part.holder));
    EXPECT_EQ(service_.BytesAfterCollect(), 0u);
    ASSERT_OK_AND_ASSIGN(const auto report, service_.store().Scrub(false, nullptr));
    EXPECT_EQ(report.finding_count, 0u);
    EXPECT_EQ(report.leaked_references, 0u);
  }

  static constexpr int64_t kLeaseMs = 300;
  Service service_;
  base::Metrics other_metrics_;
  std::unique_ptr<chunkstore::ChunkStore> other_;
  const Content base_{RandomBytes(3 * kChunk, 1) + std::string(kChunk, '\0') +
                      RandomBytes(kChunk + 77, 2)};
};

TEST_F(KeptParts, OfAProcessThatDiedAreThereWhenTheServiceIsBack) {
  Upload upload = BeginElsewhere(base_, {0, 2, 5});
  service_.Restart();
  EXPECT_EQ(service_.ImageOf(upload.image_id).status, Status::kQueued);
  EXPECT_EQ(Wanted(base_), Flags({false, true, false, false, true, false}));
  EXPECT_EQ(Wanted(base_, "p2"), Flags({true, true, true, false, true, true}));
  EXPECT_EQ(BytesOfParts(), 2 * kChunk + 77);
  // The collector takes what was abandoned, and the part stays.
  upload.ingest.reset();
  service_.BytesAfterCollect();
  EXPECT_EQ(Wanted(base_), Flags({false, true, false, false, true, false}));
  service_.Restart();
  EXPECT_EQ(Parts().size(), 1u) << "it is kept once";
  ExpectNothingLeft();
}

// One that stands still while its lease ends: another process keeps the part, the image is queued,
// and who wakes up finds that it was called off.
TEST_F(KeptParts, OfAProcessThatStandsStill) {
  Upload upload = BeginElsewhere(base_, {0, 1}, "p1", 0);
  ASSERT_TRUE(service_.Eventually(
      [&] { return service_.ImageOf(upload.image_id).status == Status::kQueued; }));
  EXPECT_EQ(Wanted(base_), Flags({false, false, true, false, true, true}));
  // It wakes up, and goes on for a moment.
  EXPECT_OK(upload.ingest->Put(2, base::AsBytes(base_.Chunk(2))));
  EXPECT_EQ(
      service_.catalog().RenewUpload(upload.image_id, upload.holder, kLeaseMs, 0).error().code(),
      base::Code::kNotFound);
  ASSERT_OK(upload.ingest->Abort());
  service_.BytesAfterCollect();
  EXPECT_EQ(Wanted(base_), Flags({false, false, true, false, true, true}));
  ExpectNothingLeft();
}

// Its process died between the last byte and the image's record.
TEST_F(KeptParts, OfAnUploadThatHadAll) {
  Upload upload = BeginElsewhere(base_, {0, 1, 2, 4, 5});
  ASSERT_OK(upload.ingest->Finish(base_.bytes.size()));
  upload.ingest.reset();
  service_.Restart();
  EXPECT_EQ(service_.ImageOf(upload.image_id).status, Status::kQueued);
  EXPECT_EQ(Wanted(base_), Flags(6, false));
  EXPECT_EQ(Parts().size(), 1u);
  ExpectNothingLeft();
}

TEST_F(KeptParts, OnlyOfNegotiatedUploads) {
  Upload upload = BeginElsewhere(base_, {0, 1}, "");
  service_.Restart();
  EXPECT_EQ(service_.ImageOf(upload.image_id).status, Status::kQueued);
  EXPECT_EQ(Parts().size(), 0u);
  upload.ingest.reset();
  ExpectNothingLeft();
}

TEST_F(KeptParts, NotOfAnImageThatIsGone) {
  Upload upload = BeginElsewhere(base_, {0, 1});
  ASSERT_EQ(service_.Call("p1", "DELETE", "/v2/images/" + upload.image_id).status, 204);
  service_.Restart();
  EXPECT_EQ(Parts().size(), 0u);
  upload.ingest.reset();
  ExpectNothingLeft();
}

// The collector was there first: what it left is kept, and that may be nothing.
TEST_F(KeptParts, OfAnIngestThatIsGivenUpMeanwhile) {
  Upload upload = BeginElsewhere(base_, {0, 1});
  ASSERT_OK(upload.ingest->Abort());
  EXPECT_OK(KeepPart(service_.path(), "p1", upload.holder));
  EXPECT_EQ(Parts().size(), 0u);
  service_.Restart();
  ExpectNothingLeft();
}

class FewKeptBytes : public KeptParts {
 protected:
  FewKeptBytes() : KeptParts(3 * kChunk) {}
};

TEST_F(FewKeptBytes, AreOfTheNewestPart) {
  Upload first = BeginElsewhere(base_, {0, 1});
  ASSERT_OK(KeepPart(service_.path(), "p1", first.holder));
  const Content other(RandomBytes(2 * kChunk, 9));
  Upload second = BeginElsewhere(other, {0, 1});
  ASSERT_OK(KeepPart(service_.path(), "p2", second.holder));
  EXPECT_EQ(Parts().size(), 2u) << "each project has its own limit";
  EXPECT_EQ(service_.metrics().GetGauge("quarry_imaged_kept_bytes", "").value(), 4.0 * kChunk);
  ASSERT_OK(KeepPart(service_.path(), "p1", second.holder));
  ASSERT_EQ(Parts().size(), 2u) << "the oldest of p1 is gone";
  EXPECT_EQ(Wanted(base_), Flags({true, true, true, false, true, true}));
  EXPECT_EQ(Wanted(other), Flags({false, false}));
  first.ingest.reset();
  second.ingest.reset();
  service_.Restart();
  ExpectNothingLeft();
}

// As much of it as may be kept, whichever chunks these are.
TEST_F(FewKeptBytes, OfALargePart) {
  Upload upload = BeginElsewhere(base_, {0, 1, 2, 4, 5});
  ASSERT_OK(KeepPart(service_.path(), "p1", upload.holder));
  EXPECT_LE(BytesOfParts(), 3 * kChunk);
  EXPECT_GT(BytesOfParts(), 2 * kChunk);
  upload.ingest.reset();
  service_.Restart();
  ExpectNothingLeft();
}

class NoKeptBytes : public KeptParts {
 protected:
  NoKeptBytes() : KeptParts(0) {}
};

TEST_F(NoKeptBytes, KeepNothing) {
  Upload upload = BeginElsewhere(base_, {0, 1});
  service_.Restart();
  EXPECT_EQ(Parts().size(), 0u);
  upload.ingest.reset();
  ExpectNothingLeft();
}

}  // namespace
}  // namespace imaged
