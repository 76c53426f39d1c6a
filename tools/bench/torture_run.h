// One daemon after another on the same folders, each loaded and killed: what the crash loops are
// made of.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "tiers/os/descriptor.h"
#include "tools/bench/block_ledger.h"
#include "tools/bench/churned_set.h"
#include "tools/bench/daemon_process.h"
#include "tools/bench/kill_at.h"
#include "tools/bench/scenario.h"
#include "tools/bench/stopwatch.h"

namespace terrace::bench {

// What a daemon does when it is killed.
enum class LifePhase : uint8_t { kStart, kLoad, kStop };
inline constexpr uint32_t kLifePhases = 3;
inline constexpr uint32_t kKillUnits = 5;

// Of all lives so far.
struct TortureFigures {
  uint64_t lives = 0;  // that were to be killed
  uint64_t kills = 0;
  uint64_t by_phase[kLifePhases] = {};
  uint64_t by_unit[kKillUnits] = {};  // of KillUnit
  uint64_t stops = 0;                 // that came to their end before the kill
  uint64_t damaged_indexes = 0;
  uint64_t most_file_bytes = 0;  // of the local tier, over all lives
  ChurnedSet::Findings blocks;   // without its errors
  std::vector<double> ready;     // seconds, of lives that were not traced meanwhile
};

// Confined to the main thread.
class TortureRun {
 public:
  // Makes a small tier, runs a daemon on it and puts blocks until it is full. Errors: what kept it
  // from that. Findings go to `report` and `figures`.
  static absl::StatusOr<std::unique_ptr<TortureRun>> Begin(const BenchOptions& bench,
                                                           Report& report,
                                                           TortureFigures& figures);

  // At first the load is twice what there is room for, so that nothing must be there, but nothing
  // may be wrong. From this call on everything has its place, and what survives must be found.
  absl::Status Empty();
  // Starts a daemon, and kills it at a moment that the seed and the number of the life choose.
  // Errors: CANCELLED, and what keeps further lives from being of any use.
  absl::Status Live(uint64_t number);
  // Starts a daemon that is not killed, looks for everything, and stops it.
  absl::Status Finish();

 private:
  struct Life;

  static constexpr uint32_t kSets = 2;  // of each kind; every one has a thread and a session

  TortureRun(const BenchOptions& bench, Report& report, TortureFigures& figures)
      : bench_(bench), report_(report), figures_(figures), random_(bench.seed) {}
  absl::Status MakeTier();
  absl::Status MakeSets();
  // What the overfull sets do while a daemon runs that is not killed.
  absl::Status WithAll(const std::function<absl::Status(ChurnedSet&, uint64_t full_bytes)>& work);
  absl::StatusOr<KillReport> RunLife(Life& life);
  // RunLife for one that is not killed.
  absl::Status Served(Life& life);
  // What one set does in a life, on a thread of its own.
  void Drive(size_t place, Life& life);
  absl::Status BeginDriving(size_t place, Life& life);
  [[nodiscard]] ChurnedSet& SetAt(size_t place) const {
    return *(overfilled_ ? overfull_ : kept_)[place];
  }
  void Judge(const Life& life, const KillReport& end);
  void TakeFindings(uint64_t number, LifePhase phase);
  void CheckCapacity();
  void DamageIndex();
  KillPlan ChoosePlan(LifePhase phase);
  uint64_t Below(uint64_t limit) { return random_() % limit; }

  const BenchOptions& bench_;
  Report& report_;
  TortureFigures& figures_;
  std::mt19937_64 random_;
  uint64_t capacity_bytes_ = 0;
  std::unique_ptr<DaemonProcess> daemon_;
  std::vector<std::unique_ptr<ChurnedSet>> kept_;
  std::vector<std::unique_ptr<ChurnedSet>> overfull_;
  uint64_t sets_made_ = 0;
  bool overfilled_ = true;
};

}  // namespace terrace::bench
