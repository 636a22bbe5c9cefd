#include "blockd/nbd/connection.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "blockd/nbd/connection_limits.h"

namespace blockd::nbd {
namespace {

Patience PatienceOf(const ServerSettings& settings) {
  return {settings.stall_ms * 1'000'000, static_cast<uint64_t>(settings.min_bytes_per_second)};
}

}  // namespace

std::shared_ptr<Shared::PerVolume> Shared::Of(const std::string& volume_id) {
  base::MutexLock lock(mutex);
  std::weak_ptr<PerVolume>& known = volumes[volume_id];
  std::shared_ptr<PerVolume> found = known.lock();
  if (found == nullptr) {
    std::erase_if(volumes, [&](const auto& entry) {
      return entry.first != volume_id && entry.second.expired();
    });
    found = std::make_shared<PerVolume>(
        PerVolume{VolumeMetrics(metrics.registry, volume_id), workers.NewLane()});
    volumes[volume_id] = found;
  }
  return found;
}

Connection::Connection(std::shared_ptr<Shared> shared, int descriptor, Handshake::Tls tls,
                       std::string peer)
    : shared_(std::move(shared)),
      peer_(std::move(peer)),
      tls_(tls),
      channel_(descriptor, PatienceOf(shared_->settings),
               [this](uint32_t requests, uint64_t bytes) { GiveRoom(requests, bytes); }),
      input_(kInputBytes),
      batch_(kBatchBytes) {}

Connection::~Connection() = default;

void Connection::Cut() {
  fence_.Close();
  channel_.Cut();
}

void Connection::Drain() {
  draining_.store(true);
  channel_.Wake();
}

bool Connection::Uses(std::string_view name) const {
  base::MutexLock lock(name_mutex_);
  return std::find(names_.begin(), names_.end(), name) != names_.end();
}

// Before the provider is asked, so that a revocation finds it here or the provider refuses.
bool Connection::Register(std::string_view name) {
  base::MutexLock lock(name_mutex_);
  if (draining_.load() || names_.size() >= kMaxNamesPerConnection) return false;
  names_.emplace_back(name);
  return true;
}

base::Result<void> Connection::TakeSeat(std::string_view name, const Export& exported) {
  base::Result<Admission::Seat> seat = shared_->admission->TakeSeat(name, exported.tenant);
  if (!seat.has_value()) {
    shared_->Count([&] { shared_->metrics.refused.Add(); });
    LOG(kWarn, "nbd", "{}: volume {}: {}", peer_, exported.volume_id, seat.error().message());
    return seat.error();
  }
  seat_ = std::move(*seat);
  return {};
}

void Connection::Serve() {
  shared_->Count([&] { shared_->metrics.connections.Add(1); });
  const bool agreed = Shake();
  const bool kept = shared_->admission->EndHandshake(*this);
  if (agreed && kept && OpenVolume()) {
    LOG(kInfo, "nbd", "{} opened volume {}", peer_, session_.exported->volume_id);
    Transmit();
    LOG(kInfo, "nbd", "{} left volume {}", peer_, session_.exported->volume_id);
  } else {
    shared_->Count([&] { shared_->metrics.handshakes_failed.Add(); });
    channel_.Finish();
  }
  if (channel_.stalled()) CutSlow("does not take its answers");
  Cut();
  channel_.LetGo();
  // A write that still runs keeps this connection on the list, where a revocation finds it.
  while (!fence_.WaitEmpty(kFenceLookMs)) {
  }
  shared_->Count([&] { shared_->metrics.connections.Add(-1); });
}

bool Connection::Shake() {
  const int64_t deadline_ns =
      base::SystemClock().MonotonicNs() + shared_->settings.handshake_timeout_ms * 1'000'000;
  Handshake handshake(
      shared_->opener, tls_, [this](std::string_view name) { return Register(name); },
      [this](std::string_view name, const Export& exported) { return TakeSeat(name, exported); });
  channel_.PostBatch(base::AsBytes(handshake.Greeting()));
  while (true) {
    size_t used = 0;
    std::string out;
    const Handshake::Next next =
        handshake.Feed(input_.view().subspan(input_begin_, input_end_ - input_begin_), &used, &out);
    input_begin_ += used;
    channel_.PostBatch(base::AsBytes(out));
    if (next == Handshake::Next::kTransmit) {
      session_ = std::move(handshake.session());
      return true;
    }
    if (next == Handshake::Next::kClose) {
      LOG(kInfo, "nbd", "{}: {}", peer_, handshake.why());
      return false;
    }
    if (next == Handshake::Next::kStartTls) {
      // What was sent behind STARTTLS in clear text could have been put there by anybody.
      if (input_begin_ != input_end_) return false;
      const base::Result<void> secret = channel_.StartTls(*shared_->settings.tls, deadline_ns);
      if (!secret.has_value()) {
        LOG(kInfo, "nbd", "{}: {}", peer_, secret.error().ToString());
        return false;
      }
      handshake.TlsStarted();
    }
    if (!FillOnce(deadline_ns)) return false;
  }
}

// False when the server has stopped.
bool Connection::OpenVolume() {
  volume_ = session_.exported->volume.get();
  shared_->Count([&] { per_volume_ = shared_->Of(session_.exported->volume_id); });
  memory_line_ = std::make_unique<MemoryBudget::Line>(shared_->memory, session_.exported->tenant,
                                                      [this] { channel_.Wake(); });
  volume_watched_.store(true);
  return per_volume_ != nullptr;
}

void Connection::Transmit() {
  while (!channel_.cut() && TakeRequest()) {
  }
  SendBatch();
  busy_since_ns_.store(0);
  // The requests in hand are answered, if anybody is there to hear it. Room is taken by each of
  // them.
  wants_room_.store(true);
  while (in_flight_requests_.load() > 0 && !channel_.cut()) {
    size_t ignored = 0;
    const Channel::Event event = channel_.Receive({}, &ignored);
    if (event == Channel::Event::kEnd || event == Channel::Event::kStalled) return;
  }
  channel_.Finish();
}

// False when the connection is to end.
bool Connection::TakeRequest() {
  if (!Fill(kRequestBytes)) return false;
  Request request;
  if (!ParseRequest(input_.data() + input_begin_, &request)) {
    LOG(kWarn, "nbd", "{}: a request without its magic, or a write too long; cut off", peer_);
    return false;
  }
  if (request.command == Command::kDisconnect) return false;
  const uint32_t payload_bytes = request.payload_bytes();
  const Shape shape{volume_->size_bytes(), session_.exported->read_only,
                    session_.structured_replies, !session_.contexts.empty()};
  const WireError error = Validate(request, shape);
  if (error != WireError::kOk) {
    input_begin_ += kRequestBytes;
    if (!Skip(payload_bytes)) return false;
    Answer(request, error);
    return true;
  }
  if (payload_bytes > kMaxInlineBytes) return TakePayload(request);
  if (!Fill(kRequestBytes + payload_bytes)) return false;
  const base::ByteView payload = input_.view().subspan(input_begin_ + kRequestBytes, payload_bytes);
  const bool done = Start(request, payload);
  input_begin_ += kRequestBytes + payload_bytes;
  return done;
}

// A long write: its bytes are received where they stay, and it is run by others.
bool Connection::TakePayload(const Request& request) {
  input_begin_ += kRequestBytes;
  MemoryBudget::Share memory;
  if (!TakeRoom(request, &memory)) return false;
  Buffers::Loan payload = Buffers::Take(shared_->buffers, request.length);
  const size_t here = std::min<size_t>(input_end_ - input_begin_, request.length);
  std::memcpy(payload.data(), input_.data() + input_begin_, here);
  input_begin_ += here;
  const Patience patience = PatienceOf(shared_->settings);
  int64_t now_ns = base::SystemClock().MonotonicNs();
  const int64_t until_ns = patience.UntilNs(now_ns, request.length);
  for (size_t have = here; have < request.length;) {
    size_t count = 0;
    const int64_t deadline_ns = std::min(until_ns, now_ns + patience.stall_ns);
    if (!ReceiveInto(payload.view().subspan(have), &count, deadline_ns)) return false;
    have += count;
    now_ns = busy_since_ns_.load(std::memory_order_relaxed);
    if (now_ns > until_ns && have < request.length) {
      CutSlow("sends the data of its write too slowly");
      return false;
    }
  }
  Dispatch(request, std::move(payload), std::move(memory), Admit(request));
  return true;
}

// At least one byte, or false at the end.
bool Connection::ReceiveInto(base::MutableByteView into, size_t* count, int64_t deadline_ns) {
  SendBatch();
  while (true) {
    busy_since_ns_.store(0, std::memory_order_relaxed);
    const Channel::Event event = channel_.Receive(into, count, deadline_ns);
    busy_since_ns_.store(base::SystemClock().MonotonicNs(), std::memory_order_relaxed);
    if (event == Channel::Event::kBytes) return true;
    if (event == Channel::Event::kWoken && !draining_.load()) continue;
    const bool in_payload = event == Channel::Event::kTimeout && volume_ != nullptr;
    if (in_payload) CutSlow("does not send the data of its write");
    // One that is gone, or hangs, hears no answers: what waits for it is dropped.
    if (event != Channel::Event::kWoken) Cut();
    return false;
  }
}

void Connection::CutSlow(std::string_view what) {
  shared_->Count([&] { shared_->metrics.stalled_connections.Add(); });
  LOG(kWarn, "nbd", "{}: {}; cut off", peer_, what);
  Cut();
}

bool Connection::FillOnce(int64_t deadline_ns) {
  if (input_begin_ == input_end_) {
    input_begin_ = input_end_ = 0;
  } else if (input_.size() - input_begin_ < kRequestBytes + kMaxInlineBytes) {
    std::memmove(input_.data(), input_.data() + input_begin_, input_end_ - input_begin_);
    input_end_ -= std::exchange(input_begin_, 0);
  }
  size_t count = 0;
  if (!ReceiveInto(input_.view().subspan(input_end_), &count, deadline_ns)) return false;
  input_end_ += count;
  return true;
}

bool Connection::Fill(size_t size_bytes) {
  while (input_end_ - input_begin_ < size_bytes) {
    if (!FillOnce(0)) return false;
  }
  return true;
}

bool Connection::Skip(size_t size_bytes) {
  while (size_bytes > 0) {
    if (!Fill(1)) return false;
    const size_t here = std::min(input_end_ - input_begin_, size_bytes);
    input_begin_ += here;
    size_bytes -= here;
  }
  return true;
}

// Alone, a request finds room in its connection always; in the memory of all, if it is short.
bool Connection::TryTakeRoom(uint64_t charge_bytes, uint64_t memory_bytes,
                             MemoryBudget::Share* memory) {
  const ServerSettings& settings = shared_->settings;
  const int64_t requests = in_flight_requests_.load();
  const uint64_t used = static_cast<uint64_t>(in_flight_bytes_.load());
  if (requests > 0 && (static_cast<size_t>(requests) >= settings.max_in_flight_requests ||
                       used + charge_bytes > settings.max_in_flight_bytes)) {
    return false;
  }
  if (memory_bytes == 0) return true;
  if (requests == 0 && memory_bytes <= kMaxInlineBytes) {
    memory_line_->Leave();
    return true;
  }
  *memory = memory_line_->TryTake(memory_bytes);
  return static_cast<bool>(*memory);
}

// Waits until others have ended enough of what they run, without reading more.
bool Connection::TakeRoom(const Request& request, MemoryBudget::Share* memory) {
  const uint64_t charge_bytes = ChargeOf(request);
  const uint64_t memory_bytes = Buffers::MemoryOf(charge_bytes);
  const auto fits = [&] { return TryTakeRoom(charge_bytes, memory_bytes, memory); };
  bool waited = false;
  while (!fits()) {
    SendBatch();
    wants_room_.store(true);
    if (fits()) break;
    if (!waited && memory_line_->waits()) {
      shared_->Count([&] { shared_->metrics.memory_waits.Add(); });
    }
    waited = true;
    size_t ignored = 0;
    busy_since_ns_.store(0, std::memory_order_relaxed);
    const Channel::Event event = channel_.Receive({}, &ignored);
    if (event == Channel::Event::kEnd || event == Channel::Event::kStalled) {
      memory_line_->Leave();
      Cut();
      return false;
    }
  }
  wants_room_.store(false);
  // That it woke us was for the next wait to see.
  if (waited && draining_.load()) channel_.Wake();
  busy_since_ns_.store(base::SystemClock().MonotonicNs(), std::memory_order_relaxed);
  in_flight_requests_.fetch_add(1);
  in_flight_bytes_.fetch_add(static_cast<int64_t>(charge_bytes));
  return true;
}

void Connection::GiveRoom(uint32_t requests, uint64_t bytes) {
  in_flight_bytes_.fetch_sub(static_cast<int64_t>(bytes));
  in_flight_requests_.fetch_sub(requests);
  if (wants_room_.load()) channel_.Wake();
}

}  // namespace blockd::nbd
