#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/clock.h"

namespace controlplane::cli {

// One line on stderr that is redrawn in place: what is done, the rate, the time that is left.
//
//   push debian.raw  [=========>          ]  47 %  512.0 MiB of 1.1 GiB  230.0 MiB/s  3 s left
//
// On a terminal it is redrawn at most ten times a second; elsewhere (a pipe, a log) a line is
// printed every ten seconds, so that long work is never silent. Made quiet for --json. One thread.
class ProgressBar {
 public:
  enum class Unit {
    kBytes,
    kItems,  // of which the note says what they are; each note is a phase with its own rate
  };
  ProgressBar(std::string title, Unit unit, bool quiet,
              const base::Clock& clock = base::SystemClock());
  ~ProgressBar();  // ends the line, if it was not ended
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  // `total` 0: not known, no percentage. `note` stands at the end of the line.
  void Update(uint64_t done, uint64_t total, std::string_view note = {});
  // Draws the last state and ends the line. Idempotent.
  void Finish();

 private:
  void Draw();
  std::string DescribeItems(double rate) const;

  const std::string title_;
  const Unit unit_;
  const bool quiet_;
  const bool terminal_;
  const base::Clock& clock_;
  int64_t started_ns_;
  int64_t drawn_ns_ = 0;
  uint64_t first_done_ = 0;
  bool updated_ = false;
  bool finished_ = false;
  uint64_t done_ = 0;
  uint64_t total_ = 0;
  std::string note_;
};

// "3 s", "2 min 5 s", "1 h 4 min".
std::string FormatSeconds(double seconds);

}  // namespace controlplane::cli
