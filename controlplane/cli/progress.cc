#include "controlplane/cli/progress.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include <fmt/format.h>
#include <unistd.h>

#include "base/config.h"

namespace controlplane::cli {
namespace {

constexpr int64_t kTerminalIntervalNs = 100'000'000;
constexpr int64_t kLineIntervalNs = 10'000'000'000;
constexpr size_t kBarWidth = 20;

std::string Bar(double share) {
  const auto filled = static_cast<size_t>(share * kBarWidth);
  std::string bar(filled, '=');
  if (filled < kBarWidth) bar += '>';
  bar.resize(kBarWidth, ' ');
  return bar;
}

}  // namespace

std::string FormatSeconds(double seconds) {
  const auto whole = static_cast<int64_t>(seconds + 0.5);
  if (whole < 60) return fmt::format("{} s", whole);
  if (whole < 3600) return fmt::format("{} min {} s", whole / 60, whole % 60);
  return fmt::format("{} h {} min", whole / 3600, whole % 3600 / 60);
}

ProgressBar::ProgressBar(std::string title, Unit unit, bool quiet, const base::Clock& clock)
    : title_(std::move(title)),
      unit_(unit),
      quiet_(quiet),
      terminal_(isatty(STDERR_FILENO) == 1),
      clock_(clock),
      started_ns_(clock.MonotonicNs()),
      drawn_ns_(terminal_ ? 0 : started_ns_) {}

ProgressBar::~ProgressBar() { Finish(); }

void ProgressBar::Update(uint64_t done, uint64_t total, std::string_view note) {
  // The next phase of a pass counts other things.
  if (!std::exchange(updated_, true) || (unit_ == Unit::kItems && note != note_)) {
    first_done_ = done;
    started_ns_ = clock_.MonotonicNs();
  }
  done_ = done;
  total_ = total;
  note_ = note;
  const int64_t now_ns = clock_.MonotonicNs();
  if (quiet_ || now_ns - drawn_ns_ < (terminal_ ? kTerminalIntervalNs : kLineIntervalNs)) return;
  drawn_ns_ = now_ns;
  Draw();
}

void ProgressBar::Finish() {
  if (std::exchange(finished_, true) || quiet_ || !updated_) return;
  if (terminal_) {
    Draw();
    std::fputc('\n', stderr);
  }
}

// "  [====>  ]  47 %  120 of 255 blobs  60/s": what is counted is the phase.
std::string ProgressBar::DescribeItems(double rate) const {
  const std::string what = note_.empty() ? "" : " " + note_;
  if (total_ == 0 && done_ == 0) return fmt::format("  looking for{}", what);
  if (total_ == 0) return fmt::format("  {}{}  {:.0f}/s", done_, what, rate);
  const double share = std::min(1.0, static_cast<double>(done_) / static_cast<double>(total_));
  return fmt::format("  [{}] {:3.0f} %  {} of {}{}  {:.0f}/s", Bar(share), share * 100, done_,
                     total_, what, rate);
}

void ProgressBar::Draw() {
  const double seconds =
      std::max(1e-3, static_cast<double>(clock_.MonotonicNs() - started_ns_) / 1e9);
  // What was there before the first update (a resumed transfer) is no work of ours: it is not in
  // the rate.
  const double rate = static_cast<double>(done_ - std::min(done_, first_done_)) / seconds;
  const auto amount = [](double value) { return base::FormatBytes(static_cast<uint64_t>(value)); };
  std::string line = title_;
  if (unit_ == Unit::kItems) {
    line += DescribeItems(rate);
  } else if (total_ > 0) {
    const double share = std::min(1.0, static_cast<double>(done_) / static_cast<double>(total_));
    line += fmt::format("  [{}] {:3.0f} %  {} of {}", Bar(share), share * 100,
                        amount(static_cast<double>(done_)), amount(static_cast<double>(total_)));
  } else {
    line += fmt::format("  {}", amount(static_cast<double>(done_)));
  }
  if (unit_ == Unit::kBytes) line += fmt::format("  {}/s", amount(rate));
  if (total_ > done_ && rate > 0) {
    line += fmt::format("  {} left", FormatSeconds(static_cast<double>(total_ - done_) / rate));
  }
  if (unit_ == Unit::kBytes && !note_.empty()) line += "  " + note_;
  std::fprintf(stderr, terminal_ ? "\r\033[K%s" : "%s\n", line.c_str());
  std::fflush(stderr);
}

}  // namespace controlplane::cli
