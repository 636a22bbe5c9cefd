// What a client sends once it has opened a volume: a real connection over a pair of sockets. The
// first byte chooses structured replies, a context, a cold cache; the rest is the stream.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "blockd/memory/memory_volume.h"
#include "blockd/nbd/connection.h"

namespace {

namespace nbd = blockd::nbd;

// Small, so that many requests are within it.
class Volume : public blockd::memory::MemoryVolume {
 public:
  Volume() : MemoryVolume(base::kMiB) {}
  base::Result<bool> TryRead(uint64_t offset, base::MutableByteView into) override {
    if (cold) return false;
    return MemoryVolume::TryRead(offset, into);
  }
  bool cold = false;
};

class Provider : public nbd::ExportProvider {
 public:
  base::Result<std::shared_ptr<const nbd::Export>> Open(std::string_view name) override {
    nbd::Export made;
    made.volume_id = "fuzz";
    made.volume = volume;
    return std::make_shared<const nbd::Export>(std::move(made));
  }
  const std::shared_ptr<Volume> volume = std::make_shared<Volume>();
};

std::string Option(nbd::Option option, std::string_view data) {
  std::string out;
  nbd::PutBig(&out, nbd::kOptionMagic);
  nbd::PutBig(&out, static_cast<uint32_t>(option));
  nbd::PutBig(&out, static_cast<uint32_t>(data.size()));
  out.append(data);
  return out;
}

std::string Opening(bool structured, bool context) {
  std::string out("\0\0\0\3", 4);
  if (structured) out += Option(nbd::Option::kStructuredReply, "");
  if (context) {
    std::string data("\0\0\0\4disk\0\0\0\1\0\0\0\017base:allocation", 31);
    out += Option(nbd::Option::kSetMetaContext, data);
  }
  return out + Option(nbd::Option::kGo, std::string_view("\0\0\0\4disk\0\0", 10));
}

void SendAll(int descriptor, base::ByteView bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(descriptor, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return;  // cut off
    bytes = bytes.subspan(static_cast<size_t>(sent));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  static base::Metrics metrics;
  static const auto provider = std::make_shared<Provider>();
  static const auto shared =
      std::make_shared<nbd::Shared>(nbd::ServerSettings{}, provider, metrics);
  static const bool quiet = base::SetLogLevel("error");
  CHECK(quiet);
  provider->volume->cold = (data[0] & 4) != 0;

  int ends[2];
  CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
  ::fcntl(ends[1], F_SETFL, O_NONBLOCK);
  auto connection =
      std::make_shared<nbd::Connection>(shared, ends[1], nbd::Handshake::Tls::kOff, "fuzz");
  std::thread client([&] {
    const std::string opening = Opening((data[0] & 1) != 0, (data[0] & 2) != 0);
    SendAll(ends[0], base::AsBytes(opening));
    SendAll(ends[0], {data + 1, size - 1});
    ::shutdown(ends[0], SHUT_WR);
  });
  std::thread taker([&] {
    char ignored[65536];
    while (::recv(ends[0], ignored, sizeof(ignored), 0) > 0) {
    }
  });
  connection->Serve();
  client.join();
  taker.join();
  ::close(ends[0]);
  return 0;
}
