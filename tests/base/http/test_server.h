#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "base/async/pool.h"
#include "base/auth/verifier.h"
#include "base/http/server.h"
#include "base/thread_annotations.h"
#include "tests/support/temp_dir.h"

namespace base::http {

// The tokens "member-token", "admin-token", and "ruled-token", with which one can only DELETE
// /things/*/tags/*; anything else is unknown; "down-token" finds no
// identity service.
class FakeVerifier final : public auth::TokenVerifier {
 public:
  Result<std::shared_ptr<const auth::Caller>> Verify(std::string_view token) override;
};

// A door that handlers wait behind until the test opens it. Thread-safe.
class Door {
 public:
  void Open();
  void Pass();
  // Until `count` handlers wait behind it.
  void AwaitWaiting(int count);

 private:
  Mutex mutex_;
  CondVar changed_;
  bool open_ GUARDED_BY(mutex_) = false;
  int waiting_ GUARDED_BY(mutex_) = 0;
};

// A server with one route for each thing that a server must do; see test_server.cc. Bodies that it
// makes up are Pattern(size).
class TestServer {
 public:
  explicit TestServer(ServerOptions options = {}, size_t pool_queue = 64);
  ~TestServer();

  std::string address() const { return server_->address(); }
  std::string url(const std::string& path) const { return "http://" + address() + "/t" + path; }
  Server& server() { return *server_; }
  Metrics& metrics() { return metrics_; }
  Door& door() { return door_; }
  // How many bytes uploads have read, so far.
  std::atomic<uint64_t>& uploaded() { return uploaded_; }

  static std::string Pattern(size_t size);

 private:
  std::vector<Route> Routes();

  support::TempDir dir_;
  FakeVerifier verifier_;
  Door door_;
  std::atomic<uint64_t> uploaded_ = 0;
  Metrics metrics_;
  Router router_;
  async::Pool pool_;
  std::unique_ptr<Server> server_;
};

}  // namespace base::http
