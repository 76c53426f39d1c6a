// A progress bar on standard error, where that is a terminal and the run takes longer than a
// second.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace terrace::bench {

// Confined to the main thread.
class Progress {
 public:
  enum class Show : uint8_t { kOnTerminal, kNever };
  explicit Progress(Show show);
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  Progress(Progress&&) = delete;
  Progress& operator=(Progress&&) = delete;
  ~Progress();

  // Begins a step of `total` units; text is what is being done.
  void Begin(const std::string& text, uint64_t total);
  // `done` units of the step are done. Cheap: draws at most ten times a second.
  void Advance(uint64_t done);
  // Removes the bar.
  void Clear();

 private:
  using Clock = std::chrono::steady_clock;

  bool shown_;
  bool drawn_ = false;
  std::string text_;
  uint64_t total_ = 0;
  Clock::time_point started_;
  Clock::time_point last_draw_;
};

// SIGINT and SIGTERM no longer end the process, but make Interrupted() true, so that daemons are
// stopped on the way out.
void CatchInterrupts();
bool Interrupted();

}  // namespace terrace::bench
