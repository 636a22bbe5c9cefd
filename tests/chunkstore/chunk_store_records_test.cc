#include <gtest/gtest.h>

#include "base/coding.h"
#include "base/files.h"
#include "chunkstore/references_format.h"
#include "tests/support/results.h"

namespace chunkstore {
namespace {

using base::Code;

base::Digest256 IdOf(std::string_view text) { return base::Sha256(base::AsBytes(text)); }

// Every cut of an encoding is refused.
template <typename Decode>
void ExpectNoCutIsAccepted(const std::string& encoded, const Decode& decode) {
  for (size_t length = 0; length < encoded.size(); ++length)
    EXPECT_ERROR(decode(encoded.substr(0, length)), Code::kCorruption) << length;
  EXPECT_ERROR(decode(encoded + "x"), Code::kCorruption);
  std::string other_version = encoded;
  other_version[0] = 2;
  EXPECT_ERROR(decode(other_version), Code::kCorruption);
}

// FORMAT.md, "Records and keys".
TEST(Records, Golden) {
  const Record record{.kind = BlobKind::kChunk,
                      .suffix = 0x1122334455667788,
                      .incarnation = 0x1122334455667788,
                      .plain_length = 4096,
                      .stored_length = 300,
                      .count = 2};
  EXPECT_EQ(base::ToHex(EncodeRecord(record)),
            "0101008877665544332211887766554433221180"
            "20ac0202");
  EXPECT_EQ(BlobName({base::Digest256{}, 0x1F}), std::string(64, '0') + "-000000000000001f");
  EXPECT_EQ(RecordPartition(0xA7), "c/a7");
  EXPECT_EQ(ScratchPartition(0x1F), "i/000000000000001f");
  EXPECT_EQ(base::ToHex(HolderTag(2)),
            "68"
            "0000000000000002");
  EXPECT_EQ(base::ToHex(IngestTag(2)),
            "75"
            "0000000000000002");
  const std::string id(IdOf("x").view());
  EXPECT_EQ(TagKey(IdOf("x"), HolderTag(2)), "t" + id + HolderTag(2));
  EXPECT_EQ(TagKey(IdOf("x"), IngestTag(2)), IngestTag(2) + id);
}

TEST(Records, GoldenOfSharing) {
  const Record record{.kind = BlobKind::kChunk,
                      .suffix = 0x1122334455667788,
                      .incarnation = 0x1122334455667788,
                      .plain_length = 4096,
                      .stored_length = 300,
                      .count = 2,
                      .partial = true,
                      .lent = 2,
                      .changes = 3,
                      .borrowed_bytes = 0};
  const std::string encoded = EncodeRecord(record);
  EXPECT_EQ(base::ToHex(encoded),
            "0201048877665544332211887766554433221180"
            "20ac0202020300");
  EXPECT_EQ(DecodeRecord(encoded).value(), record);
  for (size_t length = 0; length < encoded.size(); ++length)
    EXPECT_ERROR(DecodeRecord(encoded.substr(0, length)), Code::kCorruption) << length;
  EXPECT_EQ(base::ToHex(EncodeLent(std::vector<uint16_t>{0, 8, 200})), "030008c001");
  EXPECT_EQ(DecodeLent(EncodeLent(std::vector<uint16_t>{0, 8, 1023})).value(),
            (std::vector<uint16_t>{0, 8, 1023}));
  for (const char* bad : {"", "0100ff", "020000", "028008", "0180808008", "02ff0701"})
    EXPECT_ERROR(DecodeLent(base::FromHex(bad).value()), Code::kCorruption) << bad;
  EXPECT_EQ(base::ToHex(EncodeIntent({.suffix = 0x1F})), "000000000000001f");
  EXPECT_EQ(base::ToHex(EncodeIntent({.suffix = 0x1F, .borrows = true})), "000000000000001f01");
  EXPECT_TRUE(DecodeIntent(EncodeIntent({.suffix = 3, .borrows = true})).value().borrows);
  EXPECT_ERROR(DecodeIntent("12345678x"), Code::kCorruption);
}

base::Digest256 Filled(char byte) {
  return base::Digest256::FromBytes(std::string(32, byte)).value();
}

std::string Golden(const std::string& name) {
  const auto bytes =
      base::ReadWholeFile(QUARRY_SOURCE_DIR "/tests/golden/record/v1-" + name, base::kMiB);
  EXPECT_OK(bytes);
  return bytes.value_or("");
}

// What version 1 wrote is written so and read so for ever. The files were made from FORMAT.md
// alone, by another program.
TEST(Records, GoldenFilesOfWhatIsInPartitions) {
  const Record record{.kind = BlobKind::kPage,
                      .bad = true,
                      .building = true,
                      .suffix = 0x1122334455667788,
                      .incarnation = 0x99AABBCCDDEEFF00,
                      .plain_length = 4096,
                      .stored_length = 300,
                      .count = 2};
  EXPECT_EQ(base::ToHex(EncodeRecord(record)), base::ToHex(Golden("record")));
  ASSERT_OK_AND_ASSIGN(const Record record_read, DecodeRecord(Golden("record")));
  EXPECT_EQ(record_read, record);

  const Doomed doomed{.blob = {IdOf("d"), 77},
                      .kind = BlobKind::kPage,
                      .has_references = true,
                      .incarnation = 0x99AABBCCDDEEFF00,
                      .stored_length = 300};
  EXPECT_EQ(base::ToHex(EncodeDoomed(doomed)), base::ToHex(Golden("doomed")));
  ASSERT_OK_AND_ASSIGN(const Doomed doomed_read,
                       DecodeDoomed(DoomedKey(doomed.blob), Golden("doomed")));
  EXPECT_EQ(doomed_read.kind, BlobKind::kPage);
  EXPECT_TRUE(doomed_read.has_references);
  EXPECT_EQ(doomed_read.incarnation, doomed.incarnation);
  EXPECT_EQ(doomed_read.stored_length, 300u);

  const Journal journal{.state = Journal::State::kDone,
                        .expires_us = 1'700'000'060'000'000,
                        .holder = "image/a/1",
                        .targets = true,
                        .root = Filled('\xAA'),
                        .manifest = Filled('\xBB')};
  EXPECT_EQ(base::ToHex(EncodeJournal(journal)), base::ToHex(Golden("journal")));
  ASSERT_OK_AND_ASSIGN(const Journal journal_read, DecodeJournal(Golden("journal")));
  EXPECT_EQ(journal_read.state, Journal::State::kDone);
  EXPECT_EQ(journal_read.expires_us, journal.expires_us);
  EXPECT_EQ(journal_read.holder, "image/a/1");
  EXPECT_TRUE(journal_read.targets);
  EXPECT_EQ(journal_read.root, Filled('\xAA'));
  EXPECT_EQ(journal_read.manifest, Filled('\xBB'));
}

TEST(Records, GoldenFilesOfWhatMakesAHolder) {
  HolderRecord holder;
  holder.token = 0x1122334455667788;
  holder.held = true;
  holder.root = Filled('\xAA');
  holder.size_bytes = 37'748'836;
  holder.nonzero_bytes = 12'582'912;
  holder.manifest = Filled('\xBB');
  holder.since_us = 1'700'000'000'000'000;
  holder.attributes = R"({"name":"x"})";
  EXPECT_EQ(base::ToHex(EncodeHolder(holder)), base::ToHex(Golden("holder")));
  ASSERT_OK_AND_ASSIGN(const HolderRecord holder_read, DecodeHolder(Golden("holder")));
  EXPECT_TRUE(holder_read.held);
  EXPECT_EQ(holder_read.token, holder.token);
  EXPECT_EQ(holder_read.root, holder.root);
  EXPECT_EQ(holder_read.manifest, holder.manifest);
  EXPECT_EQ(holder_read.size_bytes, holder.size_bytes);
  EXPECT_EQ(holder_read.nonzero_bytes, holder.nonzero_bytes);
  EXPECT_EQ(holder_read.since_us, holder.since_us);
  EXPECT_EQ(holder_read.attributes, holder.attributes);

  const Manifest manifest{.holder = "image/a/1",
                          .token = holder.token,
                          .root = holder.root,
                          .size_bytes = holder.size_bytes,
                          .since_us = holder.since_us,
                          .attributes = holder.attributes};
  EXPECT_EQ(base::ToHex(EncodeManifest(manifest)), base::ToHex(Golden("manifest")));
  ASSERT_OK_AND_ASSIGN(const Manifest manifest_read, DecodeManifest(Golden("manifest")));
  EXPECT_EQ(manifest_read.holder, manifest.holder);
  EXPECT_EQ(manifest_read.token, manifest.token);
  EXPECT_EQ(manifest_read.root, manifest.root);
  EXPECT_EQ(manifest_read.size_bytes, manifest.size_bytes);
  EXPECT_EQ(manifest_read.since_us, manifest.since_us);
  EXPECT_EQ(manifest_read.attributes, manifest.attributes);
}

TEST(Records, GoRound) {
  const Record record{.kind = BlobKind::kPage,
                      .bad = true,
                      .building = true,
                      .suffix = UINT64_MAX,
                      .incarnation = 7,
                      .plain_length = kChunkBytes,
                      .stored_length = 8 << 20,
                      .count = UINT64_MAX};
  ASSERT_OK_AND_ASSIGN(const Record again, DecodeRecord(EncodeRecord(record)));
  EXPECT_EQ(again, record);
  ExpectNoCutIsAccepted(EncodeRecord(record), DecodeRecord);

  HolderRecord holder;
  holder.token = 5;
  holder.held = true;
  holder.root = IdOf("root");
  holder.size_bytes = 1ull << 40;
  holder.attributes = std::string(300, 'a');
  ASSERT_OK_AND_ASSIGN(const HolderRecord holder_again, DecodeHolder(EncodeHolder(holder)));
  EXPECT_EQ(EncodeHolder(holder_again), EncodeHolder(holder));
  ExpectNoCutIsAccepted(EncodeHolder(holder), DecodeHolder);

  Journal journal{.state = Journal::State::kDone, .expires_us = 9, .holder = "h", .targets = true};
  journal.manifest = IdOf("manifest");
  ASSERT_OK_AND_ASSIGN(const Journal journal_again, DecodeJournal(EncodeJournal(journal)));
  EXPECT_EQ(EncodeJournal(journal_again), EncodeJournal(journal));
  ExpectNoCutIsAccepted(EncodeJournal(journal), DecodeJournal);

  const Manifest manifest{.holder = "image/a",
                          .token = 3,
                          .root = IdOf("r"),
                          .size_bytes = 17,
                          .since_us = 5,
                          .attributes = "x"};
  ASSERT_OK_AND_ASSIGN(const Manifest manifest_again, DecodeManifest(EncodeManifest(manifest)));
  EXPECT_EQ(EncodeManifest(manifest_again), EncodeManifest(manifest));
  ExpectNoCutIsAccepted(EncodeManifest(manifest), DecodeManifest);

  const Doomed doomed{.blob = {IdOf("d"), 77},
                      .kind = BlobKind::kPage,
                      .has_references = true,
                      .incarnation = 8,
                      .stored_length = 900};
  ASSERT_OK_AND_ASSIGN(const Doomed doomed_again,
                       DecodeDoomed(DoomedKey(doomed.blob), EncodeDoomed(doomed)));
  EXPECT_EQ(doomed_again.blob, doomed.blob);
  EXPECT_EQ(doomed_again.incarnation, 8u);
  EXPECT_TRUE(doomed_again.has_references);
}

TEST(Records, NamesAndTagsGoRoundAndNothingElseIsAccepted) {
  const BlobRef blob{IdOf("b"), 0x123456789ABCDEF0};
  ASSERT_OK_AND_ASSIGN(const BlobRef again, ParseBlobName(BlobName(blob)));
  EXPECT_EQ(again, blob);
  const std::string name = BlobName(blob);
  for (const std::string& bad : {std::string(), name + "0", name.substr(1), "../" + name.substr(3)})
    EXPECT_ERROR(ParseBlobName(bad), Code::kInvalidArgument);
  std::string upper = name;
  upper[0] = 'A';
  EXPECT_ERROR(ParseBlobName(upper), Code::kInvalidArgument);
  ASSERT_OK_AND_ASSIGN(const ParsedTag page, ParseTag(PageTag(IdOf("p"), 42)));
  EXPECT_EQ(page.page, IdOf("p"));
  EXPECT_EQ(page.incarnation, 42u);
  ASSERT_OK_AND_ASSIGN(const ParsedTag holder, ParseTag(HolderTag(43)));
  EXPECT_EQ(holder.token, 43u);
  for (const std::string& bad : {std::string(), std::string("p"), HolderTag(1) + "x"})
    EXPECT_ERROR(ParseTag(bad), Code::kCorruption);
}

}  // namespace
}  // namespace chunkstore
