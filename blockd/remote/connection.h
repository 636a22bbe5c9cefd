#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <list>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/thread_annotations.h"
#include "blockd/remote/remote_volume.h"

// One connection to an NBD server, over libnbd. Internal to blockd/remote.

struct nbd_handle;

namespace blockd::remote {

// What a request ended with when the connection broke before its answer; else an errno, or 0.
constexpr int kConnectionLost = -1;

// Who waits until several requests have ended. Thread-safe.
class Waiter {
 public:
  void Add() EXCLUDES(mutex_);
  void Done() EXCLUDES(mutex_);
  void Wait() EXCLUDES(mutex_);

 private:
  base::Mutex mutex_;
  base::CondVar changed_;
  size_t under_way_ GUARDED_BY(mutex_) = 0;
};

// A request. Its memory, and what it points at, stays until it has ended.
struct Operation {
  enum class Kind { kRead, kWrite, kZero, kFlush, kStatus };
  Kind kind = Kind::kFlush;
  uint64_t offset = 0;
  uint64_t length = 0;
  uint8_t* into = nullptr;                          // kRead
  const uint8_t* from = nullptr;                    // kWrite
  bool free_space = false;                          // kZero
  std::string context;                              // kStatus
  std::vector<std::pair<uint64_t, uint32_t>> runs;  // kStatus: lengths and flags, as they came

  int error = kConnectionLost;

  // The connection's, from Send until the end.
  Waiter* waiter = nullptr;
  class Connection* connection = nullptr;
  std::list<Operation*>::iterator place;
  int64_t sent_ns = 0;
};

// What the server says of the export when a connection is made.
struct ExportFacts {
  uint64_t size_bytes = 0;
  uint64_t max_io_bytes = 0;  // at least a sector
  bool read_only = false;
  bool can_flush = false;
  bool can_zero = false;
  bool can_multi_conn = false;
  bool has_allocation = false;
  bool has_context = false;  // that of the settings
};

// Told by the thread of a connection, without a lock. Thread-safe.
class ConnectionEvents {
 public:
  virtual ~ConnectionEvents() = default;
  virtual void Connected(const ExportFacts& facts) = 0;
  virtual void Lost(const base::Error& why) = 0;    // was connected
  virtual void Failed(const base::Error& why) = 0;  // an attempt to connect again
};

// Thread-safe but for Connect, Start and the destructor. A thread of its own receives; who sends
// does so in his own thread, as far as the socket takes it. When the connection breaks (or a
// request is not answered in time) all that is under way ends as lost, and it is made again, for
// ever, until Stop.
class Connection {
 public:
  // Borrows both.
  Connection(const RemoteSettings& settings, ConnectionEvents& events);
  ~Connection();  // Stop()
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Once, at the beginning, by whoever wants to know at once what is wrong.
  base::Result<ExportFacts> Connect();
  // The thread: from here on it connects by itself.
  void Start();
  void Stop();

  // False: it is not connected. Else the waiter counts the request until it has ended.
  bool Send(Operation& operation, Waiter& waiter) EXCLUDES(mutex_);
  bool live() const { return live_.load(); }
  size_t in_flight() const { return in_flight_.load(); }

 private:
  static int OnCompleted(void* user_data, int* error) NO_THREAD_SAFETY_ANALYSIS;
  static int OnStatus(void* user_data, const char* context, uint64_t offset, uint32_t* entries,
                      size_t count, int* error);

  base::Result<nbd_handle*> NewHandle() const;
  base::Result<void> Handshake(nbd_handle* handle);
  base::Result<ExportFacts> FactsOf(nbd_handle* handle) const;
  int64_t Issue(Operation& operation) REQUIRES(mutex_);
  void End(Operation& operation, int error) REQUIRES(mutex_);
  void Run();
  base::Error Serve() EXCLUDES(mutex_);
  int64_t MsUntilTooLate() REQUIRES(mutex_);
  void Drop() EXCLUDES(mutex_);
  // False: it is to stop.
  bool WaitFor(nbd_handle* handle, unsigned direction, int64_t timeout_ms, unsigned* ready);
  void Kick() const;

  const RemoteSettings& settings_;
  ConnectionEvents& events_;
  int kick_ = -1;  // an eventfd
  std::atomic<bool> stopping_ = false;
  std::atomic<bool> live_ = false;
  std::atomic<bool> answered_ = false;  // since it was connected
  std::atomic<size_t> in_flight_ = 0;
  std::thread thread_;

  base::Mutex mutex_;  // also: who has it may call libnbd with the handle
  nbd_handle* handle_ GUARDED_BY(mutex_) = nullptr;
  std::list<Operation*> under_way_ GUARDED_BY(mutex_);  // oldest first
};

}  // namespace blockd::remote
