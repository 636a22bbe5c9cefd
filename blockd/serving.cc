#include "blockd/serving.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/log.h"
#include "base/text.h"
#include "blockd/attach.h"

namespace blockd {
namespace {

using base::Code;
using base::Error;
using base::Result;

std::string LeaseKey(std::string_view process) { return std::string("N/").append(process); }
std::string AskedPrefix(std::string_view process) {
  return std::string("W/").append(process).append("/");
}

bool IsOpen(const AttachmentRecord& attachment) {
  return (attachment.status == AttachStatus::kAttaching ||
          attachment.status == AttachStatus::kAttached) &&
         !attachment.secret.empty();
}

}  // namespace

Serving::Serving(Catalog& catalog, VolumeStore& store, Exports& exports, TypeDirectory& types,
                 ServingOptions options)
    : catalog_(catalog),
      store_(store),
      exports_(exports),
      types_(types),
      options_(std::move(options)) {}

Serving::~Serving() { Stop(); }

Result<void> Serving::Start() {
  RETURN_IF_ERROR(ForgetDead());
  RETURN_IF_ERROR(KeepLease());
  thread_ = std::thread([this] { Run(); });
  return {};
}

void Serving::Stop() {
  {
    base::MutexLock lock(mutex_);
    if (std::exchange(stopping_, true)) return;
    wake_.NotifyAll();
  }
  if (!thread_.joinable()) return;
  thread_.join();
  const Result<void> gone = catalog_.Transact([&](Transaction& transaction) -> Result<void> {
    transaction.RemoveKey(LeaseKey(options_.process));
    return {};
  });
  if (!gone.has_value())
    LOG(kInfo, "blockd", "others wait until our lease is over: {}", gone.error().ToString());
}

void Serving::Run() {
  constexpr int64_t kNsPerMs = 1'000'000;
  const int64_t renew_ns = options_.lease_ms * kNsPerMs / 4;
  int64_t renewed_ns = catalog_.clock().MonotonicNs();
  const auto log = [](const char* what, const Result<void>& result) {
    if (!result.has_value()) LOG(kWarn, "blockd", "{}: {}", what, result.error().ToString());
  };
  while (true) {
    {
      base::MutexLock lock(mutex_);
      if (!stopping_) wake_.WaitForMs(mutex_, options_.poll_ms);
      if (stopping_) return;
    }
    const int64_t now_ns = catalog_.clock().MonotonicNs();
    if (now_ns - renewed_ns >= renew_ns) {
      const Result<void> kept = KeepLease();
      log("keeping the lease of this process", kept);
      // Others may have held us for dead: they waited for nothing then, and asked nothing.
      if (kept.has_value() && now_ns - renewed_ns > options_.lease_ms * kNsPerMs)
        log("ending what was detached meanwhile", WithdrawGone(catalog_, exports_));
      if (kept.has_value()) renewed_ns = now_ns;
    }
    log("ending what other processes detach", EndWhatIsAsked());
  }
}

Result<void> Serving::ForgetDead() {
  constexpr int64_t kLongUs = 3600 * base::kSecondUs;
  std::vector<std::string> dead;
  const std::string all = LeaseKey("");
  RETURN_IF_ERROR(catalog_.ScanKeys(all, [&](std::string_view key, std::string_view until) {
    if (base::ParseNumber<int64_t>(until).value_or(0) < catalog_.NowUs() - kLongUs)
      dead.emplace_back(key.substr(all.size()));
    return true;
  }));
  for (const std::string& process : dead) {
    std::vector<std::string> keys{LeaseKey(process)};
    RETURN_IF_ERROR(
        catalog_.ScanKeys(AskedPrefix(process), [&](std::string_view key, std::string_view) {
          keys.emplace_back(key);
          return true;
        }));
    RETURN_IF_ERROR(catalog_.Transact([&](Transaction& transaction) -> Result<void> {
      for (const std::string& key : keys) transaction.RemoveKey(key);
      return {};
    }));
  }
  return {};
}

Result<void> Serving::KeepLease() {
  return catalog_.Transact([&](Transaction& transaction) -> Result<void> {
    transaction.PutKey(LeaseKey(options_.process),
                       std::to_string(catalog_.NowUs() + options_.lease_ms * 1000));
    return {};
  });
}

Result<void> Serving::EndWhatIsAsked() {
  const std::string prefix = AskedPrefix(options_.process);
  std::vector<std::string> asked;
  RETURN_IF_ERROR(catalog_.ScanKeys(prefix, [&](std::string_view key, std::string_view) {
    asked.emplace_back(key.substr(prefix.size()));
    return true;
  }));
  for (const std::string& id : asked) {
    const Result<void> withdrawn = exports_.Withdraw(id);
    if (!withdrawn.has_value() && withdrawn.error().code() == Code::kUnavailable) continue;
    RETURN_IF_ERROR(withdrawn);
    RETURN_IF_ERROR(catalog_.Transact([&](Transaction& transaction) -> Result<void> {
      transaction.RemoveKey(prefix + id);
      Result<AttachmentRecord> attachment = transaction.GetAttachment(id);
      if (!attachment.has_value())
        return attachment.error().code() == Code::kNotFound ? Result<void>() : attachment.error();
      std::erase(attachment->servers, options_.process);
      return transaction.Put(*attachment);
    }));
  }
  return {};
}

Result<void> Serving::Begin(const std::string& attachment_id) {
  return catalog_.Transact([&](Transaction& transaction) -> Result<void> {
    ASSIGN_OR_RETURN(AttachmentRecord attachment, transaction.GetAttachment(attachment_id));
    if (!IsOpen(attachment))
      return Error(Code::kNotFound, "attachment " + attachment_id + " is not open to clients");
    std::vector<std::string>& servers = attachment.servers;
    if (std::find(servers.begin(), servers.end(), options_.process) != servers.end()) return {};
    servers.push_back(options_.process);
    return transaction.Put(attachment);
  });
}

void Serving::PublishIfThere(const std::string& attachment_id) {
  const Result<AttachmentRecord> attachment = catalog_.GetAttachment(attachment_id);
  if (!attachment.has_value() || !IsOpen(*attachment)) return;
  const Result<VolumeRecord> volume = catalog_.GetVolume(attachment->volume_id);
  if (!volume.has_value()) return;
  // What was published of the volume before may be over.
  const Result<void> tidied = WithdrawGone(catalog_, exports_);
  if (!tidied.has_value()) LOG(kWarn, "blockd", "{}", tidied.error().ToString());
  const auto published = PublishAttachment(*volume, *attachment, types_, exports_);
  if (!published.has_value())
    LOG(kWarn, "blockd", "attachment {} can't be served here: {}", attachment_id,
        published.error().ToString());
}

void Serving::AskToEnd(Transaction& transaction, const AttachmentRecord& attachment) {
  for (const std::string& process : attachment.servers)
    transaction.PutKey(AskedPrefix(process) + attachment.id, "");
}

Result<bool> Serving::IsAlive(const std::string& process) {
  ASSIGN_OR_RETURN(const auto until, catalog_.GetKey(LeaseKey(process)));
  if (!until.has_value()) return false;
  return base::ParseNumber<int64_t>(*until).value_or(0) > catalog_.NowUs();
}

Result<bool> Serving::HasEnded(const AttachmentRecord& attachment) {
  bool dead = false;
  for (const std::string& process : attachment.servers) {
    if (process == options_.process) continue;
    ASSIGN_OR_RETURN(const bool alive, IsAlive(process));
    if (alive) return false;
    dead = true;
  }
  // It may only stand still: nothing of it must reach the volume later.
  if (dead) RETURN_IF_ERROR(store_.Fence(attachment.volume_id));
  return true;
}

Result<bool> Serving::IsServed(const AttachmentRecord& attachment) {
  for (const std::string& process : attachment.servers) {
    if (process == options_.process) {
      if (exports_.IsConnected(attachment.id)) return true;
      continue;
    }
    ASSIGN_OR_RETURN(const bool alive, IsAlive(process));
    if (alive) return true;
  }
  return false;
}

Result<void> WithdrawGone(Catalog& catalog, Exports& exports) {
  for (const std::string& id : exports.Published()) {
    const Result<AttachmentRecord> attachment = catalog.GetAttachment(id);
    if (!attachment.has_value() && attachment.error().code() != Code::kNotFound)
      return attachment.error();
    if (attachment.has_value() && IsOpen(*attachment)) continue;
    RETURN_IF_ERROR(exports.Withdraw(id));
  }
  return {};
}

}  // namespace blockd
