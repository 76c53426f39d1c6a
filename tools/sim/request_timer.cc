#include "tools/sim/request_timer.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace terrace::sim {

RequestTimer::RequestTimer(const TimingOptions& options, const PreparedTrace& trace)
    : options_(options),
      trace_(trace),
      numbers_(options.seed),
      queues_{TierQueue(options.speeds[0]), TierQueue(options.speeds[1]),
              TierQueue(options.speeds[2])} {}

void RequestTimer::Begin(absl::Duration now) {
  Advance(now);
  now_ = now;
  places_.clear();
}

// ---------------------------------------------------------------- how far

size_t RequestTimer::Reach(absl::Span<const uint64_t> run, absl::Span<const BlockId> resident) {
  places_.clear();
  for (size_t i = 0; i < run.size(); ++i) {
    places_.push_back(resident[i] != kNoBlock ? Place::kDram : tiers_->PlaceOf(run[i]));
  }
  places_.resize(Reached(run));
  return places_.size();
}

size_t RequestTimer::Reached(absl::Span<const uint64_t> run) const {
  switch (options_.load) {
    case LoadRule::kWorth:
      return WorthLoading(run);
    case LoadRule::kAlways:
      return run.size();
    case LoadRule::kNever:
      break;
  }
  const auto below =
      std::find_if(places_.begin(), places_.end(), [](Place p) { return p != Place::kDram; });
  return static_cast<size_t>(below - places_.begin());
}

// Of a run from one tier all is worth loading or nothing, as in the daemon's probe: the ends of
// runs are weighed.
size_t RequestTimer::WorthLoading(absl::Span<const uint64_t> run) const {
  std::vector<LoadStep> steps;
  Burden burden;
  for (size_t i = 0; i < run.size(); ++i) {
    if (i > 0 && places_[i] != places_[i - 1]) {
      steps.push_back(StepAfter(burden));
    }
    ++burden.blocks[static_cast<size_t>(places_[i])];
    if (const auto flight = flights_.find(run[i]); flight != flights_.end()) {
      burden.flying[static_cast<size_t>(flight->second.place)] = true;
    }
  }
  if (!run.empty()) {
    steps.push_back(StepAfter(burden));
  }
  const std::optional<size_t> best = LongestWorthLoading(steps);
  return best.has_value() ? steps[*best].end_token / options_.block_tokens : 0;
}

// One tier after the other, and all of it once more from DRAM, as the daemon tells it.
LoadStep RequestTimer::StepAfter(const Burden& burden) const {
  uint64_t all = 0;
  double seconds = 0;
  for (size_t place = 0; place < kPlaces; ++place) {
    const uint64_t blocks = burden.blocks[place];
    all += blocks;
    if (place != static_cast<size_t>(Place::kDram) && (blocks > 0 || burden.flying[place])) {
      seconds += queues_[place].LoadSeconds(now_, blocks, options_.block_bytes);
    }
  }
  seconds += static_cast<double>(all * options_.block_bytes) / options_.speeds[0].bytes_per_second;
  const uint64_t tokens = all * options_.block_tokens;
  return {tokens, seconds, options_.recompute.Seconds(0, tokens)};
}

// ---------------------------------------------------------------- requests

void RequestTimer::Finish(const PreparedTrace::Request& request, uint64_t hits, uint64_t resident) {
  const absl::Span<const uint64_t> chain = trace_.Chain(request);
  places_.resize(hits);
  for (const Place place : places_) {
    ++counts_.hit_blocks[static_cast<size_t>(place)];
  }
  const uint64_t tokens =
      std::max<uint64_t>(request.hints.input_tokens, chain.size() * options_.block_tokens);
  const uint64_t loaded = hits * options_.block_tokens;
  counts_.prefill_seconds += options_.recompute.Seconds(0, tokens);
  runs_.push_back({now_ + options_.lead,
                   options_.recompute.Seconds(loaded, tokens),
                   options_.recompute.Seconds(0, loaded),
                   {chain.begin(), chain.begin() + static_cast<std::ptrdiff_t>(hits)},
                   places_});
  if (options_.prefetch == PrefetchRule::kProbe) {
    FetchAhead(chain.first(hits), false);
    if (options_.stray_percent > 0) {
      resident_.insert(chain.begin(), chain.begin() + static_cast<std::ptrdiff_t>(resident));
      if (numbers_.Fraction() * 100 < options_.stray_percent) {
        ProbeStray(numbers_.Below(requests_ + 1));
      }
    }
  }
  ++requests_;
  Advance(now_);
}

void RequestTimer::ProbeStray(size_t request) {
  const absl::Span<const uint64_t> chain = trace_.Chain(trace_.requests[request]);
  places_.clear();
  for (const uint64_t name : chain) {
    if (!resident_.contains(name) && !tiers_->Holds(name)) {
      break;
    }
    places_.push_back(resident_.contains(name) ? Place::kDram : tiers_->PlaceOf(name));
  }
  places_.resize(Reached(chain.first(places_.size())));
  FetchAhead(chain.first(places_.size()), true);
}

