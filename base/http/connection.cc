#include "base/http/connection.h"

#include <algorithm>
#include <exception>

#include <fmt/format.h>

#include "base/async/offload.h"
#include "base/auth/access_rules.h"
#include "base/clock.h"
#include "base/http/errors.h"
#include "base/http/target.h"
#include "base/log.h"
#include "base/uuid.h"

namespace base::http {
namespace {

// What is read at first of a request; most fit.
constexpr size_t kFirstHeadBytes = 4 * kKiB;
constexpr size_t kLingerBufferBytes = 16 * kKiB;
constexpr std::string_view kRequestIdField = "x-openstack-request-id";

// "^req-[A-Za-z0-9-]{8,64}$": a client's own id goes into the log, so it must not be able to say
// more there.
bool IsRequestId(std::string_view text) {
  constexpr std::string_view kPrefix = "req-";
  if (!text.starts_with(kPrefix)) return false;
  text.remove_prefix(kPrefix.size());
  if (text.size() < 8 || text.size() > 64) return false;
  return text.find_first_not_of(
             "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-") ==
         std::string_view::npos;
}

Response Render(const Match& match, const Request& request, int status, const Error& error) {
  Response response = match.service != nullptr && match.service->render_error
                          ? match.service->render_error(request, status, error)
                          : PlainError(status, error.message());
  if (status == 405 && !match.allow.empty()) response.headers.Set("Allow", match.allow);
  if (status == 503 && !response.headers.Has("Retry-After"))
    response.headers.Add("Retry-After", "1");
  return response;
}

Response RenderError(const Match& match, const Request& request, const Error& error) {
  const int status = HttpStatus(error.code());
  if (status == 500 || status == 507) {
    const ScopedLogContext context(request.request_id);
    LOG(kError, "http", "{} {} failed: {}", request.method, request.path, error.ToString());
  }
  return Render(match, request, status, error);
}

Response RenderUnmatched(const Match& match, const Request& request) {
  switch (match.status) {
    case 400:
      return Render(match, request, 400,
                    Error(Code::kInvalidArgument, "the path is not percent-encoded UTF-8"));
    case 405:
      return Render(match, request, 405,
                    Error(Code::kInvalidArgument,
                          "the method is not allowed for this resource; allowed: " + match.allow));
    default:
      return Render(match, request, 404,
                    Error(Code::kNotFound, "The resource could not be found."));
  }
}

// As it came, without the query, which may hold what is nobody's business.
std::string_view PathOf(const Request& request) {
  return std::string_view(request.target).substr(0, request.target.find('?'));
}

Result<void> CheckAccess(Request* request, const Match& match) {
  const Access access = match.route->access;
  if (access == Access::kPublic) return {};
  const std::string_view token = request->headers.Get("X-Auth-Token");
  if (token.empty())
    return Error(Code::kUnauthenticated, "The request you have made requires authentication.");
  ASSIGN_OR_RETURN(request->caller, match.service->verifier->Verify(token));
  if (!auth::Allows(*request->caller, match.service->type, match.service->prefix, request->method,
                    request->path)) {
    return Error(Code::kUnauthenticated,
                 "The access rules of the application credential do not allow this request.");
  }
  if (access == Access::kAdmin && !request->caller->IsAdmin()) {
    return Error(Code::kPermissionDenied,
                 "You are not authorized to perform the requested action.");
  }
  return {};
}

// What is left of a third party's exception that its wrapper let through: one request fails, not
// the service.
Error Escaped(const char* what) {
  return Error(Code::kIo, std::string("an exception escaped from a handler: ") + what);
}

// One job: token (unless it was looked at before) and handler.
Result<Response> RunJob(Request* request, const Match& match, bool authorize) {
  const ScopedLogContext context(request->request_id);
  if (authorize) RETURN_IF_ERROR(CheckAccess(request, match));
  try {
    return match.route->handler(*request);
  } catch (const std::exception& exception) {
    return Escaped(exception.what());
  }
}

}  // namespace

Connection::Connection(boost::asio::ip::tcp::socket socket, ServerContext* context,
                       ConnectionSet* siblings, async::Gate::Pass pass)
    : context_(*context), siblings_(*siblings), pass_(std::move(pass)), stream_([&] {
        boost::system::error_code ignored;  // a peer that is gone already has no name
        const auto peer = socket.remote_endpoint(ignored);
        behind_proxy_ = context->trusted_proxies.Contains(peer.address());
        remote_ = EndpointText(peer);
        local_ = EndpointText(socket.local_endpoint(ignored));
        return std::move(socket);
      }()) {
  context_.open_connections.fetch_add(1);
  context_.metrics.connections.Add(1);
}

Connection::~Connection() {
  siblings_.erase(this);
  context_.open_connections.fetch_sub(1);
  context_.metrics.connections.Add(-1);
}

void Connection::CloseIfIdle() {
  if (idle_) stream_.Close();
}

async::Task<void> Connection::Run(std::shared_ptr<Connection> self) {
  siblings_.insert(this);
  bool keep = true;
  while (keep) {
    MessageParser parser(MessageParser::Kind::kRequest);
    keep = co_await ReadHead(&parser);
    if (!keep) break;
    keep = co_await Serve(&parser);
    if (stream_.buffered().empty()) stream_.ShrinkBuffer();
  }
  stream_.Close();
}

async::Task<bool> Connection::ReadHead(MessageParser* parser) {
  const ServerOptions& options = context_.options;
  size_t capacity = 0;
  int64_t head_deadline_ms = 0;
  while (true) {
    const size_t held = stream_.buffered().size();
    if (held > 0) {
      const MessageParser::HeadStep step = parser->Head(stream_.buffered());
      stream_.Consume(step.consumed);
      if (step.consumed > 0) co_return true;
      if (step.error_status != 0) {
        co_await Refuse(step.error_status, step.error);
        co_return false;
      }
      if (head_deadline_ms == 0) head_deadline_ms = CoarseNowMs() + options.header_timeout_ms;
    } else if (context_.stopping.load()) {
      co_return false;
    }
    if (held >= capacity) capacity = std::max<size_t>(2 * held, kFirstHeadBytes);
    idle_ = held == 0;
    const int64_t timeout_ms =
        idle_ ? options.idle_timeout_ms : std::max<int64_t>(head_deadline_ms - CoarseNowMs(), 0);
    Result<size_t> count = co_await stream_.Fill(capacity, timeout_ms);
    idle_ = false;
    if (count.has_value() && *count > 0) continue;
    if (!count.has_value() && count.error().code() == Code::kUnavailable && held > 0)
      co_await Refuse(408, "the request's headers did not come in time");
    co_return false;
  }
}

async::Task<void> Connection::Refuse(int status, std::string why) {
  Exchange exchange;
  exchange.started_ns = SystemClock().MonotonicNs();
  Response response = PlainError(status, why);
  const bool sent = co_await Send(&exchange, &response);
  Record(exchange);
  if (sent) co_await Linger();
}

std::string Connection::BaseUrl(const Headers& headers) const {
  if (!context_.options.public_url.empty()) return context_.options.public_url;
  std::string_view scheme = "http";
  std::string_view host = headers.Get("Host");  // checked by the parser
  if (behind_proxy_) {
    const std::string_view forwarded_host = headers.Get("X-Forwarded-Host");
    if (IsHostAndPort(forwarded_host)) host = forwarded_host;
    if (EqualsNoCase(headers.Get("X-Forwarded-Proto"), "https")) scheme = "https";
  }
  return fmt::format("{}://{}", scheme, host.empty() ? std::string_view(local_) : host);
}

Result<void> Connection::Prepare(MessageHead* head, Exchange* exchange) {
  exchange->request = std::make_shared<Request>();
  Request& request = *exchange->request;
  request.method = std::move(head->method);
  request.target = std::move(head->target);
  request.remote = remote_;
  request.base_url = BaseUrl(head->headers);
  const std::string_view own_id = head->headers.Get(kRequestIdField);
  request.request_id = IsRequestId(own_id) ? std::string(own_id) : "req-" + NewUuid();
  request.headers = head->headers;  // the body's reader looks at the head, too

  ASSIGN_OR_RETURN(const Target target, SplitTarget(request.target));
  exchange->match = context_.router.Find(request.method, target.path);
  request.path = std::move(exchange->match.path);
  request.params = std::move(exchange->match.params);
  ASSIGN_OR_RETURN(request.query, ParseQuery(target.query));
  return {};
}

async::Task<bool> Connection::Serve(MessageParser* parser) {
  MessageHead& head = parser->head();
  RequestBody body(&stream_, parser, context_.options.body_stall_timeout_ms,
                   context_.options.min_bytes_per_second);
  Exchange exchange;
  exchange.started_ns = SystemClock().MonotonicNs();
  Result<void> prepared = Prepare(&head, &exchange);
  Gauge& in_flight = context_.metrics.Of(exchange.match).in_flight;
  in_flight.Add(1);

  Response response;
  if (prepared.has_value()) {
    response = co_await Answer(&exchange, &body);
  } else {
    response = RenderError(exchange.match, *exchange.request, prepared.error());
  }
  const bool drained = co_await body.Drain();
  exchange.received_bytes = body.received_bytes();
  if (body.too_slow()) context_.metrics.slow_senders.Add();
  exchange.to.version = head.version;
  exchange.to.head_only = exchange.request->method == "HEAD";
  exchange.to.keep_alive = drained && head.keep_alive && !context_.stopping.load();
  const bool sent = co_await Send(&exchange, &response);
  response.source.reset();
  in_flight.Add(-1);
  Record(exchange);
  // Closing on bytes that nobody read would reset the connection and may take the answer with it.
  const bool unread = !drained || !stream_.buffered().empty();
  if (sent && unread && !exchange.to.keep_alive) co_await Linger();
  co_return sent&& exchange.to.keep_alive;
}

async::Task<Response> Connection::Answer(Exchange* exchange, RequestBody* body) {
  const Match& match = exchange->match;
  if (match.route == nullptr) co_return RenderUnmatched(match, *exchange->request);
  Result<Response> answer = Error(Code::kIo, "not run");
  if (match.route->handler) {
    answer = co_await RunHandler(exchange->request, &match, body);
  } else {
    answer = co_await RunStream(exchange->request, &match, body);
  }
  if (!answer.has_value()) co_return RenderError(match, *exchange->request, answer.error());
  co_return std::move(*answer);
}

async::Task<Result<Response>> Connection::RunStream(std::shared_ptr<Request> request,
                                                    const Match* match, RequestBody* body) {
  Result<void> authorized = co_await Authorize(request, match);
  if (!authorized.has_value()) co_return std::move(authorized).error();
  try {
    Result<Response> answer = co_await match->route->stream(request, *body);
    co_return answer;
  } catch (const std::exception& exception) {
    co_return Escaped(exception.what());
  }
}

async::Task<Result<Response>> Connection::RunHandler(std::shared_ptr<Request> request,
                                                     const Match* match, RequestBody* body) {
  // A large body is read only for a caller who is known.
  const uint64_t length = body->content_length().value_or(UINT64_MAX);
  const bool large = !body->ended() && length > kMaxUnverifiedBodyBytes;
  if (large) {
    Result<void> authorized = co_await Authorize(request, match);
    if (!authorized.has_value()) co_return std::move(authorized).error();
  }
  BodyBudget::Share share(context_.bodies);
  Result<std::string> content = co_await body->ReadAll(match->route->max_body_bytes, &share);
  if (!content.has_value()) co_return std::move(content).error();
  request->body = std::move(*content);
  auto job = [request, match, large] { return RunJob(request.get(), *match, !large); };
  Result<Response> answer = co_await async::Offload(context_.pool, std::move(job));
  request->body = std::string();  // an answer that is sent slowly does not hold it
  co_return answer;
}

async::Task<Result<void>> Connection::Authorize(std::shared_ptr<Request> request,
                                                const Match* match) {
  if (match->route->access == Access::kPublic) co_return Result<void>();
  auto job = [request, match]() -> Result<void> {
    const ScopedLogContext context(request->request_id);
    return CheckAccess(request.get(), *match);
  };
  Result<void> checked = co_await async::Offload(context_.pool, std::move(job));
  co_return checked;
}

async::Task<bool> Connection::Send(Exchange* exchange, Response* response) {
  Piece first;
  if (response->source != nullptr && !exchange->to.head_only) {
    // Made before the head leaves: what fails up to here can still be said.
    Result<Piece> piece = co_await response->source->Next();
    if (piece.has_value()) {
      first = std::move(*piece);
    } else {
      *response = RenderError(exchange->match, *exchange->request, piece.error());
    }
  }
  if (response->status == 401 && !response->headers.Has("WWW-Authenticate")) {
    const std::string& url = context_.options.identity_url;
    response->headers.Add(
        "WWW-Authenticate",
        fmt::format("Keystone uri=\"{}\"",
                    url.empty() ? exchange->request->base_url + "/identity/v3" : url));
  }
  const std::string request_id = exchange->request != nullptr ? exchange->request->request_id : "";
  if (!request_id.empty()) response->headers.Set(kRequestIdField, request_id);

  stream_.BeginPacedWrites(context_.options.min_bytes_per_second);
  ResponseWriter writer(&stream_, response, exchange->to, context_.options.body_stall_timeout_ms);
  Result<void> sent = co_await writer.Send(std::move(first));
  exchange->status = response->status;
  exchange->sent_bytes = writer.sent_bytes();
  exchange->to.keep_alive = writer.keep_alive();
  if (!sent.has_value()) {
    if (stream_.too_slow()) context_.metrics.slow_readers.Add();
    const ScopedLogContext context(request_id);
    LOG(kWarn, "http", "an answer to {} was broken off: {}", remote_, sent.error().ToString());
    co_return false;
  }
  if (!writer.keep_alive()) stream_.ShutdownSend();
  co_return true;
}

async::Task<void> Connection::Linger() {
  const int64_t give_up_ms = CoarseNowMs() + kLingerTimeoutMs;
  Buffer scratch(kLingerBufferBytes);
  idle_ = true;  // a stop need not wait for this
  while (!context_.stopping.load()) {
    const int64_t left_ms = give_up_ms - CoarseNowMs();
    if (left_ms <= 0) break;
    Result<size_t> count = co_await stream_.ReadSome(scratch.view(), left_ms);
    if (!count.has_value() || *count == 0) break;
  }
  idle_ = false;
}

void Connection::Record(const Exchange& exchange) const {
  RouteMetrics& metrics = context_.metrics.Of(exchange.match);
  const int64_t duration_ns = SystemClock().MonotonicNs() - exchange.started_ns;
  metrics.Record(exchange.status, static_cast<double>(duration_ns) / 1e9);
  context_.metrics.received_bytes.Add(static_cast<double>(exchange.received_bytes));
  context_.metrics.sent_bytes.Add(static_cast<double>(exchange.sent_bytes));

  const Request* request = exchange.request.get();
  const auth::Caller* caller = request != nullptr ? request->caller.get() : nullptr;
  const ScopedLogContext context(request != nullptr ? request->request_id : "");
  LOG(kInfo, "http", "{} {} {} in={} out={} ms={:.1f} remote={} user={} project={}",
      request != nullptr ? request->method : "-", request != nullptr ? PathOf(*request) : "-",
      exchange.status, exchange.received_bytes, exchange.sent_bytes,
      static_cast<double>(duration_ns) / 1e6, remote_,
      caller != nullptr && !caller->user_id.empty() ? caller->user_id : "-",
      caller != nullptr && !caller->project_id.empty() ? caller->project_id : "-");
}

}  // namespace base::http
