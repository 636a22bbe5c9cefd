#include "tests/blockd/nbd/client.h"

#include <cstring>

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace blockd::nbd {
namespace {

constexpr int kSilenceSeconds = 30;
constexpr size_t kGreetingBytes = 18;

const uint8_t* Raw(const std::string& text) {
  return reinterpret_cast<const uint8_t*>(text.data());
}

}  // namespace

std::string GoData(std::string_view name) {
  std::string data;
  PutBig(&data, static_cast<uint32_t>(name.size()));
  data.append(name);
  PutBig(&data, uint16_t{1});
  PutBig(&data, kInfoBlockSize);
  return data;
}

Client::Client(const std::string& socket_path)
    : descriptor_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, socket_path.data(), socket_path.size());
  EXPECT_EQ(::connect(descriptor_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  const timeval silence{kSilenceSeconds, 0};
  ::setsockopt(descriptor_, SOL_SOCKET, SO_RCVTIMEO, &silence, sizeof(silence));
  ::setsockopt(descriptor_, SOL_SOCKET, SO_SNDTIMEO, &silence, sizeof(silence));
  const std::string greeting = Receive(kGreetingBytes);
  EXPECT_EQ(greeting.substr(0, 16), "NBDMAGICIHAVEOPT");
}

Client::~Client() { ::close(descriptor_); }

bool Client::Send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(descriptor_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

std::string Client::Receive(size_t count_bytes) {
  std::string got(count_bytes, '\0');
  size_t have = 0;
  while (have < count_bytes) {
    const ssize_t count = ::recv(descriptor_, got.data() + have, count_bytes - have, 0);
    if (count < 0 && errno == EAGAIN) ADD_FAILURE() << "the server is silent";
    if (count <= 0) break;
    have += static_cast<size_t>(count);
  }
  got.resize(have);
  return got;
}

bool Client::Ended() { return Receive(1).empty(); }

void Client::SendFlags(uint32_t client_flags) {
  std::string out;
  PutBig(&out, client_flags);
  Send(out);
}

void Client::SendOption(Option option, std::string_view data) {
  std::string out;
  PutBig(&out, kOptionMagic);
  PutBig(&out, static_cast<uint32_t>(option));
  PutBig(&out, static_cast<uint32_t>(data.size()));
  out.append(data);
  Send(out);
}

Client::OptionAnswer Client::ReceiveOption() {
  const std::string head = Receive(20);
  if (head.size() < 20) return {};
  EXPECT_EQ(LoadBig<uint64_t>(Raw(head)), kOptionReplyMagic);
  OptionAnswer answer;
  answer.type = static_cast<OptionReply>(LoadBig<uint32_t>(Raw(head) + 12));
  answer.data = Receive(LoadBig<uint32_t>(Raw(head) + 16));
  return answer;
}

bool Client::Go(std::string_view name, bool structured) {
  SendFlags();
  if (structured) {
    SendOption(Option::kStructuredReply, "");
    structured_ = ReceiveOption().type == OptionReply::kAck;
  }
  SendOption(Option::kGo, GoData(name));
  while (true) {
    const OptionAnswer answer = ReceiveOption();
    if (answer.type == OptionReply::kAck) return true;
    if (answer.type != OptionReply::kInfo) return false;
    if (answer.data.size() == 12) {
      size_bytes = LoadBig<uint64_t>(Raw(answer.data) + 2);
      flags = LoadBig<uint16_t>(Raw(answer.data) + 10);
    }
  }
}

std::string Client::Encode(const Request& request, std::string_view payload) {
  std::string out;
  PutBig(&out, kRequestMagic);
  PutBig(&out, request.flags);
  PutBig(&out, static_cast<uint16_t>(request.command));
  PutBig(&out, request.cookie);
  PutBig(&out, request.offset);
  PutBig(&out, request.length);
  out.append(payload);
  return out;
}

Client::Answer Client::ReceiveAnswer(uint32_t data_bytes) {
  const std::string head = Receive(kSimpleReplyBytes);
  Answer answer;
  if (head.size() < kSimpleReplyBytes) {
    answer.error = WireError::kShutdown;  // it hung up
    return answer;
  }
  answer.cookie = LoadBig<uint64_t>(Raw(head) + 8);
  if (LoadBig<uint32_t>(Raw(head)) == kSimpleReplyMagic) {
    answer.error = static_cast<WireError>(LoadBig<uint32_t>(Raw(head) + 4));
    if (answer.error == WireError::kOk && !structured_) answer.data = Receive(data_bytes);
    return answer;
  }
  EXPECT_EQ(LoadBig<uint32_t>(Raw(head)), kStructuredReplyMagic);
  answer.type = LoadBig<uint16_t>(Raw(head) + 6);
  const std::string length = Receive(4);
  answer.data = Receive(LoadBig<uint32_t>(Raw(length)));
  if (answer.type == kChunkError) {
    answer.error = static_cast<WireError>(LoadBig<uint32_t>(Raw(answer.data)));
  }
  if (answer.type == kChunkOffsetData) answer.data.erase(0, 8);
  return answer;
}

Client::Answer Client::Call(const Request& request, std::string_view payload) {
  Send(Encode(request, payload));
  return ReceiveAnswer(request.command == Command::kRead ? request.length : 0);
}

}  // namespace blockd::nbd
