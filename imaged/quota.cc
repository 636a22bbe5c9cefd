#include "imaged/quota.h"

#include "base/json.h"

namespace imaged {
namespace {

using base::Code;
using base::Error;
using base::JsonObject;
using base::Result;

struct Field {
  std::string_view name;  // Glance's
  uint64_t Usage::* amount;
  std::optional<uint64_t> QuotaLimits::* limit;
};
constexpr Field kFields[] = {
    {"image_count_total", &Usage::images, &QuotaLimits::images},
    {"image_size_total", &Usage::bytes, &QuotaLimits::bytes},
    {"image_stage_total", &Usage::staged_bytes, &QuotaLimits::staged_bytes},
    {"image_count_uploading", &Usage::uploads, &QuotaLimits::uploads},
};

}  // namespace

Usage UsageOf(const Image& image) {
  Usage usage;
  usage.images = 1;
  if (image.data.has_value()) usage.bytes = image.data->root.size_bytes;
  usage.bytes += image.raw_bytes;
  if (image.staged.has_value()) usage.staged_bytes = image.staged->root.size_bytes;
  if (image.upload.has_value()) {
    usage.uploads = 1;
    uint64_t& filling = image.upload->kind == UploadKind::kStage ? usage.staged_bytes : usage.bytes;
    filling += image.upload->reserved_bytes;
  }
  return usage;
}

Result<Usage> ChangeUsage(const QuotaLimits& limits, const Usage& used, const Usage& before,
                          const Usage& after) {
  Usage changed;
  for (const Field& field : kFields) {
    const uint64_t present = used.*field.amount;
    const uint64_t freed = before.*field.amount;
    const uint64_t taken = after.*field.amount;
    if (present < freed)
      return Error(Code::kCorruption, "a project's usage record counts less than its images take");
    uint64_t& next = changed.*field.amount;
    if (__builtin_add_overflow(present - freed, taken, &next))
      return Error(Code::kQuotaExceeded, "the size is beyond what can be counted");
    const std::optional<uint64_t>& limit = limits.*field.limit;
    if (limit.has_value() && taken > freed && next > *limit) {
      return Error(Code::kQuotaExceeded,
                   "The project's quota " + std::string(field.name) + " of " +
                       std::to_string(*limit) + " would be exceeded: " + std::to_string(present) +
                       " in use, " + std::to_string(taken - freed) +
                       " more asked for. Delete something, or ask for a higher quota.");
    }
  }
  return changed;
}

std::string EncodeUsage(const Usage& usage) {
  JsonObject object;
  for (const Field& field : kFields) object.emplace(field.name, usage.*field.amount);
  return boost::json::serialize(object);
}

Result<Usage> DecodeUsage(std::string_view bytes) {
  const Error bad(Code::kCorruption, "a project's usage record is not readable");
  Result<base::Json> json = base::ParseJson(bytes);
  if (!json.has_value()) return bad;
  Usage usage;
  for (const Field& field : kFields) {
    const base::Json* value = base::Find(*json, field.name);
    if (value == nullptr) return bad;
    if (value->is_uint64()) {
      usage.*field.amount = value->get_uint64();
    } else if (value->is_int64() && value->get_int64() >= 0) {
      usage.*field.amount = static_cast<uint64_t>(value->get_int64());
    } else {
      return bad;
    }
  }
  return usage;
}

}  // namespace imaged
