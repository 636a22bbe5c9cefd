#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "base/result.h"
#include "blockd/nbd/export.h"
#include "blockd/nbd/workers.h"

namespace blockd::nbd {

// An ExportProvider before another one, that answers in time: what a disk that stalls leaves undone
// is refused, and what comes of it later is let go of. Else each client that connects, and connects
// again, would leave a thread behind that hangs.
//
// A name is opened by one thread at a time, and only so many names are at once: the rest waits, as
// long as the deadline lets it. Thread-safe.
class Opener : public ExportProvider {
 public:
  static constexpr size_t kMaxAtOnce = 64;  // of the workers' threads

  // `workers` is borrowed; the provider is kept while it still opens something.
  Opener(std::shared_ptr<ExportProvider> provider, Workers& workers, int64_t deadline_ms);

  // Asks the provider after whoever was asking for the same name before: what it says was true at
  // some time during the call, so that a name which was revoked before opens nothing. kUnavailable
  // after the deadline.
  base::Result<std::shared_ptr<const Export>> Open(std::string_view name) override;
  base::Result<std::vector<std::string>> List() override { return provider_->List(); }

 private:
  struct State;
  const std::shared_ptr<ExportProvider> provider_;
  Workers& workers_;
  const int64_t deadline_ms_;
  const std::shared_ptr<State> state_;
};

}  // namespace blockd::nbd
