#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/http/message.h"

// HTTP/1.1 as bytes, both ways. wire.cc is the only home of Beast; nothing here touches a socket.
// Internal to base/http: services never include it.

namespace base::http {

struct MessageHead {
  std::string method;  // of a request
  std::string target;
  int status = 0;    // of a response
  int version = 11;  // 10 or 11
  Headers headers;
  std::optional<uint64_t> content_length;
  bool chunked = false;
  bool keep_alive = false;
  bool until_eof = false;  // a response's body that ends where the connection does
};

// Takes one message apart. Its input is hostile. One thread; one parser a message.
class MessageParser {
 public:
  enum class Kind { kRequest, kResponse, kResponseToHead };
  explicit MessageParser(Kind kind);
  ~MessageParser();

  struct HeadStep {
    size_t consumed = 0;   // 0: the head is not whole yet, come again with more
    int error_status = 0;  // instead: what a server answers to such a request
    std::string error;
  };
  // `input`: all that came, from the first byte of the message on. REQUIRES: not called again once
  // it consumed.
  HeadStep Head(ByteView input);
  // REQUIRES: Head consumed.
  MessageHead& head();

  struct BodyStep {
    size_t consumed = 0;  // of input
    size_t produced = 0;  // into `into`
    bool done = false;    // the last chunk and the trailer were seen
    bool broken = false;
  };
  // Decodes a chunked body, as far as input and `into` go. Nothing consumed and nothing produced:
  // come again with more input behind the same bytes. Trailer fields are checked and dropped.
  BodyStep ChunkedBody(ByteView input, MutableByteView into);

 private:
  struct Impl;
  template <bool kIsRequest>
  struct Parser;
  std::unique_ptr<Impl> impl_;
};

// "HTTP/1.1 200 OK" and the fields, up to and with the empty line. CR, LF and NUL in a name or
// value become blanks: what a service puts into a header can't forge another one.
std::string FormatResponseHead(int status, const Headers& headers);
std::string FormatRequestHead(std::string_view method, std::string_view target,
                              const Headers& headers);
// "1f\r\n".
std::string FormatChunkHead(uint64_t size_bytes);

// "Sat, 21 Nov 2026 03:29:24 GMT".
std::string FormatHttpDate(int64_t unix_seconds);

}  // namespace base::http