// Of `names`, those that `places_` has below DRAM.
void RequestTimer::FetchAhead(absl::Span<const uint64_t> names, bool is_stray) {
  for (size_t i = 0; i < names.size(); ++i) {
    if (places_[i] == Place::kDram || fetched_.contains(names[i])) {
      continue;
    }
    if (const auto flight = flights_.find(names[i]); flight != flights_.end()) {
      flight->second.is_stray = flight->second.is_stray && is_stray;
    } else {
      Fly(names[i], places_[i], ReadNeed::kAhead).is_stray = is_stray;
      counts_.ahead_bytes += options_.block_bytes;
    }
  }
}

void RequestTimer::Start(const Run& run) {
  const uint64_t number = ++last_job_;
  jobs_[number] = {run.due, run.compute_seconds, run.saved_seconds};
  uint64_t at_hand = 0;
  uint64_t below = 0;
  for (size_t i = 0; i < run.names.size(); ++i) {
    const uint64_t name = run.names[i];
    const auto flight = flights_.find(name);
    if (flight != flights_.end()) {
      flight->second.jobs.push_back(number);
      At(flight->second.place).Await(run.due, flight->second.read);
      ++below;
    } else if (fetched_.erase(name) > 0 || run.places[i] == Place::kDram) {
      ++at_hand;
    } else {
      Fly(name, run.places[i], ReadNeed::kWaited).jobs.push_back(number);
      ++below;
    }
  }
  jobs_[number].loads += below + (at_hand > 0 ? 1 : 0);
  counts_.below_waits += below > 0 ? 1 : 0;
  counts_.saved_seconds += run.saved_seconds;
  if (at_hand > 0) {
    CopyOut(number, at_hand, run.due);
  }
  EndLoad(number, run.due);
}

RequestTimer::Flight& RequestTimer::Fly(uint64_t name, Place place, ReadNeed need) {
  const uint64_t read = At(place).Read(now_, options_.block_bytes, need,
                                       [this, name](absl::Duration at) { Land(name, at); });
  Flight& flight = flights_[name];
  flight.read = read;
  flight.place = place;
  return flight;
}

void RequestTimer::Land(uint64_t name, absl::Duration at) {
  const auto found = flights_.find(name);
  const Flight flight = std::move(found->second);
  flights_.erase(found);
  if (flight.jobs.empty() && flight.is_stray) {
    counts_.wasted_bytes += options_.block_bytes;
  } else if (flight.jobs.empty()) {
    fetched_.insert(name);
  }
  for (const uint64_t job : flight.jobs) {
    CopyOut(job, 1, at);
  }
}

// Block by block, so that requests take turns, as in the daemon.
void RequestTimer::CopyOut(uint64_t job, uint64_t blocks, absl::Duration at) {
  At(Place::kDram)
      .Read(at, options_.block_bytes, ReadNeed::kWaited, [this, job, blocks](absl::Duration done) {
        if (blocks > 1) {
          CopyOut(job, blocks - 1, done);
        } else {
          EndLoad(job, done);
        }
      });
}

void RequestTimer::EndLoad(uint64_t job, absl::Duration at) {
  const auto found = jobs_.find(job);
  if (--found->second.loads > 0) {
    return;
  }
  const double waited = absl::ToDoubleSeconds(at - found->second.began);
  counts_.waited_seconds += waited;
  counts_.slower += waited > found->second.saved_seconds ? 1 : 0;
  counts_.first_token_seconds.push_back(waited + found->second.compute_seconds);
  jobs_.erase(found);
}

// ---------------------------------------------------------------- time

void RequestTimer::Advance(absl::Duration until) {
  for (;;) {
    TierQueue* first = &queues_[0];
    for (TierQueue& queue : queues_) {
      first = queue.NextEnd() < first->NextEnd() ? &queue : first;
    }
    const absl::Duration due = runs_.empty() ? absl::InfiniteDuration() : runs_.front().due;
    const absl::Duration next = std::min(due, first->NextEnd());
    if (next > until || next == absl::InfiniteDuration()) {
      return;
    }
    now_ = next;
    if (first->NextEnd() <= due) {
      first->EndNext();
    } else {
      const Run run = std::move(runs_.front());
      runs_.pop_front();
      Start(run);
    }
  }
}

TimedCounts RequestTimer::End() {
  Advance(absl::InfiniteDuration());
  for (size_t place = 0; place < kPlaces; ++place) {
    counts_.read_bytes[place] = queues_[place].bytes_read();
  }
  counts_.wasted_bytes += fetched_.size() * options_.block_bytes;
  return std::move(counts_);
}

}  // namespace terrace::sim
