#pragma once

#include <atomic>
#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/async/gate.h"
#include "base/bytes.h"
#include "base/thread_annotations.h"
#include "blockd/nbd/admission.h"
#include "blockd/nbd/buffers.h"
#include "blockd/nbd/channel.h"
#include "blockd/nbd/fence.h"
#include "blockd/nbd/handshake.h"
#include "blockd/nbd/memory_budget.h"
#include "blockd/nbd/metrics.h"
#include "blockd/nbd/opener.h"
#include "blockd/nbd/request.h"
#include "blockd/nbd/server.h"
#include "blockd/nbd/workers.h"

namespace blockd::nbd {

class Connection;

// What the connections of a server share. Kept by each of them, so that one that hangs can be left
// behind. Thread-safe.
struct Shared {
  static constexpr size_t kMaxIdleBytes = 64 * base::kMiB;  // of buffers

  // Per volume, while anybody is connected.
  struct PerVolume {
    VolumeMetrics metrics;
    std::shared_ptr<Workers::Lane> lane;
  };

  Shared(ServerSettings settings_in, std::shared_ptr<ExportProvider> provider_in,
         base::Metrics& registry)
      : settings(std::move(settings_in)),
        provider(std::move(provider_in)),
        metrics(registry),
        workers(settings.max_threads, settings.max_threads_per_volume),
        opener(provider, workers, settings.request_deadline_ms) {}

  std::shared_ptr<PerVolume> Of(const std::string& volume_id);

  // Runs it unless the server has stopped: then the instruments may be gone, and who is left behind
  // has nobody to count for.
  template <typename Counting>
  void Count(const Counting& counting) {
    if (const base::async::Gate::Pass pass = counted.Enter()) counting();
  }

  const ServerSettings settings;
  const std::shared_ptr<ExportProvider> provider;
  ServerMetrics metrics;
  Workers workers;
  Opener opener;  // of the provider's exports
  const std::shared_ptr<Buffers> buffers = Buffers::Create(kMaxIdleBytes);
  const std::shared_ptr<MemoryBudget> memory =
      std::make_shared<MemoryBudget>(settings.max_memory_bytes);
  const std::shared_ptr<Admission> admission = std::make_shared<Admission>(
      settings.max_handshakes, settings.max_connections, settings.max_connections_per_export);
  base::async::Gate threads;  // of connections
  base::async::Gate counted;  // uses of the instruments

  base::Mutex mutex;
  std::list<std::shared_ptr<Connection>> connections GUARDED_BY(mutex);
  std::unordered_map<std::string, std::weak_ptr<PerVolume>> volumes GUARDED_BY(mutex);
};

// One client. Serve is its thread; the rest is called from others.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  // Owns `descriptor`.
  Connection(std::shared_ptr<Shared> shared, int descriptor, Handshake::Tls tls, std::string peer);
  ~Connection();

  // Until the client leaves or is cut off; the requests in hand end before it returns, unless they
  // hang.
  void Serve();

  // Thread-safe, instant: nothing goes in or out any more, and no write begins.
  void Cut();
  // Serves what was received, then ends. Thread-safe, instant.
  void Drain();
  // After Cut: true when no write runs any more.
  bool WaitFenced(int64_t timeout_ms) { return fence_.WaitEmpty(timeout_ms); }
  // True if it opened `name`, or tries to just now. Thread-safe.
  bool Uses(std::string_view name) const;
  // The watchdog's: answers what is older than the deadline. Thread-safe.
  void Watch(int64_t now_ns);

  bool is_cut() const { return channel_.cut(); }
  const std::string& peer() const { return peer_; }

 private:
  struct Job;

  // connection.cc: the handshake, and taking requests off the stream
  bool Shake();
  bool Register(std::string_view name);
  base::Result<void> TakeSeat(std::string_view name, const Export& exported);
  bool OpenVolume();
  void Transmit();
  bool TakeRequest();
  bool TakePayload(const Request& request);
  bool Fill(size_t size_bytes);
  bool FillOnce(int64_t deadline_ns);
  bool ReceiveInto(base::MutableByteView into, size_t* count, int64_t deadline_ns);
  void CutSlow(std::string_view what);
  bool Skip(size_t size_bytes);
  bool TakeRoom(const Request& request, MemoryBudget::Share* memory);
  bool TryTakeRoom(uint64_t charge_bytes, uint64_t memory_bytes, MemoryBudget::Share* memory);
  void GiveRoom(uint32_t requests, uint64_t bytes);

  // connection_run.cc: running them
  static uint64_t ChargeOf(const Request& request);
  bool Admit(const Request& request);
  bool Start(const Request& request, base::ByteView payload);
  bool TryInline(const Request& request, base::ByteView payload);
  bool TryInlineRead(const Request& request);
  bool TryInlineWrite(const Request& request, base::ByteView payload);
  void Answer(const Request& request, WireError error, std::string_view message = {});
  void SendBatch();
  void Dispatch(const Request& request, Buffers::Loan payload, MemoryBudget::Share memory,
                bool admitted);
  void Submit(std::shared_ptr<Job> job);
  bool RunRemote(const std::shared_ptr<Job>& job);
  void EndRemote(Job& job, const base::Result<void>& result);
  void Run(Job& job);
  base::Result<void> RunCommand(Job& job, Reply* reply);
  base::Result<void> RunRead(Job& job, Reply* reply);
  Reply ReadReply(const Request& request, Buffers::Loan body) const;
  base::Result<void> RunChange(Job& job);
  void Finish(Job& job, Reply reply, WireError error);
  bool Claim(Job& job);
  WireError Log(const Request& request, const base::Error& error);
  base::MutableByteView BatchRoom(size_t size_bytes);

  const std::shared_ptr<Shared> shared_;
  const std::string peer_;
  const Handshake::Tls tls_;
  Channel channel_;
  Fence fence_;
  std::atomic<bool> draining_{false};

  mutable base::Mutex name_mutex_;
  std::vector<std::string> names_ GUARDED_BY(name_mutex_);  // each that it asked for

  Admission::Seat seat_;

  // Of the session, set before the first request.
  Session session_;
  Volume* volume_ = nullptr;  // session_.exported keeps it
  std::shared_ptr<Shared::PerVolume> per_volume_;
  std::unique_ptr<MemoryBudget::Line> memory_line_;

  // The reader's.
  base::Buffer input_;
  size_t input_begin_ = 0;
  size_t input_end_ = 0;
  base::Buffer batch_;  // answers that were ready at once
  size_t batch_bytes_ = 0;
  Tally tally_;

  // Since when the reader has not waited for its client; 0: it does. Watched once it serves a
  // volume.
  std::atomic<int64_t> busy_since_ns_{0};
  std::atomic<bool> volume_watched_{false};

  // Room for requests that others run: the reader takes, whoever sends the answer gives.
  std::atomic<int64_t> in_flight_requests_{0};
  std::atomic<int64_t> in_flight_bytes_{0};
  std::atomic<bool> wants_room_{false};

  base::Mutex jobs_mutex_;
  std::list<std::shared_ptr<Job>> jobs_ GUARDED_BY(jobs_mutex_);  // at the back end
  size_t abandoned_ GUARDED_BY(jobs_mutex_) = 0;  // of those, answered by the watchdog
  std::atomic<int64_t> last_logged_ns_{0};
};

}  // namespace blockd::nbd
