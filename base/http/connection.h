#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_set>

#include <boost/asio/ip/tcp.hpp>

#include "base/async/gate.h"
#include "base/async/pool.h"
#include "base/async/task.h"
#include "base/http/body_budget.h"
#include "base/http/request_body.h"
#include "base/http/response_writer.h"
#include "base/http/router.h"
#include "base/http/server.h"
#include "base/http/server_metrics.h"
#include "base/http/stream.h"
#include "base/http/trusted_peers.h"
#include "base/http/wire.h"

// One client's connection, from its first byte to its close: head, route, body, handler, answer,
// and again. Internal to base/http.

namespace base::http {

// What all connections of a server share. Immutable but for `stopping`.
struct ServerContext {
  ServerContext(ServerOptions opts, const Router& routes, async::Pool& jobs, Metrics& registry)
      : options(std::move(opts)),
        router(routes),
        pool(jobs),
        metrics(routes, registry),
        bodies(options.body_memory_bytes, metrics.body_memory, metrics.refused_bodies) {}

  const ServerOptions options;
  TrustedPeers trusted_proxies;  // set before the first connection
  const Router& router;
  async::Pool& pool;
  ServerMetrics metrics;
  BodyBudget bodies;
  std::atomic<bool> stopping = false;
  std::atomic<size_t> open_connections = 0;
};

class Connection;
// Who is on one io thread. One thread: that one.
using ConnectionSet = std::unordered_set<Connection*>;

// Lives as long as its coroutine. One thread: that of the socket's io_context.
class Connection {
 public:
  // All are borrowed and outlive it; `pass` holds the server's gate.
  Connection(boost::asio::ip::tcp::socket socket, ServerContext* context, ConnectionSet* siblings,
             async::Gate::Pass pass);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Serves until the connection ends. `self` keeps it alive.
  async::Task<void> Run(std::shared_ptr<Connection> self);

  void ExpireIfDue(int64_t now_ms) { stream_.ExpireIfDue(now_ms); }
  // The server stops: nobody waits for an answer here, or it can't wait any longer.
  void CloseIfIdle();
  void Close() { stream_.Close(); }

 private:
  // One request and its answer; the request is null for one that could not be taken apart.
  struct Exchange {
    std::shared_ptr<Request> request;
    Match match;
    ResponseWriter::To to;
    int64_t started_ns = 0;
    int status = 0;
    uint64_t received_bytes = 0;
    uint64_t sent_bytes = 0;
  };

  // False when the connection ends: closed, timed out, or answered with a refusal.
  async::Task<bool> ReadHead(MessageParser* parser);
  async::Task<void> Refuse(int status, std::string why);
  // False when the connection ends.
  async::Task<bool> Serve(MessageParser* parser);
  // The request from its head; an Error for one that can't be served (a query that can't be
  // decoded).
  Result<void> Prepare(MessageHead* head, Exchange* exchange);
  std::string BaseUrl(const Headers& headers) const;
  async::Task<Response> Answer(Exchange* exchange, RequestBody* body);
  async::Task<Result<Response>> RunStream(std::shared_ptr<Request> request, const Match* match,
                                          RequestBody* body);
  async::Task<Result<Response>> RunHandler(std::shared_ptr<Request> request, const Match* match,
                                           RequestBody* body);
  async::Task<Result<void>> Authorize(std::shared_ptr<Request> request, const Match* match);
  // False when the connection broke on the way.
  async::Task<bool> Send(Exchange* exchange, Response* response);
  // Reads what the client may still send, so that it gets to read our answer.
  async::Task<void> Linger();
  void Record(const Exchange& exchange) const;

  ServerContext& context_;
  ConnectionSet& siblings_;
  const async::Gate::Pass pass_;
  bool behind_proxy_ = false;  // the peer is one whose X-Forwarded fields count
  std::string remote_;
  std::string local_;
  Stream stream_;
  bool idle_ = false;
};

}  // namespace base::http
