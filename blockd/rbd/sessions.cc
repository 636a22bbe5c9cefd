#include "blockd/rbd/sessions.h"

#include "base/uuid.h"

namespace blockd::rbd {

using base::Result;

namespace {

constexpr int64_t kForgetAfterUs = 3600 * base::kSecondUs;

}  // namespace

Sessions::Sessions(Ledger& ledger, const base::Clock& clock, int64_t lease_ms)
    : ledger_(ledger), clock_(clock), lease_us_(lease_ms * 1000), mine_(base::NewUuidHex()) {}

Result<void> Sessions::Beat() {
  return ledger_.Update([&](Change& change) -> Result<void> {
    change.Put(mine_, SessionRecord{clock_.NowUs() + lease_us_});
    return {};
  });
}

void Sessions::End() {
  (void)ledger_
      .Update([&](Change& change) -> Result<void> {
        change.Delete<SessionRecord>(mine_);
        return {};
      })
      .has_value();
}

Result<bool> Sessions::Lives(const std::string& session) {
  if (session == mine_) return true;
  ASSIGN_OR_RETURN(const auto record, ledger_.Find<SessionRecord>(session));
  return record && record->expires_us > clock_.NowUs();
}

Result<void> Sessions::ForgetOld() {
  ASSIGN_OR_RETURN(const auto sessions, ledger_.All<SessionRecord>());
  for (const auto& [id, record] : sessions) {
    if (record.expires_us + kForgetAfterUs > clock_.NowUs()) continue;
    ledger_.TakeOff(SessionRecord::kPrefix, {id, Encode(record)});
  }
  return {};
}

}  // namespace blockd::rbd
