#include "chunkstore/jobs/turns.h"

#include <algorithm>
#include <utility>

namespace chunkstore::jobs {
namespace {

constexpr int64_t kLookAgainNs = 1'000'000'000;
// Longer than any commit takes.
constexpr int64_t kKeepNotedNs = 60 * kLookAgainNs;

}  // namespace

Turns::Kind& Turns::Of(std::string_view kind) {
  const auto found = kinds_.find(kind);
  return found != kinds_.end() ? found->second : kinds_[std::string(kind)];
}

void Turns::Note(std::string_view kind, std::string_view queue, std::string_view key,
                 int64_t now_ns) {
  base::MutexLock lock(mutex_);
  Known& known = Of(kind).queues[std::string(queue)];
  if (known.from.empty() || key < known.from) known.from = key;
  known.noted_ns = now_ns;
}

void Turns::Advance(std::string_view kind, std::string_view queue, std::string_view seen_from,
                    std::string_view from) {
  base::MutexLock lock(mutex_);
  Kind& of = Of(kind);
  const auto found = of.queues.find(queue);
  // What was noted meanwhile counts more.
  if (found != of.queues.end() && found->second.from == seen_from) found->second.from = from;
}

void Turns::Took(std::string_view kind, std::string_view id, std::string_view queue) {
  base::MutexLock lock(mutex_);
  Of(kind).ours[std::string(id)] = queue;
}

void Turns::LetGo(std::string_view kind, std::string_view id) {
  base::MutexLock lock(mutex_);
  Kind& of = Of(kind);
  const auto found = of.ours.find(id);
  if (found != of.ours.end()) of.ours.erase(found);
}

std::vector<Turns::Held> Turns::OursHeld(std::string_view kind) {
  base::MutexLock lock(mutex_);
  std::vector<Held> held;
  for (const auto& [id, queue] : Of(kind).ours) held.push_back({id, queue, 0, true});
  return held;
}

std::vector<Turns::Held> Turns::FoundHeld(std::string_view kind) {
  base::MutexLock lock(mutex_);
  return Of(kind).held;
}

void Turns::Found(std::string_view kind, const std::vector<Front>& fronts, std::vector<Held> held,
                  int64_t now_ns) {
  base::MutexLock lock(mutex_);
  Kind& of = Of(kind);
  of.found_ns = now_ns;
  of.held = std::move(held);
  std::map<std::string, Known, std::less<>> queues;
  for (const Front& front : fronts) queues[front.queue].from = front.from;
  for (auto& [queue, known] : of.queues) {
    const auto found = queues.find(queue);
    const bool lately = now_ns - known.noted_ns < kKeepNotedNs;
    if (found == queues.end()) {
      if (lately) queues.emplace(queue, std::move(known));
      continue;
    }
    found->second.noted_ns = known.noted_ns;
    // What was noted may not have been there to be found yet.
    if (lately && known.from < found->second.from) found->second.from = known.from;
  }
  of.queues = std::move(queues);
}

bool Turns::IsStale(std::string_view kind, int64_t now_ns) {
  base::MutexLock lock(mutex_);
  const int64_t found_ns = Of(kind).found_ns;
  return found_ns == INT64_MIN || now_ns - found_ns >= kLookAgainNs;
}

size_t Turns::Count(std::string_view kind) {
  base::MutexLock lock(mutex_);
  return Of(kind).queues.size();
}

std::string Turns::Last(std::string_view kind) {
  base::MutexLock lock(mutex_);
  return Of(kind).last;
}

std::vector<Turns::Front> Turns::Behind(std::string_view kind, std::string_view queue,
                                        size_t limit) {
  base::MutexLock lock(mutex_);
  const Kind& of = Of(kind);
  std::vector<Front> fronts;
  auto at = of.queues.upper_bound(queue);
  for (size_t left = std::min(limit, of.queues.size()); left > 0; --left, ++at) {
    if (at == of.queues.end()) at = of.queues.begin();
    fronts.push_back({at->first, at->second.from});
  }
  return fronts;
}

void Turns::HadItsTurn(std::string_view kind, std::string_view queue) {
  base::MutexLock lock(mutex_);
  Of(kind).last = queue;
}

}  // namespace chunkstore::jobs
