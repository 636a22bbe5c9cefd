// The options that name an export, and LIST.

#include <algorithm>
#include <utility>

#include "blockd/nbd/handshake.h"

namespace blockd::nbd {
namespace {

OptionReply ReplyFor(base::Code code) {
  switch (code) {
    case base::Code::kNotFound:
      return OptionReply::kErrUnknown;
    case base::Code::kCancelled:
      return OptionReply::kErrShutdown;
    default:
      return OptionReply::kErrPolicy;
  }
}

std::string BlockSizes() {
  std::string info;
  PutBig(&info, kInfoBlockSize);
  PutBig(&info, kSectorBytes);
  PutBig(&info, kBlockBytes);
  PutBig(&info, kMaxIoBytes);
  return info;
}

}  // namespace

// Opens it once, however often it is named; another name lets go of what was opened before.
base::Result<void> Handshake::Open(std::string_view name) {
  if (session_.exported != nullptr && opened_name_ == name) return {};
  session_.exported = nullptr;
  session_.contexts.clear();
  contexts_name_.clear();
  if (!may_open_(name)) return base::Error(base::Code::kCancelled, "not now: connect again");
  ASSIGN_OR_RETURN(session_.exported, provider_.Open(name));
  opened_name_ = name;
  return {};
}

base::Result<void> Handshake::Enter(std::string_view name) {
  RETURN_IF_ERROR(Open(name));
  if (may_enter_ == nullptr) return {};
  return may_enter_(name, *session_.exported);
}

uint16_t Handshake::TransmissionFlags() const {
  const Export& exported = *session_.exported;
  uint16_t flags = kHasFlags | kSendFlush | kSendFua | kSendCache;
  if (exported.read_only) {
    flags |= kReadOnly;
  } else {
    flags |= kSendTrim | kSendWriteZeroes | kSendFastZero;
  }
  if (exported.multi_conn) flags |= kCanMultiConn;
  if (session_.structured_replies) flags |= kSendDf;
  return flags;
}

Handshake::Next Handshake::RunList(const Message& message, std::string* out) {
  if (!message.data.empty()) {
    PutOptionReply(message.option, OptionReply::kErrInvalid, "LIST takes no data", out);
    return Next::kMore;
  }
  const base::Result<std::vector<std::string>> names = provider_.List();
  if (!names.has_value()) {
    PutOptionReply(message.option, ReplyFor(names.error().code()), names.error().message(), out);
    return Next::kMore;
  }
  const size_t count = std::min<size_t>(names->size(), kMaxListedExports);
  for (size_t i = 0; i < count; ++i) {
    std::string data;
    PutBig(&data, static_cast<uint32_t>((*names)[i].size()));
    data += (*names)[i];
    PutOptionReply(message.option, OptionReply::kServer, data, out);
  }
  PutOptionReply(message.option, OptionReply::kAck, "", out);
  return Next::kMore;
}

Handshake::Next Handshake::RunInfoOrGo(const Message& message, std::string* out) {
  const auto refuse = [&](OptionReply type, std::string_view why) {
    PutOptionReply(message.option, type, why, out);
    return Next::kMore;
  };
  OptionReader reader(message.data);
  std::string_view name;
  uint16_t requests = 0;
  if (!reader.TakeString(&name) || !reader.Take(&requests)) {
    return refuse(OptionReply::kErrInvalid, "the option is cut short");
  }
  if (name.size() > kMaxNameBytes || requests > kMaxInfoRequests) {
    return refuse(OptionReply::kErrTooBig, "the name or the list of requests is too long");
  }
  bool wants_name = false;
  for (uint16_t i = 0; i < requests; ++i) {
    uint16_t type = 0;
    if (!reader.Take(&type)) return refuse(OptionReply::kErrInvalid, "the option is cut short");
    wants_name |= type == kInfoName;
  }
  if (!reader.empty()) return refuse(OptionReply::kErrInvalid, "the option is too long");
  const bool go = message.option == static_cast<uint32_t>(Option::kGo);
  const base::Result<void> opened = go ? Enter(name) : Open(name);
  if (!opened.has_value()) {
    return refuse(ReplyFor(opened.error().code()), opened.error().message());
  }

  std::string info;
  PutBig(&info, kInfoExport);
  PutBig(&info, session_.exported->volume->size_bytes());
  PutBig(&info, TransmissionFlags());
  PutOptionReply(message.option, OptionReply::kInfo, info, out);
  PutOptionReply(message.option, OptionReply::kInfo, BlockSizes(), out);
  if (wants_name) {
    info.clear();
    PutBig(&info, kInfoName);
    info.append(name);
    PutOptionReply(message.option, OptionReply::kInfo, info, out);
  }
  PutOptionReply(message.option, OptionReply::kAck, "", out);
  if (!go) return Next::kMore;
  if (contexts_name_ != name) session_.contexts.clear();
  return Next::kTransmit;
}

Handshake::Next Handshake::RunExportName(const Message& message, std::string* out) {
  const std::string_view name = base::AsText(message.data);
  if (name.size() > kMaxNameBytes) return Close("a name too long");
  const base::Result<void> entered = Enter(name);
  if (!entered.has_value()) return Close(entered.error().ToString());
  if (contexts_name_ != name) session_.contexts.clear();
  PutBig(out, session_.exported->volume->size_bytes());
  PutBig(out, TransmissionFlags());
  constexpr size_t kZeroes = 124;
  if (!no_zeroes_) out->append(kZeroes, '\0');
  return Next::kTransmit;
}

}  // namespace blockd::nbd
