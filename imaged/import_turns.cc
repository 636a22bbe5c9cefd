#include "imaged/import_turns.h"

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "imaged/import.h"

namespace imaged {

using chunkstore::jobs::Job;

namespace {

// What can't be read fails as soon as it is run: it is nobody's.
std::string ProjectOf(const Job& job) {
  const base::Result<ImportPayload> payload = DecodeImport(job.payload);
  return payload.has_value() ? payload->project : std::string();
}

}  // namespace

chunkstore::jobs::Choose ImportTurns(size_t limit_per_project, base::Gauge* waiting) {
  return [=](const std::vector<Job>& held, const std::vector<Job>& due) {
    std::map<std::string, size_t> at_work;
    for (const Job& job : held) ++at_work[ProjectOf(job)];
    std::optional<size_t> chosen;
    size_t fewest = limit_per_project;
    for (size_t i = 0; i < due.size() && fewest > 0; ++i) {
      const size_t count = at_work[ProjectOf(due[i])];
      if (count >= fewest) continue;
      fewest = count;
      chosen = i;
    }
    if (waiting != nullptr) {
      waiting->Set(static_cast<double>(due.size() - (chosen.has_value() ? 1 : 0)));
    }
    return chosen;
  };
}

}  // namespace imaged
