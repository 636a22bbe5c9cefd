#include "base/http/client.h"

#include <algorithm>

#include <boost/url/parse.hpp>
#include <boost/url/url.hpp>

#include "base/http/channel.h"
#include "base/http/errors.h"
#include "base/http/target.h"
#include "base/http/wire.h"
#include "base/limits.h"

namespace base::http {
namespace {

namespace urls = boost::urls;

constexpr size_t kMaxIdleConnections = 4;
constexpr size_t kPieceBytes = 256 * kKiB;

struct Url {
  std::string whole;  // without a fragment
  std::string scheme;
  std::string host;       // without brackets
  std::string authority;  // as the Host header has it
  uint16_t port = 0;
  std::string target;

  std::string Origin() const { return scheme + "://" + authority; }
};

Error BadUrl(std::string_view text, std::string_view why) {
  return Error(Code::kInvalidArgument,
               "bad URL \"" + std::string(text) + "\": " + std::string(why));
}

Result<Url> ParseUrl(std::string_view text) {
  const auto parsed = urls::parse_uri(urls::string_view(text.data(), text.size()));
  if (!parsed) return BadUrl(text, parsed.error().message());
  urls::url url(*parsed);
  url.remove_fragment();
  Url out;
  out.scheme = url.scheme();
  std::transform(out.scheme.begin(), out.scheme.end(), out.scheme.begin(), ::tolower);
  if (out.scheme != "http" && out.scheme != "https") return BadUrl(text, "not http or https");
  if (url.has_userinfo()) return BadUrl(text, "a name or password in it is not taken");
  out.host = url.host_address();
  if (out.host.empty()) return BadUrl(text, "no host");
  if (!IsHost(out.host)) return BadUrl(text, "not a host");
  out.port = out.scheme == "https" ? 443 : 80;
  out.authority = url.encoded_host();
  if (url.has_port() && !url.port().empty()) {
    const std::string port(url.port().data(), url.port().size());
    const int number = port.size() <= 5 ? std::stoi(port) : 0;  // digits only: the grammar says so
    if (number < 1 || number > 65535) return BadUrl(text, "not a port");
    out.port = static_cast<uint16_t>(number);
    out.authority += ":" + std::to_string(out.port);
  }
  const std::string_view target(url.encoded_target().data(), url.encoded_target().size());
  out.target = target.starts_with('/') ? std::string(target) : "/" + std::string(target);
  out.whole = std::string(url.buffer().data(), url.buffer().size());
  return out;
}

Result<Url> ResolveLocation(const Url& base, std::string_view location) {
  const auto parsed =
      urls::parse_uri_reference(urls::string_view(location.data(), location.size()));
  if (!parsed) return BadUrl(location, parsed.error().message()).Annotate("redirect");
  const auto from = urls::parse_uri(base.whole);
  urls::url to;
  const auto resolved = urls::resolve(*from, *parsed, to);
  if (!resolved) return BadUrl(location, resolved.error().message()).Annotate("redirect");
  return ParseUrl(std::string_view(to.buffer().data(), to.buffer().size()));
}

bool IsRedirect(int status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

// May be sent twice without harm.
bool IsIdempotent(std::string_view method) { return method != "POST" && method != "PATCH"; }

}  // namespace

struct Client::Impl {
  struct Connection {
    std::string origin;
    std::unique_ptr<Channel> channel;
    std::string unread;     // what came behind the last answer's head
    bool answered = false;  // the head of the final answer came while we were still sending
  };

  explicit Impl(ClientOptions opts) : options(std::move(opts)) {}

  Result<Connection> Open(const Url& url, bool* reused);
  void Keep(Connection connection);
  // One request to one URL, no redirects.
  Result<Response> Once(const ClientRequest& request, const Url& url);
  Result<Response> Try(const ClientRequest& request, const Url& url, bool* retry);
  // False, from all of these: the peer has refused before all was sent.
  Result<bool> SendRequest(Connection* connection, const ClientRequest& request, const Url& url);
  Result<bool> SendBody(Connection* connection, const ClientRequest& request);
  Result<bool> SendPiece(Connection* connection, ByteView bytes);
  // True when what the peer has to say is a refusal, or it says nothing more at all. Takes it into
  // `unread`.
  Result<bool> Refused(Connection* connection);
  Result<void> ReceiveHead(Connection* connection, std::string_view method,
                           std::unique_ptr<MessageParser>* parser);
  Result<void> ReceiveBody(Connection* connection, MessageParser* parser,
                           const ClientRequest& request, std::string* body);
  // More bytes of the body that the head announced, decoded; 0 at its end.
  Result<size_t> ReadBody(Connection* connection, MessageParser* parser, uint64_t* left,
                          MutableByteView into);
  Result<size_t> ReadRaw(Connection* connection, MutableByteView into);
  Result<size_t> ReadMore(Connection* connection);

