#include "base/http/wire.h"

#include <algorithm>
#include <cstring>
#include <ctime>

#include <boost/beast/http/basic_parser.hpp>
#include <boost/beast/http/error.hpp>
#include <fmt/format.h>

#include "base/check.h"
#include "base/http/errors.h"
#include "base/http/target.h"
#include "base/limits.h"

namespace base::http {
namespace {

namespace beast = boost::beast;
using beast::string_view;
using BeastError = beast::error_code;

std::string_view View(string_view text) { return {text.data(), text.size()}; }

// The input up to and with the empty line, or nothing.
std::optional<std::string_view> FindHead(std::string_view input) {
  const size_t end = input.find("\r\n\r\n");
  if (end == std::string_view::npos) return std::nullopt;
  return input.substr(0, end + 4);
}

MessageParser::HeadStep Refuse(int status, std::string_view why) {
  MessageParser::HeadStep step;
  step.error_status = status;
  step.error = why;
  return step;
}

// What is wrong with a head whose end did not come within kMaxHeaderBytes.
MessageParser::HeadStep RefuseTooLarge(std::string_view input) {
  if (input.find("\r\n") == std::string_view::npos || input.find("\r\n") > kMaxTargetBytes)
    return Refuse(414, fmt::format("the request line may have {} bytes", kMaxTargetBytes));
  return Refuse(431, fmt::format("the headers of a request may have {} bytes", kMaxHeaderBytes));
}

}  // namespace

struct MessageParser::Impl {
  virtual ~Impl() = default;
  virtual size_t Put(std::string_view input, BeastError* error) = 0;
  virtual void Fill() = 0;
  virtual bool done() const = 0;

  MessageHead head;
  bool head_done = false;
  bool repeated_host = false;
  MutableByteView body_into;
  size_t body_produced = 0;
};

template <bool kIsRequest>
struct MessageParser::Parser final : MessageParser::Impl, beast::http::basic_parser<kIsRequest> {
  using Beast = beast::http::basic_parser<kIsRequest>;

  explicit Parser(bool skip_body) {
    Beast::header_limit(kMaxHeaderBytes + 1);  // ours is checked before, with a better answer
    Beast::body_limit(boost::none);            // counted where it is read
    if (skip_body) Beast::skip(true);
  }

  size_t Put(std::string_view input, BeastError* error) override {
    return Beast::put(boost::asio::const_buffer(input.data(), input.size()), *error);
  }
  bool done() const override { return Beast::is_done(); }
  void Fill() override {
    const auto length = Beast::content_length();
    if (length.has_value()) head.content_length = *length;
    head.chunked = Beast::chunked();
    head.keep_alive = Beast::keep_alive();
    head.until_eof = !kIsRequest && Beast::need_eof();
  }

