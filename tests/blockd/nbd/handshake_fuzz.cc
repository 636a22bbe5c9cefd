// The handshake as a stream: the first byte chooses the TLS mode, the rest is what a client says.

#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/check.h"
#include "blockd/memory/memory_volume.h"
#include "blockd/nbd/handshake.h"

namespace {

using blockd::nbd::Export;
using blockd::nbd::Handshake;

class Provider : public blockd::nbd::ExportProvider {
 public:
  base::Result<std::shared_ptr<const Export>> Open(std::string_view name) override {
    CHECK(name.size() <= blockd::nbd::kMaxNameBytes);
    if (name == "busy") return base::Error(base::Code::kConflict, "attached elsewhere");
    if (name != "disk") return base::Error(base::Code::kNotFound, "no such export");
    return disk_;
  }
  base::Result<std::vector<std::string>> List() override {
    return std::vector<std::string>{"disk"};
  }

 private:
  static std::shared_ptr<const Export> Disk() {
    Export made;
    made.volume = std::make_shared<blockd::memory::MemoryVolume>(base::kMiB);
    return std::make_shared<const Export>(std::move(made));
  }
  const std::shared_ptr<const Export> disk_ = Disk();
};

struct Outcome {
  Handshake::Next next = Handshake::Next::kMore;
  size_t used = 0;
  std::string said;
};

// Hands over the client's bytes in pieces of `step`, as a socket might.
Outcome Run(Provider& provider, Handshake::Tls tls, base::ByteView client, size_t step) {
  Handshake handshake(provider, tls, [](std::string_view) { return true; });
  Outcome outcome;
  size_t have = 0;
  while (true) {
    size_t used = 0;
    const base::ByteView input = client.subspan(outcome.used, have - outcome.used);
    outcome.next = handshake.Feed(input, &used, &outcome.said);
    CHECK(used <= input.size());
    outcome.used += used;
    if (outcome.next == Handshake::Next::kStartTls) {
      handshake.TlsStarted();
      if (outcome.used < have) continue;
    } else if (outcome.next != Handshake::Next::kMore) {
      break;
    }
    if (have == client.size()) break;
    have = std::min(have + step, client.size());
  }
  if (outcome.next == Handshake::Next::kTransmit) {
    CHECK(handshake.session().exported != nullptr);
    CHECK(handshake.session().contexts.empty() || handshake.session().structured_replies);
  }
  return outcome;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  static Provider provider;
  const auto tls = static_cast<Handshake::Tls>(data[0] % 3);
  const base::ByteView client(data + 1, size - 1);
  // However the bytes come, they mean the same.
  const Outcome whole = Run(provider, tls, client, client.size());
  const Outcome pieces = Run(provider, tls, client, 7);
  CHECK(whole.next == pieces.next);
  CHECK(whole.used == pieces.used);
  CHECK(whole.said == pieces.said);
  return 0;
}
