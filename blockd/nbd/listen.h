#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"

// Sockets that listen. Internal to blockd/nbd.

namespace blockd::nbd {

struct Listener {
  int descriptor = -1;
  uint16_t port = 0;      // of TCP
  bool loopback = false;  // nobody else can reach it
};

// The caller owns the descriptor. kInvalidArgument for a name that means nothing.
base::Result<Listener> OpenTcp(const std::string& host, uint16_t port);
base::Result<Listener> OpenUnix(const std::string& path);

// Accepts without waiting; -1 with errno when there is nobody. `peer` is for logs.
int AcceptFrom(int listener, std::string* peer);

}  // namespace blockd::nbd
