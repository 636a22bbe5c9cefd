#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/http/message.h"
#include "base/http/stream.h"

namespace base::http {

// Puts one response on the wire: framing, then the body by its pieces. Internal to base/http. One
// thread; borrows stream and response.
class ResponseWriter {
 public:
  struct To {
    int version = 11;         // of the request
    bool head_only = false;   // it was a HEAD
    bool keep_alive = false;  // the client wants it and the request's body is through
  };

  ResponseWriter(Stream* stream, Response* response, To to, int64_t stall_timeout_ms);

  // `first`: the first piece of response->source, if there is one. An Error: the connection can't
  // be used again.
  async::Task<Result<void>> Send(Piece first);

  // False when the answer ends with the connection, whatever the client wanted.
  bool keep_alive() const { return to_.keep_alive; }
  uint64_t sent_bytes() const { return sent_bytes_; }  // of the body

 private:
  void SetFraming();
  async::Task<Result<void>> SendSource(Piece piece);
  async::Task<Result<void>> SendPiece(const Piece* piece, std::string_view before,
                                      std::string_view after);

  Stream* const stream_;
  Response* const response_;
  To to_;
  const int64_t stall_timeout_ms_;
  bool bodiless_ = false;
  bool chunked_ = false;
  std::string head_;
  uint64_t sent_bytes_ = 0;
};

}  // namespace base::http
