#include "daemon/store/probe_load.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace terrace {
namespace {

// Boundaries that are weighed, nearest first, and the last one in any case.
constexpr size_t kMaxSteps = 512;

struct Hit {
  uint64_t end_token = 0;
  uint32_t place = 0;  // 0: DRAM; else the lower tier + 1
  uint32_t payload_bytes = 0;
  bool is_queued = false;
};

double DramSeconds(const ProbeView& view, uint64_t bytes) {
  return view.dram_bytes_per_second > 0 ? static_cast<double>(bytes) / view.dram_bytes_per_second
                                        : 0;
}

bool IsIndependent(const PartView& view) {
  return view.part->rule == Rule::kIndependent;
}

// Of hits in DRAM.
uint64_t IndependentBytes(const ProbeView& view) {
  uint64_t bytes = 0;
  for (size_t part = 0; part < view.parts.size(); ++part) {
    const size_t first = part == 0 ? 0 : view.seen_end[part - 1];
    for (size_t i = first; IsIndependent(view.parts[part]) && i < view.seen_end[part]; ++i) {
      bytes += view.seen[i].payload_bytes;
    }
  }
  return bytes;
}

// What a load has to move, summed up hit by hit.
class Burden {
 public:
  Burden(const ProbeView& view, const LoadCosts& costs) : view_(view), costs_(costs) {}

  void Add(const Hit& hit) {
    bytes_ += hit.payload_bytes;
    if (hit.place == 0) {
      return;
    }
    LoadDemand& demand = demands_[hit.place - 1];
    demand.queued_bytes = view_.queued_bytes[hit.place - 1];
    demand.blocks += hit.is_queued ? 0 : 1;
    demand.bytes += hit.is_queued ? 0 : hit.payload_bytes;
  }

  // One tier after the other, which is too long where drives and pools read at the same time; and
  // all of it once more from DRAM, where it is copied out.
  [[nodiscard]] double Seconds() const {
    double seconds = DramSeconds(view_, bytes_);
    for (size_t tier = 0; tier < demands_.size(); ++tier) {
      if (demands_[tier].blocks > 0 || demands_[tier].queued_bytes > 0) {
        seconds += costs_.LoadSeconds(tier, demands_[tier]);
      }
    }
    return seconds;
  }

 private:
  const ProbeView& view_;
  const LoadCosts& costs_;
  std::array<LoadDemand, kMaxTiers> demands_{};
  uint64_t bytes_ = 0;
};

// Of one part, those under the boundary; of an independent one all, at token 0.
void AppendHits(const ProbeView& view, size_t part, uint64_t boundary, std::vector<Hit>& out) {
  const PartView& keys = view.parts[part];
  const bool independent = IsIndependent(keys);
  const uint32_t under = independent ? keys.part->key_count() : keys.KeysUpTo(boundary);
  const auto end = [&](uint32_t key) { return independent ? 0 : keys.End(key); };
  for (size_t i = part == 0 ? 0 : view.seen_end[part - 1]; i < view.seen_end[part]; ++i) {
    if (const SeenBlock& seen = view.seen[i]; seen.key < under) {
      out.push_back({end(seen.key), 0, seen.payload_bytes, false});
    }
  }
  for (size_t i = part == 0 ? 0 : view.lower_end[part - 1]; i < view.lower_end[part]; ++i) {
    if (const LowerHit& lower = view.lower[i]; lower.key < under) {
      out.push_back({end(lower.key), lower.tier + 1, lower.payload_bytes, lower.is_queued});
    }
  }
}

// Parts are computed together, be they ranks or groups of layers: the longest one counts.
class Recomputing {
 public:
  Recomputing(const ProbeView& view, const LoadCosts& costs) {
    for (const PartView& part : view.parts) {
      if (!IsIndependent(part) && part.part->key_count() > 0) {
        const RecomputeCost cost = costs.CostOf(part.part->namespace_digest);
        if (cost.known()) {
          models_.push_back({cost.model, part.part->first_token});
        }
      }
    }
  }
  [[nodiscard]] bool known() const { return !models_.empty(); }
  [[nodiscard]] double Seconds(uint64_t end_token) const {
    double longest = 0;
    for (const auto& [model, first_token] : models_) {
      longest = std::max(longest, model.Seconds(first_token, end_token));
    }
    return longest;
  }

