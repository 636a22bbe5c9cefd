// Running requests: by the reader where no disk is needed, else by the server's threads.

#include <cstring>
#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "blockd/nbd/block_status.h"
#include "blockd/nbd/connection.h"
#include "blockd/nbd/connection_limits.h"
#include "blockd/nbd/reply.h"

namespace blockd::nbd {
namespace {

bool IsWrite(Command command) {
  return command == Command::kWrite || command == Command::kTrim ||
         command == Command::kWriteZeroes;
}

}  // namespace

// What it takes of a connection's room: the memory it may need.
uint64_t Connection::ChargeOf(const Request& request) {
  switch (request.command) {
    case Command::kRead:
    case Command::kWrite:
      return request.length;
    case Command::kBlockStatus:
      return kBlockStatusChargeBytes;
    default:
      return 0;
  }
}

// A request that others run. The payload is its own, so that a late end hurts nobody.
struct Connection::Job : public qos::Waiter, public std::enable_shared_from_this<Job> {
  Job(std::shared_ptr<Connection> owner, const Request& what, Buffers::Loan data,
      MemoryBudget::Share share)
      : connection(std::move(owner)),
        request(what),
        memory(std::move(share)),
        payload(std::move(data)) {}

  bool Wanted() const override { return !connection->channel_.cut(); }
  void Go() override { connection->Submit(shared_from_this()); }

