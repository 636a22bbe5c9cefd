#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/async/task.h"
#include "base/auth/caller.h"
#include "base/bytes.h"
#include "base/files.h"
#include "base/json.h"
#include "base/result.h"

// Requests and responses as the services see them. No type of the HTTP library shows: Beast lives
// in this folder's .cc files.

namespace base::http {

// Header fields in order; names compare without case. One thread.
class Headers {
 public:
  void Set(std::string_view name, std::string_view value);  // replaces
  void Add(std::string_view name, std::string_view value);
  void Remove(std::string_view name);
  // The first value, or empty.
  std::string_view Get(std::string_view name) const;
  bool Has(std::string_view name) const;
  const std::vector<std::pair<std::string, std::string>>& fields() const { return fields_; }

 private:
  std::vector<std::pair<std::string, std::string>> fields_;
};

// The head of a request, and its body where the route takes it whole. Immutable once the handler
// runs.
struct Request {
  std::string method;  // upper case
  std::string target;  // as it came: path and query
  // As the router matched it: decoded, without the service's prefix, a slash inside a segment as
  // %2F: "/v2/images".
  std::string path;
  std::vector<std::pair<std::string, std::string>> query;  // decoded, in order
  std::map<std::string, std::string, std::less<>> params;  // of the pattern: {image_id}
  Headers headers;
  std::string body;  // empty for a streaming route
  std::string
      request_id;  // "req-<uuid>": the client's own (X-Openstack-Request-Id) if it is well-formed
  std::string remote;    // "127.0.0.1:40000"
  std::string base_url;  // "http://host:port" as the client addressed us: for links
  std::shared_ptr<const auth::Caller> caller;  // null on public routes

  // The first value of a query key, or nothing.
  std::optional<std::string_view> Query(std::string_view key) const;
  // REQUIRES: the route's pattern has it.
  const std::string& Param(std::string_view name) const;
};

// A part of a response's body.
struct Piece {
  // Either bytes that `owner` keeps alive ...
  ByteView bytes;
  // ... or a run of a file, which leaves by sendfile; then bytes is empty.
  int descriptor = -1;
  uint64_t offset = 0;
  uint64_t length = 0;
  std::shared_ptr<const void> owner;

  bool empty() const { return bytes.empty() && length == 0; }
};

// A body that is made while it is sent. Used by one connection at a time.
class BodySource {
 public:
  virtual ~BodySource() = default;
  // Known in advance (Content-Length), or nothing (chunked).
  virtual std::optional<uint64_t> size_bytes() const = 0;
  // The next piece; an empty one at the end. An error after the head was sent breaks the
  // connection, so that the client sees a short body and never wrong bytes.
  virtual async::Task<Result<Piece>> Next() = 0;
};

// The body of a request, as it arrives. Used by one handler.
class BodyReader {
 public:
  virtual ~BodyReader() = default;
  // What Content-Length said; nothing for a chunked body.
  virtual std::optional<uint64_t> content_length() const = 0;
  // Fills `into` as far as the body goes: fewer bytes than asked for means that the body has ended,
  // 0 that it had ended before. kInvalidArgument: the client broke off or sent less than announced;
  // kUnavailable: it stalled (kBodyStallTimeoutMs). `into` must stay alive until it answers.
  virtual async::Task<Result<size_t>> Read(MutableByteView into) = 0;
};

struct Response {
  int status = 200;
  Headers headers;
  std::string body;
  std::unique_ptr<BodySource> source;  // instead of body

  static Response Empty(int status);
  static Response Text(int status, std::string body, std::string_view content_type);
  static Response OfJson(int status, const Json& body);  // application/json
};

}  // namespace base::http
