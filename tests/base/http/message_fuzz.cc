#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "base/check.h"
#include "base/http/wire.h"
#include "base/limits.h"

namespace {

using base::ByteView;
using base::http::MessageParser;

// What became of a message, as text: two ways to hand over the same bytes must tell the same.
std::string Parse(MessageParser::Kind kind, ByteView input, size_t step) {
  MessageParser parser(kind);
  size_t arrived = 0;
  MessageParser::HeadStep head;
  while (head.consumed == 0 && head.error_status == 0 && arrived < input.size()) {
    arrived = std::min(arrived + step, input.size());
    head = parser.Head(input.first(arrived));
    CHECK(head.consumed <= arrived);
  }
  if (head.error_status != 0) return std::to_string(head.error_status);
  if (head.consumed == 0) return "more";
  const base::http::MessageHead& seen = parser.head();
  // Both at once is how one request is made to look like two.
  CHECK(!(seen.chunked && seen.content_length.has_value()));
  std::string text = seen.method + " " + seen.target + " " + std::to_string(seen.status) + " ";
  for (const auto& [name, value] : seen.headers.fields()) {
    CHECK(name.find_first_of("\r\n: ") == std::string::npos);
    CHECK(value.find_first_of("\r\n") == std::string::npos);
    text += name + ":" + value + ";";
  }
  if (!seen.chunked) return text;

  size_t position = head.consumed;
  uint8_t into[7];
  while (true) {
    const auto body = parser.ChunkedBody(input.subspan(position, arrived - position), into);
    CHECK(body.produced <= sizeof(into) && body.consumed <= arrived - position);
    position += body.consumed;
    text += base::AsText({into, body.produced});
    if (body.done) return text + " done";
    if (body.broken) return text + " broken";
    if (body.produced > 0 || body.consumed > 0) continue;
    if (arrived == input.size()) return text + " more";
    arrived = std::min(arrived + step, input.size());
  }
}

}  // namespace

// A message as a server or a client gets it, at once and byte by byte. The first byte picks the
// kind.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0 || size > base::kMaxHeaderBytes) return 0;
  constexpr MessageParser::Kind kKinds[] = {MessageParser::Kind::kRequest,
                                            MessageParser::Kind::kResponse,
                                            MessageParser::Kind::kResponseToHead};
  const MessageParser::Kind kind = kKinds[data[0] % 3];
  const ByteView input(data + 1, size - 1);
  const std::string whole = Parse(kind, input, input.size());
  const std::string pieces = Parse(kind, input, 1);
  CHECK(whole == pieces);
  return 0;
}