  const std::shared_ptr<Connection> connection;
  const Request request;
  MemoryBudget::Share memory;  // of the payload or the answer; given back after it
  Buffers::Loan payload;
  int64_t started_ns = 0;
  std::atomic<bool> answered{false};
  std::list<std::shared_ptr<Job>>::iterator place;  // in jobs_
};

// Of a request that is valid. Charges it, if the volume has limits; false if it has to wait.
bool Connection::Admit(const Request& request) {
  qos::Limiter* limiter = session_.exported->limiter.get();
  if (limiter == nullptr) return true;
  if (request.command == Command::kRead) {
    return limiter->TryPass(qos::Direction::kRead, request.length);
  }
  // Zeroing moves no data: an operation without bytes.
  return !IsWrite(request.command) ||
         limiter->TryPass(qos::Direction::kWrite, request.payload_bytes());
}

bool Connection::Start(const Request& request, base::ByteView payload) {
  const bool admitted = Admit(request);
  if (admitted && TryInline(request, payload)) return true;
  MemoryBudget::Share memory;
  if (!TakeRoom(request, &memory)) return false;
  Buffers::Loan own = Buffers::Take(shared_->buffers, payload.size());
  if (!payload.empty()) std::memcpy(own.data(), payload.data(), payload.size());
  Dispatch(request, std::move(own), std::move(memory), admitted);
  return true;
}

bool Connection::TryInline(const Request& request, base::ByteView payload) {
  if (volume_->is_remote()) return false;
  if (request.command == Command::kRead) return TryInlineRead(request);
  if (request.command == Command::kWrite) return TryInlineWrite(request, payload);
  return false;
}

bool Connection::TryInlineRead(const Request& request) {
  if (request.length > kMaxInlineBytes) return false;
  const base::MutableByteView room = BatchRoom(kMaxReadHeadBytes + request.length);
  const size_t head_bytes = WriteReadHead(request, session_.structured_replies, room.data());
  const base::Result<bool> read =
      volume_->TryRead(request.offset, room.subspan(head_bytes, request.length));
  if (!read.has_value()) {
    Answer(request, Log(request, read.error()), read.error().message());
    return true;
  }
  if (!*read) return false;
  batch_bytes_ += head_bytes + request.length;
  tally_.Count(request.command, request.length, WireError::kOk);
  if (batch_bytes_ >= kBatchSendBytes) SendBatch();
  return true;
}

// Whole blocks go to the page cache; parts of blocks may have to be read first.
bool Connection::TryInlineWrite(const Request& request, base::ByteView payload) {
  if (request.fua() || (request.offset | request.length) % kBlockBytes != 0) return false;
  if (!fence_.Enter()) return true;  // cut: nobody hears an answer
  const base::Result<void> written = volume_->Write(request.offset, payload);
  fence_.Leave();
  if (written.has_value()) {
    Answer(request, WireError::kOk);
  } else {
    Answer(request, Log(request, written.error()));
  }
  return true;
}

base::MutableByteView Connection::BatchRoom(size_t size_bytes) {
  if (batch_.size() - batch_bytes_ < size_bytes) SendBatch();
  return batch_.view().subspan(batch_bytes_);
}

void Connection::Answer(const Request& request, WireError error, std::string_view message) {
  tally_.Count(request.command, request.length, error);
  if (error == WireError::kOk) {  // without a detour
    const base::MutableByteView room = BatchRoom(kSimpleReplyBytes);
    StoreBig(room.data(), kSimpleReplyMagic);
    StoreBig(room.data() + 4, uint32_t{0});
    StoreBig(room.data() + 8, request.cookie);
    batch_bytes_ += kSimpleReplyBytes;
    return;
  }
  const std::string reply = StatusReply(request, session_.structured_replies, error, message);
  const base::MutableByteView room = BatchRoom(reply.size());
  std::memcpy(room.data(), reply.data(), reply.size());
  batch_bytes_ += reply.size();
}

void Connection::SendBatch() {
  if (batch_bytes_ == 0) return;
  channel_.PostBatch(batch_.view().first(batch_bytes_));
  batch_bytes_ = 0;
  shared_->Count([&] { tally_.MoveTo(per_volume_->metrics); });
}

// Its room has been taken.
void Connection::Dispatch(const Request& request, Buffers::Loan payload, MemoryBudget::Share memory,
                          bool admitted) {
  auto job =
      std::make_shared<Job>(shared_from_this(), request, std::move(payload), std::move(memory));
  if (admitted) {
    Submit(std::move(job));
    return;
  }
  const bool read = request.command == Command::kRead;
  const uint64_t bytes = read ? request.length : request.payload_bytes();
  session_.exported->limiter->Wait(read ? qos::Direction::kRead : qos::Direction::kWrite, bytes,
                                   std::move(job));
}

// From here on the deadline counts.
void Connection::Submit(std::shared_ptr<Job> job) {
  bool refused = false;
  {
    base::MutexLock lock(jobs_mutex_);
    job->started_ns = base::SystemClock().MonotonicNs();
    job->place = jobs_.insert(jobs_.end(), job);
    refused = abandoned_ >= kMaxAbandoned;
  }
  if (refused) {
    Finish(*job,
           {.head = StatusReply(job->request, session_.structured_replies, WireError::kIo,
                                "the back end hangs"),
            .body = {}},
           WireError::kIo);
    return;
  }
  if (RunRemote(job)) return;
  shared_->workers.Submit(per_volume_->lane, [job] { job->connection->Run(*job); });
}

// Reads and plain writes of a volume over a network need no thread while they are under way.
bool Connection::RunRemote(const std::shared_ptr<Job>& job) {
  const Request& request = job->request;
  if (!volume_->is_remote() || channel_.cut()) return false;
  if (request.command == Command::kRead) {
    job->payload = Buffers::Take(shared_->buffers, request.length);
    volume_->ReadAsync(request.offset, job->payload.view(),
                       [job](base::Result<void> read) { job->connection->EndRemote(*job, read); });
    return true;
  }
  if (request.command != Command::kWrite || request.fua() || !fence_.Enter()) return false;
  volume_->WriteAsync(request.offset, job->payload.view(), [job](base::Result<void> written) {
    job->connection->fence_.Leave();
    job->connection->EndRemote(*job, written);
  });
  return true;
}

// In a thread of the volume's back end.
void Connection::EndRemote(Job& job, const base::Result<void>& result) {
  Reply reply;
  WireError error = WireError::kOk;
  if (!result.has_value()) {
    error = Log(job.request, result.error());
    reply.head =
        StatusReply(job.request, session_.structured_replies, error, result.error().message());
  } else if (job.request.command == Command::kRead) {
    reply = ReadReply(job.request, std::move(job.payload));
  } else {
    reply.head = StatusReply(job.request, session_.structured_replies, WireError::kOk);
  }
  Finish(job, std::move(reply), error);
}

void Connection::Run(Job& job) {
  Reply reply;
  WireError error = WireError::kOk;
  if (!channel_.cut() && !job.answered.load()) {
    const base::Result<void> done = RunCommand(job, &reply);
    if (!done.has_value()) {
      error = Log(job.request, done.error());
      reply = {.head = StatusReply(job.request, session_.structured_replies, error,
                                   done.error().message()),
               .body = {}};
    }
  }
  Finish(job, std::move(reply), error);
}

base::Result<void> Connection::RunCommand(Job& job, Reply* reply) {
  const Request& request = job.request;
  switch (request.command) {
    case Command::kRead:
      return RunRead(job, reply);
    case Command::kBlockStatus: {
      ASSIGN_OR_RETURN(reply->head, BlockStatusReply(session_, request));
      return {};
    }
    case Command::kCache:
      volume_->Prefetch(request.offset, request.length);
      break;
    case Command::kFlush:
      RETURN_IF_ERROR(volume_->Flush());
      break;
    default:
      RETURN_IF_ERROR(RunChange(job));
  }
  reply->head = StatusReply(request, session_.structured_replies, WireError::kOk);
  return {};
}

base::Result<void> Connection::RunRead(Job& job, Reply* reply) {
  const Request& request = job.request;
  Buffers::Loan body = Buffers::Take(shared_->buffers, request.length);
  RETURN_IF_ERROR(volume_->Read(request.offset, body.view()));
  *reply = ReadReply(request, std::move(body));
  return {};
}

Reply Connection::ReadReply(const Request& request, Buffers::Loan body) const {
  const bool may_be_hole = session_.structured_replies && request.length >= kMinHoleBytes &&
                           (request.flags & kCommandDf) == 0;
  Reply reply;
  if (may_be_hole && base::IsZero(body.view())) {
    reply.head = ReadHoleReply(request);
    return reply;
  }
  uint8_t head[kMaxReadHeadBytes];
  const size_t head_bytes = WriteReadHead(request, session_.structured_replies, head);
  reply.head.assign(reinterpret_cast<const char*>(head), head_bytes);
  reply.body = std::move(body);
  return reply;
}

// WRITE, TRIM, WRITE_ZEROES. FAST_ZERO is always kept: zeroing is a note in the volume's map.
base::Result<void> Connection::RunChange(Job& job) {
  const Request& request = job.request;
  if (!fence_.Enter()) return base::Error(base::Code::kCancelled, "the connection was cut off");
  base::Result<void> done;
  if (request.command == Command::kWrite) {
    done = volume_->Write(request.offset, job.payload.view());
  } else {
    const bool free_space = (request.flags & kCommandNoHole) == 0;
    done = volume_->Zero(request.offset, request.length, free_space);
  }
  fence_.Leave();
  if (done.has_value() && request.fua()) return volume_->Flush();
  return done;
}

bool Connection::Claim(Job& job) { return !job.answered.exchange(true); }

void Connection::Finish(Job& job, Reply reply, WireError error) {
  const bool in_time = Claim(job);
  const int64_t took_ns = base::SystemClock().MonotonicNs() - job.started_ns;
  {
    base::MutexLock lock(jobs_mutex_);
    jobs_.erase(job.place);
    if (!in_time) --abandoned_;
  }
  if (!in_time) {
    shared_->Count([&] { shared_->metrics.late.Add(); });
    return;
  }
  shared_->Count([&] {
    Tally tally;
    tally.Count(job.request.command, job.request.length, error);
    tally.MoveTo(per_volume_->metrics);
    per_volume_->metrics.waited_seconds->Observe(static_cast<double>(took_ns) * 1e-9);
  });
  reply.charge_requests = 1;
  reply.charge_bytes = ChargeOf(job.request);
  job.payload = {};
  if (reply.body.size() > 0) {
    reply.memory = std::move(job.memory);
  } else {
    job.memory = {};
  }
  channel_.Post(std::move(reply));
}

void Connection::Watch(int64_t now_ns) {
  const int64_t deadline_ns = shared_->settings.request_deadline_ms * 1'000'000;
  const int64_t busy_since_ns = busy_since_ns_.load(std::memory_order_relaxed);
  if (volume_watched_.load() && busy_since_ns != 0 && now_ns - busy_since_ns > deadline_ns &&
      !channel_.cut()) {
    LOG(kError, "nbd", "{}: a write hangs; cut off", peer_);
    shared_->metrics.timed_out.Add();
    channel_.Cut();
  }
  std::vector<std::shared_ptr<Job>> expired;
  {
    base::MutexLock lock(jobs_mutex_);
    for (const std::shared_ptr<Job>& job : jobs_) {
      if (now_ns - job->started_ns <= deadline_ns || !Claim(*job)) continue;
      ++abandoned_;
      expired.push_back(job);
    }
  }
  for (const std::shared_ptr<Job>& job : expired) {
    shared_->metrics.timed_out.Add();
    LOG(kError, "nbd", "{}: {} at {} of volume {} hangs; answered with an error", peer_,
        CommandName(job->request.command), job->request.offset, session_.exported->volume_id);
    Reply reply{.head = StatusReply(job->request, session_.structured_replies, WireError::kIo,
                                    "the back end does not answer"),
                .body = {}};
    reply.charge_requests = 1;
    reply.charge_bytes = ChargeOf(job->request);
    channel_.Post(std::move(reply));
  }
}

// One line a second at most: a volume that fails fails often.
WireError Connection::Log(const Request& request, const base::Error& error) {
  const int64_t now_ns = base::SystemClock().MonotonicNs();
  int64_t last_ns = last_logged_ns_.load();
  if (now_ns - last_ns > kLogEveryNs && last_logged_ns_.compare_exchange_strong(last_ns, now_ns)) {
    LOG(kWarn, "nbd", "{}: {} of {} bytes at {} of volume {}: {}", peer_,
        CommandName(request.command), request.length, request.offset, session_.exported->volume_id,
        error.ToString());
  }
  return ToWire(error.code());
}

}  // namespace blockd::nbd
