#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/thread_annotations.h"

namespace chunkstore::jobs {

// What a journal remembers of its queues between claims, so that each claim looks only at the front
// of a few: which queues there are, from where each is worth reading, and what is held. (A store
// in the manner of a log is slow at the start of a range whose keys were deleted one after the
// other.) No more than a help: what it doesn't know of, because another process did it, is found
// by the next look at the store. Claims by turns look once a second, and before they say that
// there is nothing.
//
// Thread-safe.
class Turns {
 public:
  // Of one kind of jobs: a queue, and the first key that may be in it.
  struct Front {
    std::string queue;
    std::string from;
  };

  // A key is there, or is about to be.
  void Note(std::string_view kind, std::string_view queue, std::string_view key, int64_t now_ns);
  // Nothing of the queue lies before `from` (any more).
  void Advance(std::string_view kind, std::string_view queue, std::string_view seen_from,
               std::string_view from);
  // A job that somebody holds.
  struct Held {
    std::string id;
    std::string queue;
    int64_t lease_until_us = 0;
    bool ours = false;  // this journal's
  };
  void Took(std::string_view kind, std::string_view id, std::string_view queue);
  void LetGo(std::string_view kind, std::string_view id);
  // Ours as they are now, without their leases, and all as the last look found them.
  std::vector<Held> OursHeld(std::string_view kind);
  std::vector<Held> FoundHeld(std::string_view kind);

  // What a look at the store found. Queues that it did not find, and that were noted lately, stay.
  void Found(std::string_view kind, const std::vector<Front>& fronts, std::vector<Held> held,
             int64_t now_ns);
  // True if the last Found is a while ago.
  bool IsStale(std::string_view kind, int64_t now_ns);

  // How many queues there are, the one that had its turn last, and at most `limit` of them from
  // behind one of them on, in a circle.
  size_t Count(std::string_view kind);
  std::string Last(std::string_view kind);
  std::vector<Front> Behind(std::string_view kind, std::string_view queue, size_t limit);
  void HadItsTurn(std::string_view kind, std::string_view queue);

 private:
  struct Known {
    std::string from;
    int64_t noted_ns = 0;
  };
  struct Kind {
    std::map<std::string, Known, std::less<>> queues;
    std::map<std::string, std::string, std::less<>> ours;  // held: id and queue
    std::vector<Held> held;
    std::string last;
    int64_t found_ns = INT64_MIN;
  };
  Kind& Of(std::string_view kind) REQUIRES(mutex_);

  base::Mutex mutex_;
  std::map<std::string, Kind, std::less<>> kinds_ GUARDED_BY(mutex_);
};

}  // namespace chunkstore::jobs
