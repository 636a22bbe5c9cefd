#include "imaged/metadefs.h"

namespace imaged {
namespace {

using base::Code;
using base::Error;
using base::JsonObject;
using base::Result;
using chunkstore::MetaBatch;

constexpr std::string_view kPartition = "metadefs";
constexpr std::string_view kPrefix = "n/";
constexpr int kMaxAttempts = 200;
constexpr size_t kMaxNameBytes = 4 * kMaxMetadefNameCharacters;

std::string KeyOf(std::string_view name) { return std::string(kPrefix).append(name); }

std::string NameOf(const JsonObject& document) {
  return base::FindString(base::Json(document), "namespace").value_or("");
}

Error NotFound(std::string_view name) {
  return Error(Code::kNotFound, "Metadata definition namespace=" +
                                    std::string(name.substr(0, kMaxNameBytes)) + " was not found.");
}
Error Exists(std::string_view name) {
  return Error(Code::kAlreadyExists,
               "The metadata definition namespace=" + std::string(name) + " already exists.");
}

Result<std::string> Encode(const JsonObject& document) {
  std::string bytes = boost::json::serialize(document);
  if (bytes.size() > kMaxNamespaceBytes)
    return Error(Code::kTooLarge, "A metadata definition namespace may have at most " +
                                      std::to_string(kMaxNamespaceBytes) + " bytes.");
  // A body within the depth that is read may be deeper here, inside the document.
  if (!base::ParseJson(bytes).has_value())
    return Error(Code::kInvalidArgument, "The definitions are nested too deeply.");
  return bytes;
}

}  // namespace

Metadefs::Metadefs(chunkstore::MetaStore& meta, const base::Clock& clock)
    : meta_(meta), clock_(clock) {}

std::string Metadefs::Now() const { return base::FormatTimeSeconds(clock_.NowUs()); }

Result<Metadefs::Stored> Metadefs::Load(std::string_view name) {
  if (name.empty() || name.size() > kMaxNameBytes) return NotFound(name);
  Result<std::string> bytes = meta_.Get(kPartition, KeyOf(name));
  if (!bytes.has_value()) {
    if (bytes.error().code() == Code::kNotFound) return NotFound(name);
    return bytes.error();
  }
  Result<base::Json> document = base::ParseJson(*bytes);
  if (!document.has_value() || !document->is_object())
    return Error(Code::kCorruption, "the record of a metadata definition namespace is damaged");
  return Stored{std::move(document->get_object()), *std::move(bytes)};
}

Result<JsonObject> Metadefs::Get(std::string_view name) {
  ASSIGN_OR_RETURN(Stored stored, Load(name));
  return std::move(stored.document);
}

Result<std::vector<JsonObject>> Metadefs::List(
    std::string_view marker, size_t limit, const std::function<bool(const JsonObject&)>& wanted) {
  if (!marker.empty()) {
    RETURN_IF_ERROR(Load(marker));
  }
  std::vector<JsonObject> documents;
  if (limit == 0) return documents;
  Result<void> bad;
  auto visit = [&](std::string_view, std::string_view value) {
    Result<base::Json> document = base::ParseJson(value);
    if (!document.has_value() || !document->is_object()) {
      bad = Error(Code::kCorruption, "the record of a metadata definition namespace is damaged");
      return false;
    }
    if (wanted(document->get_object())) documents.push_back(std::move(document->get_object()));
    return documents.size() < limit;
  };
  const std::string from = marker.empty() ? std::string(kPrefix) : KeyOf(marker) + '\0';
  RETURN_IF_ERROR(meta_.Scan(kPartition, from, chunkstore::PrefixEnd(kPrefix), SIZE_MAX, visit));
  RETURN_IF_ERROR(bad);
  return documents;
}

Result<JsonObject> Metadefs::Create(JsonObject document) {
  const std::string name = NameOf(document);
  ASSIGN_OR_RETURN(std::string bytes, Encode(document));
  MetaBatch batch;
  batch.ExpectAbsent(KeyOf(name)).Put(KeyOf(name), std::move(bytes));
  Result<void> done = chunkstore::CommitDurably(meta_, kPartition, batch);
  if (done.has_value()) return document;
  if (done.error().code() == Code::kConflict) return Exists(name);
  return done.error();
}

Result<JsonObject> Metadefs::Update(std::string_view name, const Change& change) {
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    ASSIGN_OR_RETURN(Stored stored, Load(name));
    RETURN_IF_ERROR(change(stored.document));
    const std::string new_name = NameOf(stored.document);
    if (new_name != name && Load(new_name).has_value()) return Exists(new_name);
    ASSIGN_OR_RETURN(std::string bytes, Encode(stored.document));
    MetaBatch batch;
    batch.ExpectValue(KeyOf(name), std::move(stored.bytes));
    if (new_name != name) batch.ExpectAbsent(KeyOf(new_name)).Delete(KeyOf(name));
    batch.Put(KeyOf(new_name), std::move(bytes));
    Result<void> done = chunkstore::CommitDurably(meta_, kPartition, batch);
    if (done.has_value()) return std::move(stored.document);
    if (done.error().code() != Code::kConflict) return done.error();
  }
  return Error(Code::kUnavailable, "too many changes to this namespace at once; try again");
}

Result<void> Metadefs::Delete(std::string_view name, const Change& check) {
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    ASSIGN_OR_RETURN(Stored stored, Load(name));
    RETURN_IF_ERROR(check(stored.document));
    MetaBatch batch;
    batch.ExpectValue(KeyOf(name), std::move(stored.bytes)).Delete(KeyOf(name));
    Result<void> done = chunkstore::CommitDurably(meta_, kPartition, batch);
    if (done.has_value()) return {};
    if (done.error().code() != Code::kConflict) return done.error();
  }
  return Error(Code::kUnavailable, "too many changes to this namespace at once; try again");
}

}  // namespace imaged
