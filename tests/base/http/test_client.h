#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace base::http {

// A socket with nothing between it and the test: for requests that no client library would send.
// Everything blocks, for at most a minute: a server that does not answer is a failed test, not a
// hanging one. One thread.
class RawClient {
 public:
  // `address`: "127.0.0.1:PORT".
  explicit RawClient(const std::string& address);
  ~RawClient();
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;

  // False when the peer has closed.
  bool Send(std::string_view bytes);
  void ShutdownSend();
  // A reset instead of a goodbye.
  void Abort();

  struct Answer {
    int status = 0;                              // 0: the connection ended before a whole answer
    std::map<std::string, std::string> headers;  // names in lower case
    std::string body;
    bool whole = false;
  };
  // The next answer; `head_only` for one to HEAD.
  Answer Receive(bool head_only = false);
  // All that comes until the peer closes.
  std::string ReceiveRest();
  // True when the peer has closed in order and sent nothing more before.
  bool AtEnd() { return ReceiveRest().empty() && !reset_; }
  bool reset() const { return reset_; }

  Answer Exchange(std::string_view request) {
    Send(request);
    return Receive();
  }

 private:
  bool Fill();
  bool TakeLine(std::string* line);
  bool TakeBytes(size_t count, std::string* out);

  int socket_ = -1;
  bool reset_ = false;
  std::string pending_;
};

}  // namespace base::http
