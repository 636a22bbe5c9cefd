#include "blockd/tenancy/messages.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/json.h"
#include "base/uuid.h"
#include "blockd/api/errors.h"

namespace blockd::tenancy {
namespace {

using base::Code;
using base::Error;
using base::JsonObject;
using base::Result;

constexpr uint64_t kVersion = 1;

struct TextField {
  std::string_view name;
  std::string MessageRecord::* member;
};
constexpr TextField kTexts[] = {
    {"id", &MessageRecord::id},
    {"project_id", &MessageRecord::project_id},
    {"event_id", &MessageRecord::event_id},
    {"user_message", &MessageRecord::user_message},
    {"level", &MessageRecord::level},
    {"request_id", &MessageRecord::request_id},
    {"resource_type", &MessageRecord::resource_type},
    {"resource_id", &MessageRecord::resource_id},
};

std::string IdKey(std::string_view id) { return "m/i/" + std::string(id); }
std::string ProjectPrefix(std::string_view project) { return "m/p/" + std::string(project) + "/"; }

// Sorts by time: digits of one length.
std::string RecordKey(const MessageRecord& message) {
  std::string time = std::to_string(message.created_at_us);
  time.insert(0, 20 - std::min<size_t>(20, time.size()), '0');
  return ProjectPrefix(message.project_id) + time + message.id;
}

std::string Encode(const MessageRecord& message) {
  JsonObject object = {{"version", kVersion},
                       {"created_at_us", message.created_at_us},
                       {"guaranteed_until_us", message.guaranteed_until_us}};
  for (const TextField& field : kTexts) object.emplace(field.name, message.*field.member);
  return boost::json::serialize(object);
}

Result<MessageRecord> Decode(std::string_view bytes) {
  const Error damaged(Code::kCorruption, "the record of a message is damaged");
  const Result<base::Json> json = base::ParseJson(bytes);
  if (!json.has_value() || base::FindUint(*json, "version") != kVersion) return damaged;
  MessageRecord message;
  for (const TextField& field : kTexts) {
    std::optional<std::string> text = base::FindString(*json, field.name);
    if (!text.has_value()) return damaged;
    message.*field.member = *std::move(text);
  }
  const auto created = base::FindUint(*json, "created_at_us");
  const auto until = base::FindUint(*json, "guaranteed_until_us");
  if (!created.has_value() || !until.has_value()) return damaged;
  message.created_at_us = static_cast<int64_t>(*created);
  message.guaranteed_until_us = static_cast<int64_t>(*until);
  return message;
}

Error NoMessage(std::string_view id) { return api::NotFound("Message", id); }

Result<std::vector<MessageRecord>> All(Catalog& catalog, std::string_view project_id) {
  return catalog.ReadAll<MessageRecord>(ProjectPrefix(project_id), Decode);
}

}  // namespace

Result<MessageRecord> Messages::Add(Transaction& transaction, MessageRecord message) {
  message.id = base::NewUuid();
  message.created_at_us = catalog_.NowUs();
  message.guaranteed_until_us = message.created_at_us + kMessageLifeUs;
  ASSIGN_OR_RETURN(const std::vector<MessageRecord> present, All(catalog_, message.project_id));
  size_t left = present.size();
  for (const MessageRecord& old : present) {  // oldest first
    if (old.guaranteed_until_us >= message.created_at_us && left < kMaxMessagesOfAProject) break;
    transaction.RemoveKey(RecordKey(old));
    transaction.RemoveKey(IdKey(old.id));
    --left;
  }
  const std::string key = RecordKey(message);
  transaction.PutKey(key, Encode(message));
  transaction.PutKey(IdKey(message.id), key);
  return message;
}

Result<void> Messages::Tell(Transaction& transaction, const Notice& notice) {
  MessageRecord message;
  message.project_id = notice.project_id;
  message.event_id = notice.event_id;
  message.user_message = notice.text;
  message.request_id = notice.request_id;
  message.resource_type = notice.resource_type;
  message.resource_id = notice.resource_id;
  RETURN_IF_ERROR(Add(transaction, std::move(message)));
  return {};
}

Result<std::vector<MessageRecord>> Messages::List(std::string_view project_id) {
  ASSIGN_OR_RETURN(std::vector<MessageRecord> messages, All(catalog_, project_id));
  std::erase_if(messages, [now = catalog_.NowUs()](const MessageRecord& message) {
    return message.guaranteed_until_us < now;
  });
  std::reverse(messages.begin(), messages.end());
  return messages;
}

Result<MessageRecord> Messages::Get(std::string_view id) {
  if (!base::IsUuid(id)) return NoMessage(id);
  ASSIGN_OR_RETURN(const std::optional<std::string> key, catalog_.GetKey(IdKey(id)));
  if (!key.has_value()) return NoMessage(id);
  ASSIGN_OR_RETURN(const std::optional<std::string> bytes, catalog_.GetKey(*key));
  if (!bytes.has_value()) return NoMessage(id);
  ASSIGN_OR_RETURN(MessageRecord message, Decode(*bytes));
  if (message.guaranteed_until_us < catalog_.NowUs()) return NoMessage(id);
  return message;
}

Result<void> Messages::Delete(std::string_view id) {
  if (!base::IsUuid(id)) return NoMessage(id);
  return catalog_.Transact([&](Transaction& transaction) -> Result<void> {
    ASSIGN_OR_RETURN(const std::optional<std::string> key, transaction.GetKey(IdKey(id)));
    if (!key.has_value()) return NoMessage(id);
    transaction.RemoveKey(*key);
    transaction.RemoveKey(IdKey(id));
    return {};
  });
}

}  // namespace blockd::tenancy