  const ClientOptions options;
  Channel::Time deadline = Channel::Time::max();  // of the Do that is under way
  std::vector<Connection> idle;
};

Client::Client(ClientOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}
Client::~Client() = default;

Result<Response> Client::Do(const ClientRequest& request) {
  ASSIGN_OR_RETURN(Url url, ParseUrl(request.url));
  ClientRequest current = request;
  const int64_t total_ms =
      request.total_timeout_ms > 0 ? request.total_timeout_ms : impl_->options.total_timeout_ms;
  impl_->deadline = Channel::Time::max();
  if (total_ms > 0) {
    impl_->deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(total_ms);
  }
  for (int redirects = 0;; ++redirects) {
    ASSIGN_OR_RETURN(Response response, impl_->Once(current, url));
    const std::string_view location = response.headers.Get("Location");
    if (!IsRedirect(response.status) || location.empty() || impl_->options.max_redirects == 0)
      return response;
    if (redirects == impl_->options.max_redirects)
      return Error(Code::kUnavailable, "\"" + request.url + "\" redirects more than " +
                                           std::to_string(redirects) + " times");
    ASSIGN_OR_RETURN(Url next, ResolveLocation(url, location));
    const bool keeps_method = response.status == 307 || response.status == 308 ||
                              current.method == "GET" || current.method == "HEAD";
    if (keeps_method && current.body_source) return response;  // what was sent can't be had again
    if (!keeps_method) {
      current.method = "GET";
      current.body.clear();
      current.body_source = nullptr;
      current.body_size.reset();
      current.headers.Remove("Content-Type");
    }
    if (next.Origin() != url.Origin()) {
      for (const char* secret : {"Authorization", "X-Auth-Token", "X-Subject-Token", "Cookie"})
        current.headers.Remove(secret);
    }
    url = std::move(next);
  }
}

Result<Response> Client::Impl::Once(const ClientRequest& request, const Url& url) {
  if (options.allow_host && !options.allow_host(url.scheme, url.host, url.port)) {
    return Error(Code::kPermissionDenied, "fetching from " + url.Origin() + " is not allowed here");
  }
  bool retry = false;
  Result<Response> response = Try(request, url, &retry);
  // The peer may close a kept connection just when it is used again; a fresh one then says how
  // things are.
  if (!response.has_value() && retry) response = Try(request, url, &retry);
  return std::move(response).Annotate(request.method + " " + url.Origin());
}

Result<Response> Client::Impl::Try(const ClientRequest& request, const Url& url, bool* retry) {
  bool reused = false;
  *retry = false;
  ASSIGN_OR_RETURN(Connection connection, Open(url, &reused));
  Result<bool> sent = SendRequest(&connection, request, url);
  if (!sent.has_value() && sent.error().code() != Code::kUnavailable)
    return std::move(sent).error();  // the caller's own body failed
  // A peer that has refused a large body early has answered before it stopped to read.
  std::unique_ptr<MessageParser> parser;
  const int64_t answer_ms =
      request.answer_timeout_ms > 0 ? request.answer_timeout_ms : options.stall_timeout_ms;
  const auto stalled = std::chrono::steady_clock::now() + std::chrono::milliseconds(answer_ms);
  connection.channel->StallAfter(answer_ms);
  connection.channel->LimitTo(std::min(deadline, stalled));
  Result<void> received = ReceiveHead(&connection, request.method, &parser);
  connection.channel->StallAfter(options.stall_timeout_ms);
  connection.channel->LimitTo(deadline);
  if (!received.has_value()) {
    *retry =
        reused && IsIdempotent(request.method) && !request.body_source && connection.unread.empty();
    if (!sent.has_value()) return std::move(sent).error();
    return std::move(received).error();
  }
  MessageHead& head = parser->head();
  Response response;
  response.status = head.status;
  RETURN_IF_ERROR(ReceiveBody(&connection, parser.get(), request, &response.body));
  response.headers = std::move(head.headers);
  if (head.keep_alive && !head.until_eof && sent.has_value() && *sent &&
      connection.unread.empty()) {
    connection.answered = false;
    Keep(std::move(connection));
  }
  return response;
}

Result<Client::Impl::Connection> Client::Impl::Open(const Url& url, bool* reused) {
  const std::string origin = url.Origin();
  for (size_t i = 0; i < idle.size(); ++i) {
    if (idle[i].origin != origin) continue;
    Connection kept = std::move(idle[i]);
    idle.erase(idle.begin() + static_cast<ptrdiff_t>(i));
    if (options.allow_address && !options.allow_address(kept.channel->address(), url.port)) break;
    if (!kept.channel->Quiet()) break;
    *reused = true;
    kept.channel->LimitTo(deadline);
    return kept;
  }
  Connection made;
  made.origin = origin;
  const Channel::Peer peer{url.host, url.port, url.scheme == "https"};
  ASSIGN_OR_RETURN(made.channel,
                   Channel::Connect(peer, {.allow = options.allow_address,
                                           .connect_timeout_ms = options.connect_timeout_ms,
                                           .stall_timeout_ms = options.stall_timeout_ms,
                                           .deadline = deadline,
                                           .resolver = options.resolver,
                                           .resolve_timeout_ms = options.resolve_timeout_ms}));
  return made;
}

void Client::Impl::Keep(Connection connection) {
  if (idle.size() == kMaxIdleConnections) idle.erase(idle.begin());
  idle.push_back(std::move(connection));
}

Result<bool> Client::Impl::SendRequest(Connection* connection, const ClientRequest& request,
                                       const Url& url) {
  Headers headers = request.headers;
  headers.Set("Host", url.authority);
  if (!headers.Has("User-Agent")) headers.Set("User-Agent", "quarry");
  if (!headers.Has("Accept")) headers.Set("Accept", "*/*");
  headers.Remove("Content-Length");
  headers.Remove("Transfer-Encoding");
  if (request.body_source && !request.body_size) {
    headers.Set("Transfer-Encoding", "chunked");
  } else if (request.body_source || !request.body.empty() || !IsIdempotent(request.method) ||
             request.method == "PUT") {
    const uint64_t size = request.body_source ? *request.body_size : request.body.size();
    headers.Set("Content-Length", std::to_string(size));
  }
  const std::string head = FormatRequestHead(request.method, url.target, headers);
  if (request.body_source) {
    RETURN_IF_ERROR(connection->channel->Write(AsBytes(head)));
    return SendBody(connection, request);
  }
  return SendPiece(connection, AsBytes(head + request.body));
}

Result<bool> Client::Impl::SendBody(Connection* connection, const ClientRequest& request) {
  const bool chunked = !request.body_size.has_value();
  Buffer buffer(kPieceBytes);
  std::string chunk;
  uint64_t total = 0;
  while (true) {
    ASSIGN_OR_RETURN(const size_t count, request.body_source(buffer.view()));
    total += count;
    if (!chunked && (total > *request.body_size || (count == 0 && total < *request.body_size)))
      return Error(Code::kInvalidArgument, "the body to send has another size than was announced");
    if (count == 0) break;
    ByteView piece = buffer.view().first(count);
    if (chunked) {
      chunk = FormatChunkHead(count);
      chunk.append(AsText(piece)).append("\r\n");
      piece = AsBytes(chunk);
    }
    ASSIGN_OR_RETURN(const bool wanted, SendPiece(connection, piece));
    if (!wanted) return false;
  }
  if (chunked) RETURN_IF_ERROR(connection->channel->Write(AsBytes("0\r\n\r\n")));
  return true;
}

Result<bool> Client::Impl::SendPiece(Connection* connection, ByteView bytes) {
  while (!connection->answered) {
    ASSIGN_OR_RETURN(const size_t sent, connection->channel->WriteUnlessTold(bytes));
    bytes = bytes.subspan(sent);
    if (bytes.empty()) return true;
    ASSIGN_OR_RETURN(const bool refused, Refused(connection));
    if (refused) return false;
  }
  RETURN_IF_ERROR(connection->channel->Write(bytes));
  return true;
}

Result<bool> Client::Impl::Refused(Connection* connection) {
  while (connection->channel->HasInput()) {
    ASSIGN_OR_RETURN(const size_t count, ReadMore(connection));
    if (count == 0) return true;
    while (true) {
      MessageParser parser(MessageParser::Kind::kResponse);
      const MessageParser::HeadStep step = parser.Head(AsBytes(connection->unread));
      if (step.error_status != 0) return true;
      if (step.consumed == 0) break;
      connection->answered = parser.head().status >= 200;
      if (connection->answered) return parser.head().status >= 300;
      connection->unread.erase(0, step.consumed);  // 100 Continue and the like
    }
  }
  return false;
}

Result<void> Client::Impl::ReceiveHead(Connection* connection, std::string_view method,
                                       std::unique_ptr<MessageParser>* parser) {
  const auto kind =
      method == "HEAD" ? MessageParser::Kind::kResponseToHead : MessageParser::Kind::kResponse;
  *parser = std::make_unique<MessageParser>(kind);
  while (true) {
    const MessageParser::HeadStep step = (*parser)->Head(AsBytes(connection->unread));
    if (step.error_status != 0)
      return Error(Code::kUnavailable, "the peer's answer is not HTTP: " + step.error);
    if (step.consumed > 0) {
      connection->unread.erase(0, step.consumed);
      if ((*parser)->head().status >= 200) return {};
      *parser = std::make_unique<MessageParser>(kind);  // 100 Continue and the like
      continue;
    }
    ASSIGN_OR_RETURN(const size_t count, ReadMore(connection));
    if (count == 0)
      return Error(Code::kUnavailable, "the peer closed the connection instead of an answer");
  }
}

Result<size_t> Client::Impl::ReadMore(Connection* connection) {
  Buffer buffer(kPieceBytes);
  ASSIGN_OR_RETURN(const size_t count, connection->channel->Read(buffer.view()));
  connection->unread.append(AsText(buffer.view().first(count)));
  return count;
}

Result<size_t> Client::Impl::ReadRaw(Connection* connection, MutableByteView into) {
  if (connection->unread.empty()) return connection->channel->Read(into);
  const size_t count = std::min(into.size(), connection->unread.size());
  std::copy_n(connection->unread.begin(), count, into.begin());
  connection->unread.erase(0, count);
  return count;
}

Result<size_t> Client::Impl::ReadBody(Connection* connection, MessageParser* parser, uint64_t* left,
                                      MutableByteView into) {
  const MessageHead& head = parser->head();
  const Error early(Code::kUnavailable, "the peer broke off in the middle of its answer");
  if (!head.chunked) {
    if (*left == 0) return 0;
    ASSIGN_OR_RETURN(const size_t count,
                     ReadRaw(connection, into.first(std::min<uint64_t>(into.size(), *left))));
    if (count == 0 && !head.until_eof) return early;
    *left -= count;
    return count;
  }
  while (*left > 0) {
    const auto step = parser->ChunkedBody(AsBytes(connection->unread), into);
    connection->unread.erase(0, step.consumed);
    if (step.broken || connection->unread.size() > 2 * kPieceBytes)
      return Error(Code::kUnavailable, "the peer's answer is not rightly chunked");
    if (step.done) *left = 0;
    if (step.produced > 0) return step.produced;
    if (step.done) return 0;
    ASSIGN_OR_RETURN(const size_t count, ReadMore(connection));
    if (count == 0) return early;
  }
  return 0;
}

Result<void> Client::Impl::ReceiveBody(Connection* connection, MessageParser* parser,
                                       const ClientRequest& request, std::string* body) {
  const MessageHead& head = parser->head();
  const bool has_body = request.method != "HEAD" && head.status != 204 && head.status != 304;
  if (!has_body) return {};
  uint64_t left = head.chunked || head.until_eof ? UINT64_MAX : head.content_length.value_or(0);
  const bool to_sink = request.body_sink && head.status / 100 == 2;
  if (to_sink && request.head_sink) RETURN_IF_ERROR(request.head_sink(head.headers));
  Buffer buffer(kPieceBytes);
  while (true) {
    ASSIGN_OR_RETURN(const size_t count, ReadBody(connection, parser, &left, buffer.view()));
    if (count == 0) return {};
    if (to_sink) {
      RETURN_IF_ERROR(request.body_sink(buffer.view().first(count)));
      continue;
    }
    if (count > options.max_response_bytes - std::min(body->size(), options.max_response_bytes))
      return Error(Code::kTooLarge, "the peer's answer is longer than " +
                                        std::to_string(options.max_response_bytes) + " bytes");
    body->append(AsText(buffer.view().first(count)));
  }
}

}  // namespace base::http
