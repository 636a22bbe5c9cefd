#pragma once

#include <cstddef>

#include "base/metrics.h"
#include "chunkstore/jobs/journal.h"

namespace imaged {

// Whose import is next. A project has at most `limit_per_project` at work, on however many
// processes; the others wait. The next one is of the project with the fewest at work, and there the
// oldest: so a project that asks for a hundred imports delays nobody who asks for one. `waiting`,
// if given, shows how many wait; borrowed.
chunkstore::jobs::Choose ImportTurns(size_t limit_per_project, base::Gauge* waiting = nullptr);

}  // namespace imaged
