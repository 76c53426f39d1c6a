// What the requests of a trace wait for: loads at the speeds of the tiers, behind those of others,
// and the computing of the rest. How far loading is worth it is decided by the daemon's own code
// (tiers/placement/load_advice.h, from times that tier_load.h measured), for the replay, too.
//
// A request is probed at its time in the trace, and run `lead` later: then it waits for its loads,
// each tier's at the tier's own pace, all of them once more through DRAM, and computes what is
// left. From its probe on its blocks are held. With PrefetchRule::kProbe the probe begins what is
// to be read from below, in the order of the chain, which is that in which it will be needed.
//
// Not simulated: engines that are busy (each request is computed at once), puts that are under way,
// and writes, which wait for reads.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

#include "tiers/placement/load_advice.h"
#include "tiers/placement/recompute_curve.h"
#include "tiers/placement/replay.h"
#include "tools/sim/lower_tiers.h"
#include "tools/sim/seeded_numbers.h"
#include "tools/sim/simulation.h"
#include "tools/sim/tier_queue.h"

namespace terrace::sim {

enum class LoadRule : uint8_t {
  kWorth = 0,   // as far as it is faster than computing
  kAlways = 1,  // all that is there
  kNever = 2,   // nothing from below DRAM
};
enum class PrefetchRule : uint8_t { kNone = 0, kProbe = 1 };

// By their values.
inline constexpr std::array<std::string_view, 3> kLoadRuleNames = {"worth", "always", "never"};
inline constexpr std::array<std::string_view, 2> kPrefetchRuleNames = {"none", "probe"};

struct TimingOptions {
  std::array<TierSpeed, kPlaces> speeds;  // by Place
  RecomputeModel recompute;
  uint64_t block_tokens = 0;
  uint64_t block_bytes = 0;
  LoadRule load = LoadRule::kWorth;
  PrefetchRule prefetch = PrefetchRule::kNone;
  absl::Duration lead;
  // Of kProbe: so many more probes, in % of the requests, after which nothing is run here. Each is
  // of a chain that was asked for before; the seed chooses.
  double stray_percent = 0;
  uint64_t seed = 1;
};

struct TimedCounts {
  std::array<uint64_t, kPlaces> hit_blocks{};  // by Place
  std::array<uint64_t, kPlaces> read_bytes{};
  double prefill_seconds = 0;  // what computing all of every request would take
  double saved_seconds = 0;    // of them, by what was loaded
  double waited_seconds = 0;   // for loads
  uint64_t below_waits = 0;    // requests that waited for a tier below DRAM
  uint64_t slower = 0;         // requests whose loads took longer than computing them would have
  uint64_t ahead_bytes = 0;    // read before they were needed
  uint64_t wasted_bytes = 0;   // of them, never needed
  std::vector<double> first_token_seconds;  // by request, in the order in which their loads ended
};

// Thread-compatible. Per request: Begin, the replay's request (which calls Reach), Finish.
class RequestTimer final : public LoadGate {
 public:
  // `trace` outlives this.
  RequestTimer(const TimingOptions& options, const PreparedTrace& trace);
  RequestTimer(const RequestTimer&) = delete;  // reads under way point to it
  RequestTimer& operator=(const RequestTimer&) = delete;

  // What lies below DRAM; before the first request. Outlives the last one.
  void PutOver(const LowerTiers* tiers) { tiers_ = tiers; }

  // Time passes; not backwards.
  void Begin(absl::Duration now);
  size_t Reach(absl::Span<const uint64_t> run, absl::Span<const BlockId> resident) override;
  // Of the chain so many are hits, and so many lie in DRAM now.
  void Finish(const PreparedTrace::Request& request, uint64_t hits, uint64_t resident);
  // A block has left DRAM.
  void Left(uint64_t name) { resident_.erase(name); }

  // All that has begun ends.
  TimedCounts End();

 private:
  static constexpr uint64_t kNobody = 0;

  struct Run {
    absl::Duration due;
    double compute_seconds = 0;
    double saved_seconds = 0;
    std::vector<uint64_t> names;  // of its hits
    std::vector<Place> places;    // beside them
  };
  // A request that has been run and waits for loads.
  struct Job {
    absl::Duration began;
    double compute_seconds = 0;
    double saved_seconds = 0;
    uint64_t loads = 1;
  };
  // A read from below that has not ended.
  struct Flight {
    uint64_t read = 0;
    Place place = Place::kLocal;
    bool is_stray = false;
    std::vector<uint64_t> jobs;  // that wait for it
  };

  // What a load has to move.
  struct Burden {
    std::array<uint64_t, kPlaces> blocks{};
    std::array<bool, kPlaces> flying{};  // blocks of the tier that are on their way already
  };

  TierQueue& At(Place place) { return queues_[static_cast<size_t>(place)]; }
  [[nodiscard]] size_t Reached(absl::Span<const uint64_t> run) const;
  [[nodiscard]] size_t WorthLoading(absl::Span<const uint64_t> run) const;
  [[nodiscard]] LoadStep StepAfter(const Burden& burden) const;
  void Advance(absl::Duration until);
  void Start(const Run& run);
  Flight& Fly(uint64_t name, Place place, ReadNeed need);
  void Land(uint64_t name, absl::Duration at);
  void CopyOut(uint64_t job, uint64_t blocks, absl::Duration at);
  void EndLoad(uint64_t job, absl::Duration at);
  void FetchAhead(absl::Span<const uint64_t> names, bool is_stray);
  void ProbeStray(size_t request);

  const TimingOptions options_;
  const PreparedTrace& trace_;
  const LowerTiers* tiers_ = nullptr;
  SeededNumbers numbers_;
  std::array<TierQueue, kPlaces> queues_;
  absl::Duration now_;
  size_t requests_ = 0;
  std::vector<Place> places_;  // of the run at hand
  std::deque<Run> runs_;       // that are not due yet
  absl::flat_hash_map<uint64_t, Job> jobs_;
  uint64_t last_job_ = kNobody;
  absl::flat_hash_map<uint64_t, Flight> flights_;  // by block
  absl::flat_hash_set<uint64_t> fetched_;          // ahead of need, and not needed yet
  absl::flat_hash_set<uint64_t> resident_;         // in DRAM; where strays ask
  TimedCounts counts_;
};

}  // namespace terrace::sim
