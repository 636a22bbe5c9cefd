#include <vector>

#include "chunkstore/chunk_store_impl.h"

// What ingests that have not ended brought so far. Their tags say it: they are there from the
// moment a chunk is stored, whatever the ingest itself still had in memory when its process died.

namespace chunkstore {
namespace {

using base::Code;
using base::Digest256;
using base::Error;
using base::Result;

constexpr size_t kTagBatch = 256;
constexpr size_t kIdOffset = 1 + sizeof(Token);  // in the key of an ingest's tag

// The next ids that carry an ingest's tag in one partition, from key `from` on, which moves behind
// them.
Result<std::vector<Digest256>> NextTagged(MetaStore& meta, size_t partition, Token token,
                                          std::string* from) {
  const std::string end = PrefixEnd(IngestPrefix('u', token));
  std::vector<Digest256> ids;
  Result<void> decoded;
  RETURN_IF_ERROR(meta.Scan(RecordPartition(partition), *from, end, kTagBatch,
                            [&](std::string_view key, std::string_view) {
                              const Result<Digest256> id = IdOfKey(key, kIdOffset);
                              if (id.has_value()) ids.push_back(*id);
                              if (!id.has_value()) decoded = id.error();
                              *from = std::string(key) + '\0';
                              return decoded.has_value();
                            }));
  RETURN_IF_ERROR(decoded);
  return ids;
}

}  // namespace

Result<void> ChunkStoreImpl::VisitIngest(std::string_view holder, const StoredVisitor& visit) {
  ASSIGN_OR_RETURN(const std::optional<HolderRecord> claimed, GetHolder(holder));
  if (!claimed || claimed->held)
    return Error(Code::kNotFound, "nothing is ingested under \"" + std::string(holder) + "\"");
  for (size_t i = 0; i < kRecordPartitions; ++i) {
    std::string from = IngestPrefix('u', claimed->token);
    for (size_t count = kTagBatch; count == kTagBatch;) {
      ASSIGN_OR_RETURN(const auto ids, NextTagged(meta_, i, claimed->token, &from));
      count = ids.size();
      for (const Digest256& id : ids) {
        ASSIGN_OR_RETURN(const std::optional<Record> record, references_.Find(id));
        if (!record || record->kind != BlobKind::kChunk || !record->is_whole()) continue;
        ASSIGN_OR_RETURN(const bool go_on, visit(id, record->plain_length));
        if (!go_on) return {};
      }
    }
  }
  return {};
}

}  // namespace chunkstore
