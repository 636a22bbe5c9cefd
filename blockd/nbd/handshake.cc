#include "blockd/nbd/handshake.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

namespace blockd::nbd {
namespace {

constexpr size_t kOptionHeaderBytes = 16;
constexpr size_t kClientFlagsBytes = 4;

}  // namespace

void PutOptionReply(uint32_t option, OptionReply type, std::string_view data, std::string* out) {
  PutBig(out, kOptionReplyMagic);
  PutBig(out, option);
  PutBig(out, static_cast<uint32_t>(type));
  PutBig(out, static_cast<uint32_t>(data.size()));
  out->append(data);
}

Handshake::Handshake(ExportProvider& provider, Tls tls, MayOpen may_open, MayEnter may_enter)
    : provider_(provider),
      tls_(tls),
      may_open_(std::move(may_open)),
      may_enter_(std::move(may_enter)) {}

std::string Handshake::Greeting() const {
  std::string out;
  PutBig(&out, kMagic);
  PutBig(&out, kOptionMagic);
  PutBig(&out, static_cast<uint16_t>(kFlagFixedNewstyle | kFlagNoZeroes));
  return out;
}

Handshake::Next Handshake::Close(std::string why) {
  why_ = std::move(why);
  return Next::kClose;
}

Handshake::Next Handshake::Feed(base::ByteView input, size_t* used, std::string* out) {
  *used = 0;
  while (true) {
    size_t taken = 0;
    const base::ByteView rest = input.subspan(*used);
    const Next next = flags_read_ ? FeedOption(rest, &taken, out) : FeedFlags(rest, &taken);
    *used += taken;
    if (next != Next::kMore || taken == 0) return next;
  }
}

Handshake::Next Handshake::FeedFlags(base::ByteView input, size_t* used) {
  if (input.size() < kClientFlagsBytes) return Next::kMore;
  const uint32_t flags = LoadBig<uint32_t>(input.data());
  *used = kClientFlagsBytes;
  if ((flags & kFlagFixedNewstyle) == 0) return Close("the client doesn't speak fixed newstyle");
  if ((flags & ~uint32_t{kFlagFixedNewstyle | kFlagNoZeroes}) != 0) {
    return Close(fmt::format("unknown client flags {:#x}", flags));
  }
  no_zeroes_ = (flags & kFlagNoZeroes) != 0;
  flags_read_ = true;
  return Next::kMore;
}

Handshake::Next Handshake::FeedOption(base::ByteView input, size_t* used, std::string* out) {
  if (skip_bytes_ > 0) {
    *used = static_cast<size_t>(std::min<uint64_t>(skip_bytes_, input.size()));
    skip_bytes_ -= *used;
    return Next::kMore;
  }
  if (input.size() < kOptionHeaderBytes) return Next::kMore;
  if (LoadBig<uint64_t>(input.data()) != kOptionMagic) return Close("an option without its magic");
  const uint32_t option = LoadBig<uint32_t>(input.data() + 8);
  const uint32_t length = LoadBig<uint32_t>(input.data() + 12);
  if (length > kMaxOptionBytes) {
    // EXPORT_NAME has no way to say no.
    if (option == static_cast<uint32_t>(Option::kExportName)) return Close("a name too long");
    if (++options_ > kMaxOptions) return Close("too many options");
    PutOptionReply(option, OptionReply::kErrTooBig, "the option's data is too long", out);
    skip_bytes_ = length;
    *used = kOptionHeaderBytes;
    return Next::kMore;
  }
  if (input.size() < kOptionHeaderBytes + length) return Next::kMore;
  *used = kOptionHeaderBytes + length;
  if (++options_ > kMaxOptions) return Close("too many options");
  return Run({option, input.subspan(kOptionHeaderBytes, length)}, out);
}

Handshake::Next Handshake::Run(const Message& message, std::string* out) {
  const auto option = static_cast<Option>(message.option);
  if (option == Option::kAbort) {
    PutOptionReply(message.option, OptionReply::kAck, "", out);
    return Close("the client called it off");
  }
  if (option == Option::kStartTls) {
    const bool possible = tls_ != Tls::kOff;
    if (possible && !secret_ && message.data.empty()) {
      PutOptionReply(message.option, OptionReply::kAck, "", out);
      return Next::kStartTls;
    }
    PutOptionReply(message.option, possible ? OptionReply::kErrInvalid : OptionReply::kErrUnsup, "",
                   out);
    return Next::kMore;
  }
  if (tls_ == Tls::kRequired && !secret_) {
    if (option == Option::kExportName) return Close("TLS is required");
    PutOptionReply(message.option, OptionReply::kErrTlsReqd, "TLS is required", out);
    return Next::kMore;
  }
  switch (option) {
    case Option::kExportName:
      return RunExportName(message, out);
    case Option::kList:
      return RunList(message, out);
    case Option::kInfo:
    case Option::kGo:
      return RunInfoOrGo(message, out);
    case Option::kListMetaContext:
    case Option::kSetMetaContext:
      return RunMetaContext(message, out);
    case Option::kStructuredReply:
      session_.structured_replies |= message.data.empty();
      PutOptionReply(message.option,
                     message.data.empty() ? OptionReply::kAck : OptionReply::kErrInvalid, "", out);
      return Next::kMore;
    default:
      PutOptionReply(message.option, OptionReply::kErrUnsup, "", out);
      return Next::kMore;
  }
}

void Handshake::TlsStarted() {
  secret_ = true;
  session_ = {};
  opened_name_.clear();
  contexts_name_.clear();
}

}  // namespace blockd::nbd
