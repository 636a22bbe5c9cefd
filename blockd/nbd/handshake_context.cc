// LIST_META_CONTEXT and SET_META_CONTEXT.

#include <algorithm>
#include <utility>

#include "blockd/nbd/handshake.h"

namespace blockd::nbd {

// A query names a context, or (when listing) a namespace: "base:". What is unknown matches nothing,
// which is no error.
base::Result<std::vector<Context>> Handshake::Match(std::string_view query, bool list) {
  std::vector<Context> found;
  if (query == kAllocationContext || (list && query == "base:")) {
    found.push_back({std::string(kAllocationContext), nullptr});
    return found;
  }
  const Export& exported = *session_.exported;
  for (const auto& [prefix, since] : {std::pair(kChangedSincePrefix, exported.changed_since),
                                      {kChangedSinceImagePrefix, exported.changed_since_image}}) {
    if (!query.starts_with(prefix) || !since) continue;
    base::Result<std::shared_ptr<ChangedBlocks>> changed = since(query.substr(prefix.size()));
    if (changed.has_value()) {
      found.push_back({std::string(query), std::move(changed).value()});
    } else if (changed.error().code() != base::Code::kNotFound) {
      return std::move(changed).error();
    }
  }
  return found;
}

Handshake::Next Handshake::RunMetaContext(const Message& message, std::string* out) {
  const bool list = message.option == static_cast<uint32_t>(Option::kListMetaContext);
  const auto refuse = [&](OptionReply type, std::string_view why) {
    PutOptionReply(message.option, type, why, out);
    return Next::kMore;
  };
  // A refused SET leaves nothing chosen.
  if (!list) {
    session_.contexts.clear();
    contexts_name_.clear();
  }
  if (!session_.structured_replies) {
    return refuse(OptionReply::kErrInvalid, "ask for structured replies first");
  }
  OptionReader reader(message.data);
  std::string_view name;
  uint32_t count = 0;
  if (!reader.TakeString(&name) || !reader.Take(&count)) {
    return refuse(OptionReply::kErrInvalid, "the option is cut short");
  }
  if (name.size() > kMaxNameBytes || count > kMaxContextQueries) {
    return refuse(OptionReply::kErrTooBig, "the name or the list of queries is too long");
  }
  std::vector<std::string_view> queries(count);
  for (std::string_view& query : queries) {
    if (!reader.TakeString(&query)) {
      return refuse(OptionReply::kErrInvalid, "the option is cut short");
    }
  }
  if (!reader.empty()) return refuse(OptionReply::kErrInvalid, "the option is too long");
  const base::Result<void> opened = Open(name);
  if (!opened.has_value()) {
    const bool unknown = opened.error().code() == base::Code::kNotFound;
    return refuse(unknown ? OptionReply::kErrUnknown : OptionReply::kErrPolicy,
                  opened.error().message());
  }

  if (list && queries.empty()) queries = {"base:"};
  std::vector<Context> contexts;
  for (const std::string_view query : queries) {
    if (query.size() > kMaxNameBytes) return refuse(OptionReply::kErrTooBig, "a query too long");
    base::Result<std::vector<Context>> found = Match(query, list);
    if (!found.has_value()) {
      return refuse(OptionReply::kErrPolicy, found.error().message());
    }
    for (Context& context : *found) {
      const bool known = std::any_of(contexts.begin(), contexts.end(), [&](const Context& other) {
        return other.name == context.name;
      });
      if (!known) contexts.push_back(std::move(context));
    }
    if (contexts.size() > kMaxContexts) return refuse(OptionReply::kErrTooBig, "too many contexts");
  }
  for (size_t i = 0; i < contexts.size(); ++i) {
    std::string data;
    PutBig(&data, list ? 0 : static_cast<uint32_t>(i));
    data += contexts[i].name;
    PutOptionReply(message.option, OptionReply::kMetaContext, data, out);
  }
  PutOptionReply(message.option, OptionReply::kAck, "", out);
  if (!list) {
    session_.contexts = std::move(contexts);
    contexts_name_ = name;
  }
  return Next::kMore;
}

}  // namespace blockd::nbd
