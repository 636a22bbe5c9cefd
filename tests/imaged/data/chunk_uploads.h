#pragma once

#include <algorithm>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/hash.h"
#include "chunkstore/map.h"
#include "imaged/chunk_wire.h"
#include "tests/imaged/data/fixture.h"
#include "tests/support/results.h"

// What tests of negotiated uploads have in common. One thread.

namespace imaged {

constexpr size_t kChunk = chunkstore::kChunkBytes;
using Flags = std::vector<bool>;

// An image's bytes with the ids of its chunks.
struct Content {
  explicit Content(std::string content) : bytes(std::move(content)) {
    list.size_bytes = bytes.size();
    for (size_t at = 0; at < bytes.size(); at += kChunk) {
      const base::ByteView chunk = base::AsBytes(Chunk(at / kChunk));
      list.ids.push_back(base::IsZero(chunk) ? base::Digest256{} : base::Sha256(chunk));
    }
  }
  std::string_view Chunk(size_t number) const {
    return std::string_view(bytes).substr(number * kChunk, kChunk);
  }
  ChunkEntry Entry(size_t number, bool sent) const {
    const base::Digest256& id = list.ids[number];
    if (IsHole(id)) return {ChunkHow::kHole, id};
    return {sent ? ChunkHow::kSent : ChunkHow::kNamed, id};
  }
  // As a client that sends these chunks makes it. `entry` (may be empty) changes what is said.
  using ChangeEntry = std::function<void(size_t number, ChunkEntry* entry)>;
  std::string Stream(const Flags& sent, const ChangeEntry& change = nullptr) const {
    std::string stream = EncodeChunkStreamHeader({.size_bytes = bytes.size()});
    for (size_t batch = 0; batch < list.ids.size(); batch += kChunksOfBatch) {
      const size_t end = std::min(list.ids.size(), batch + kChunksOfBatch);
      std::string data;
      for (size_t i = batch; i < end; ++i) {
        ChunkEntry entry = Entry(i, sent[i]);
        if (change) change(i, &entry);
        AppendChunkEntry(&stream, entry);
        if (entry.how == ChunkHow::kSent) data += Chunk(i);
      }
      stream += data;
    }
    return stream;
  }

  std::string bytes;
  ChunkList list;
};

class ChunkUpload : public testing::Test {
 protected:
  std::string Active(std::string_view bytes, std::string_view who = "p1") {
    const std::string id = service_.CreateImage(who);
    EXPECT_EQ(service_.Upload(id, bytes, who).status, 204);
    return id;
  }
  Answer Ask(const std::string& id, const ChunkList& list, std::string_view who = "p1") {
    return service_.Call(who, "POST", "/v2/quarry/images/" + id + "/wanted", EncodeChunkList(list),
                         kChunkListType);
  }
  Flags Wanted(const std::string& id, const ChunkList& list, std::string_view who = "p1") {
    const Answer answer = Ask(id, list, who);
    EXPECT_EQ(answer.status, 200) << answer.body;
    auto flags = DecodeWanted(answer.body, list);
    EXPECT_OK(flags);
    return flags.value_or(Flags());
  }
  // Of a new image of this project.
  Flags WantedBy(std::string_view who, const ChunkList& list) {
    return Wanted(service_.CreateImage(who), list, who);
  }
  Answer Put(const std::string& id, std::string_view stream, std::string_view who = "p1") {
    return service_.Call(who, "PUT", "/v2/images/" + id + "/file", stream, kChunkStreamType);
  }
  void Patch(const std::string& id, std::string_view path, std::string_view value) {
    const Answer patched = service_.Call(
        "admin", "PATCH", "/v2/images/" + id,
        fmt::format(R"([{{"op": "replace", "path": "{}", "value": "{}"}}])", path, value),
        "application/openstack-images-v2.1-json-patch");
    EXPECT_EQ(patched.status, 200) << patched.body;
  }
  uint64_t BlobBytes() {
    uint64_t total = 0;
    EXPECT_OK(service_.blobs().List([&](std::string_view, uint64_t size) {
      total += size;
      return true;
    }));
    return total;
  }
  // The image is as if nothing had been tried, and takes plain bytes.
  void ExpectQueued(const std::string& id) {
    EXPECT_EQ(service_.ImageOf(id).status, Status::kQueued);
    EXPECT_EQ(service_.Upload(id, "plain").status, 204);
  }

  Service service_;
  const Content base_{RandomBytes(3 * kChunk, 1) + std::string(kChunk, '\0') +
                      RandomBytes(kChunk + 77, 2)};
};

}  // namespace imaged