 private:
  std::vector<std::pair<RecomputeModel, uint64_t>> models_;
};

// `hits` by their tokens. Blocks of one tier cost the same to load and the more to compute the
// further behind they lie, so what is worth it in a run from one tier is all of it or nothing: only
// the ends of runs are weighed.
std::vector<LoadStep> StepsOf(const ProbeView& view,
                              absl::Span<const Hit> hits,
                              uint64_t boundary,
                              const Recomputing& recomputing,
                              Burden burden) {
  std::vector<LoadStep> steps;
  uint32_t places = 0;  // a bit each, of the blocks that end at one token
  uint32_t places_before = 0;
  for (size_t i = 0; i < hits.size();) {
    const uint64_t token = hits[i].end_token;
    size_t next = i;
    for (places = 0; next < hits.size() && hits[next].end_token == token; ++next) {
      places |= 1U << hits[next].place;
    }
    if (i > 0 && places != places_before && steps.size() < kMaxSteps) {
      const uint64_t legal = LargestLegalOf(view.parts, hits[i - 1].end_token);
      if (legal > (steps.empty() ? 0 : steps.back().end_token)) {
        steps.push_back({legal, burden.Seconds(), recomputing.Seconds(legal)});
      }
    }
    places_before = places;
    for (; i < next; ++i) {
      burden.Add(hits[i]);
    }
  }
  if (boundary > (steps.empty() ? 0 : steps.back().end_token)) {
    steps.push_back({boundary, burden.Seconds(), recomputing.Seconds(boundary)});
  }
  return steps;
}

}  // namespace

void JudgeLoad(const ProbeView& view, const LoadCosts& costs, ProbeResult& result) {
  const uint64_t boundary = result.boundary_tokens;
  result.worth_tokens = boundary;
  const Recomputing recomputing(view, costs);
  std::vector<LoadStep> steps;
  if (view.lower.empty()) {
    // What most probes find: one run, of which the bytes are known.
    result.load_time = absl::Seconds(DramSeconds(view, result.hit_bytes));
    const uint64_t bytes = result.hit_bytes - IndependentBytes(view);
    steps.push_back({boundary, DramSeconds(view, bytes), recomputing.Seconds(boundary)});
  } else {
    Burden all(view, costs);
    std::vector<Hit> hits;
    for (size_t part = 0; part < view.parts.size(); ++part) {
      const size_t before = hits.size();
      AppendHits(view, part, boundary, hits);
      for (size_t i = before; i < hits.size(); ++i) {
        all.Add(hits[i]);
      }
      if (IsIndependent(view.parts[part])) {
        hits.resize(before);
      }
    }
    result.load_time = absl::Seconds(all.Seconds());
    if (recomputing.known()) {
      std::stable_sort(hits.begin(), hits.end(),
                       [](const Hit& a, const Hit& b) { return a.end_token < b.end_token; });
      steps = StepsOf(view, hits, boundary, recomputing, Burden(view, costs));
    }
  }
  if (boundary == 0 || !recomputing.known()) {
    return;
  }
  // 0 says that nothing is known.
  result.recompute_time =
      std::max(absl::Seconds(recomputing.Seconds(boundary)), absl::Microseconds(1));
  const std::optional<size_t> worth = LongestWorthLoading(steps);
  result.worth_tokens = worth.has_value() ? steps[*worth].end_token : 0;
}

std::vector<StorePart> PartsWorthLoading(const ProbeView& view, uint64_t worth_tokens) {
  std::vector<StorePart> parts;
  for (const PartView& each : view.parts) {
    StorePart& part = parts.emplace_back(*each.part);
    if (part.rule != Rule::kIndependent) {
      const uint32_t keys = each.KeysUpTo(worth_tokens);
      part.keys.resize(size_t{keys} * part.key_bytes);
      part.end_tokens.resize(std::min<size_t>(part.end_tokens.size(), keys));
    }
    if (part.keys.empty()) {
      parts.pop_back();
    }
  }
  return parts;
}

std::vector<LoadCosts::Miss> MissesOf(const ProbeView& view, const ProbeResult& result) {
  std::vector<LoadCosts::Miss> misses;
  if (result.worth_tokens != result.boundary_tokens) {
    return misses;
  }
  for (const PartView& view_of_part : view.parts) {
    const StorePart& part = *view_of_part.part;
    const uint32_t count = part.key_count();
    if (part.rule != Rule::kPrefix || view_of_part.run >= count) {
      continue;
    }
    misses.push_back(
        {part.namespace_digest,
         LoadCosts::NameOf(part.namespace_digest, part.salt, part.key(view_of_part.run)),
         std::max(result.boundary_tokens, part.first_token), view_of_part.End(count - 1),
         result.load_time});
  }
  return misses;
}

}  // namespace terrace
