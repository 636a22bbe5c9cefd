#include "tests/base/http/test_client.h"

#include <algorithm>
#include <cctype>
#include <utility>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"

namespace base::http {

RawClient::RawClient(const std::string& address) {
  const size_t colon = address.rfind(':');
  sockaddr_in peer{};
  peer.sin_family = AF_INET;
  peer.sin_port = htons(static_cast<uint16_t>(std::stoi(address.substr(colon + 1))));
  CHECK(inet_pton(AF_INET, address.substr(0, colon).c_str(), &peer.sin_addr) == 1);
  socket_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  CHECK(socket_ >= 0);
  const timeval minute{60, 0};
  ::setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &minute, sizeof(minute));
  ::setsockopt(socket_, SOL_SOCKET, SO_SNDTIMEO, &minute, sizeof(minute));
  CHECK(::connect(socket_, reinterpret_cast<sockaddr*>(&peer), sizeof(peer)) == 0);
}

RawClient::~RawClient() { ::close(socket_); }

bool RawClient::Send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

void RawClient::ShutdownSend() { ::shutdown(socket_, SHUT_WR); }

void RawClient::Abort() {
  const linger now{1, 0};
  ::setsockopt(socket_, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
  ::close(socket_);
  socket_ = -1;
}

bool RawClient::Fill() {
  char buffer[64 * 1024];
  const ssize_t count = ::recv(socket_, buffer, sizeof(buffer), 0);
  if (count < 0) reset_ = true;
  if (count <= 0) return false;
  pending_.append(buffer, static_cast<size_t>(count));
  return true;
}

bool RawClient::TakeLine(std::string* line) {
  size_t end;
  while ((end = pending_.find("\r\n")) == std::string::npos)
    if (!Fill()) return false;
  *line = pending_.substr(0, end);
  pending_.erase(0, end + 2);
  return true;
}

bool RawClient::TakeBytes(size_t count, std::string* out) {
  while (pending_.size() < count)
    if (!Fill()) return false;
  out->append(pending_, 0, count);
  pending_.erase(0, count);
  return true;
}

RawClient::Answer RawClient::Receive(bool head_only) {
  Answer answer;
  std::string line;
  if (!TakeLine(&line) || line.size() < 12 || !line.starts_with("HTTP/1.1 ")) return answer;
  const int status = std::stoi(line.substr(9, 3));
  while (TakeLine(&line) && !line.empty()) {
    const size_t colon = line.find(": ");
    std::string name = line.substr(0, colon);
    for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    answer.headers[name] = line.substr(colon + 2);
  }
  answer.status = status;
  if (head_only || status == 204 || status == 304 || status < 200) {
    answer.whole = true;
  } else if (answer.headers.contains("content-length")) {
    answer.whole = TakeBytes(std::stoull(answer.headers["content-length"]), &answer.body);
  } else if (answer.headers.contains("transfer-encoding")) {
    size_t size = 1;
    while (size > 0) {
      if (!TakeLine(&line)) return answer;
      size = std::stoull(line, nullptr, 16);
      if (!TakeBytes(size, &answer.body) || !TakeLine(&line) || !line.empty()) return answer;
    }
    answer.whole = true;
  } else {
    answer.body = ReceiveRest();
    answer.whole = !reset_;
  }
  return answer;
}

std::string RawClient::ReceiveRest() {
  while (Fill()) {
  }
  return std::exchange(pending_, std::string());
}

}  // namespace base::http