  void on_request_impl(beast::http::verb, string_view method, string_view target, int version,
                       BeastError&) override {
    head.method = View(method);
    head.target = View(target);
    head.version = version;
  }
  void on_response_impl(int status, string_view, int version, BeastError&) override {
    head.status = status;
    head.version = version;
  }
  void on_field_impl(beast::http::field field, string_view name, string_view value,
                     BeastError&) override {
    if (head_done) return;  // a trailer
    if (field == beast::http::field::host && head.headers.Has("Host")) repeated_host = true;
    head.headers.Add(View(name), View(value));
  }
  void on_header_impl(BeastError&) override {}
  void on_body_init_impl(const boost::optional<uint64_t>&, BeastError&) override {}
  size_t on_body_impl(string_view, BeastError& error) override {
    error = beast::http::error::unexpected_body;  // bodies with a length never come through here
    return 0;
  }
  void on_chunk_header_impl(uint64_t, string_view, BeastError&) override {}
  size_t on_chunk_body_impl(uint64_t, string_view body, BeastError& error) override {
    const size_t count = std::min(body.size(), body_into.size() - body_produced);
    if (count > 0) std::memcpy(body_into.data() + body_produced, body.data(), count);
    body_produced += count;
    if (count < body.size()) error = beast::http::error::need_buffer;
    return count;
  }
  void on_finish_impl(BeastError&) override {}
};

namespace {

// Rules of RFC 9112 that Beast leaves to its user.
MessageParser::HeadStep CheckRequest(const MessageHead& head, bool repeated_host) {
  const std::string_view coding = head.headers.Get("Transfer-Encoding");
  if (head.headers.Has("Transfer-Encoding")) {
    if (head.version == 10) return Refuse(400, "Transfer-Encoding needs HTTP/1.1");
    if (!EqualsNoCase(coding, "chunked") || !head.chunked)
      return Refuse(501, "the only transfer coding that is understood is chunked");
  }
  if (head.target.size() > kMaxTargetBytes)
    return Refuse(414, fmt::format("the request line may have {} bytes", kMaxTargetBytes));
  if (repeated_host) return Refuse(400, "the Host header stands there more than once");
  if (!head.headers.Has("Host")) {
    if (head.version == 11) return Refuse(400, "the Host header is missing");
  } else if (!IsHost(head.headers.Get("Host"))) {
    return Refuse(400, "the Host header is not a host");
  }
  return {};
}

}  // namespace

MessageParser::MessageParser(Kind kind) {
  if (kind == Kind::kRequest) {
    impl_ = std::make_unique<Parser<true>>(false);
  } else {
    impl_ = std::make_unique<Parser<false>>(kind == Kind::kResponseToHead);
  }
}

MessageParser::~MessageParser() = default;

MessageHead& MessageParser::head() { return impl_->head; }

MessageParser::HeadStep MessageParser::Head(ByteView input) {
  CHECK(!impl_->head_done);
  const std::string_view text = AsText(input);
  // TLS on a plain port, most often: its first record would wait for a line that never comes.
  if (!text.empty() && (text.front() < '!' || text.front() > '~'))
    return Refuse(400, "this is not HTTP/1.1; is it TLS on a plain port?");
  const std::optional<std::string_view> head = FindHead(text);
  if (!head) return text.size() >= kMaxHeaderBytes ? RefuseTooLarge(text) : HeadStep{};
  if (head->size() > kMaxHeaderBytes) return RefuseTooLarge(*head);
  if (head->find("\r\n ") != std::string_view::npos ||
      head->find("\r\n\t") != std::string_view::npos)
    return Refuse(400, "a header that goes on in the next line is not taken");

  BeastError error;
  impl_->Put(*head, &error);
  if (error == beast::http::error::bad_version)
    return Refuse(505, "only HTTP/1.0 and HTTP/1.1 are spoken here");
  if (error) return Refuse(400, "malformed message: " + error.message());
  impl_->Fill();
  impl_->head_done = true;
  if (impl_->head.status == 0) {
    HeadStep refused = CheckRequest(impl_->head, impl_->repeated_host);
    if (refused.error_status != 0) return refused;
  }
  HeadStep step;
  step.consumed = head->size();
  return step;
}

MessageParser::BodyStep MessageParser::ChunkedBody(ByteView input, MutableByteView into) {
  BodyStep step;
  impl_->body_into = into;
  impl_->body_produced = 0;
  while (step.consumed < input.size() && !impl_->done()) {
    BeastError error;
    const size_t count = impl_->Put(AsText(input.subspan(step.consumed)), &error);
    step.consumed += count;
    if (error == beast::http::error::need_more || error == beast::http::error::need_buffer) break;
    if (error) {
      step.broken = true;
      break;
    }
  }
  step.produced = impl_->body_produced;
  step.done = impl_->done();
  return step;
}

namespace {

void AppendClean(std::string* out, std::string_view text) {
  const size_t begin = out->size();
  out->append(text);
  for (size_t i = begin; i < out->size(); ++i) {
    char& c = (*out)[i];
    if (c == '\r' || c == '\n' || c == '\0') c = ' ';
  }
}

void AppendFields(std::string* out, const Headers& headers) {
  for (const auto& [name, value] : headers.fields()) {
    AppendClean(out, name);
    out->append(": ");
    AppendClean(out, value);
    out->append("\r\n");
  }
  out->append("\r\n");
}

}  // namespace

std::string FormatResponseHead(int status, const Headers& headers) {
  std::string out;
  out.reserve(512);
  fmt::format_to(std::back_inserter(out), "HTTP/1.1 {} {}\r\n", status, ReasonPhrase(status));
  AppendFields(&out, headers);
  return out;
}

std::string FormatRequestHead(std::string_view method, std::string_view target,
                              const Headers& headers) {
  std::string out;
  AppendClean(&out, method);
  out += ' ';
  AppendClean(&out, target);
  out += " HTTP/1.1\r\n";
  AppendFields(&out, headers);
  return out;
}

std::string FormatChunkHead(uint64_t size_bytes) { return fmt::format("{:x}\r\n", size_bytes); }

std::string FormatHttpDate(int64_t unix_seconds) {
  constexpr const char* kDays[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  constexpr const char* kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                     "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  const time_t seconds = unix_seconds;
  tm parts{};
  gmtime_r(&seconds, &parts);
  return fmt::format("{}, {:02} {} {} {:02}:{:02}:{:02} GMT", kDays[parts.tm_wday], parts.tm_mday,
                     kMonths[parts.tm_mon], parts.tm_year + 1900, parts.tm_hour, parts.tm_min,
                     parts.tm_sec);
}

}  // namespace base::http
