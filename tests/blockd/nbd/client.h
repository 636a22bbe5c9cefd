#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "blockd/nbd/handshake.h"
#include "blockd/nbd/protocol.h"
#include "blockd/nbd/request.h"

namespace blockd::nbd {

// A client that says exactly what a test wants, byte by byte. A test fails (and the client says
// nothing more) when the server is silent for too long. One thread.
class Client {
 public:
  struct OptionAnswer {
    OptionReply type = OptionReply::kErrInvalid;
    std::string data;
  };
  // An answer to a request; data of a structured chunk without its head.
  struct Answer {
    uint64_t cookie = 0;
    WireError error = WireError::kOk;
    uint16_t type = 0;  // of a chunk
    std::string data;
  };

  // Connects and reads the greeting.
  explicit Client(const std::string& socket_path);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  bool Send(std::string_view bytes);
  // All of them, or what came before the end.
  std::string Receive(size_t count_bytes);
  // True when the server hangs up, false when it says something instead.
  bool Ended();

  void SendFlags(uint32_t flags = kFlagFixedNewstyle | kFlagNoZeroes);
  void SendOption(Option option, std::string_view data);
  OptionAnswer ReceiveOption();
  // The flags, GO, and all answers to it; true if the export is open.
  bool Go(std::string_view name, bool structured = false);

  static std::string Encode(const Request& request, std::string_view payload = {});
  // Sends one and takes its answer; reads know how much data a simple answer has.
  Answer Call(const Request& request, std::string_view payload = {});
  Answer ReceiveAnswer(uint32_t data_bytes = 0);

  uint64_t size_bytes = 0;
  uint16_t flags = 0;

 private:
  int descriptor_;
  bool structured_ = false;
};

// The data of GO or INFO.
std::string GoData(std::string_view name);

}  // namespace blockd::nbd
