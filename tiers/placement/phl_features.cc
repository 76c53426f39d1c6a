#include "tiers/placement/phl_features.h"

#include <algorithm>
#include <bit>

#include "tiers/vocab/check.h"

namespace terrace {
namespace {

uint64_t Octave(uint64_t value) {
  return static_cast<uint64_t>(std::bit_width(value));
}
// Two steps an octave: 0 for 0, then 1 + 2 log2(value), rounded down.
uint64_t HalfOctave(uint32_t value) {
  const uint64_t octave = Octave(value);
  if (octave == 0) {
    return 0;
  }
  const uint64_t square = uint64_t{value} * value;
  return 2 * octave - 1 + (square >> (2 * octave - 1) != 0 ? 1 : 0);
}

class Rows {
 public:
  void Add(uint64_t a, uint64_t b = 0, uint64_t c = 0) {
    TERRACE_CHECK(used_ < kFeatures);
    out_[used_] = HazardModel::RowOf(used_, a | b << 20U | c << 40U);
    ++used_;
  }
  [[nodiscard]] std::array<HazardModel::Row, kFeatures> All() const {
    TERRACE_CHECK(used_ == kFeatures);
    return out_;
  }

 private:
  std::array<HazardModel::Row, kFeatures> out_{};
  uint32_t used_ = 0;  // also the number of the feature
};

}  // namespace

void ApplyHints(const RequestHints& hints, RequestFacts& facts) {
  if (hints.input_tokens != 0) {
    facts.input_tokens = hints.input_tokens;
  }
  if (hints.output_tokens != 0) {
    facts.output_tokens = hints.output_tokens;
  }
  if (hints.stop != StopReason::kUnknown) {
    facts.stop = hints.stop;
  }
  facts.session_end = facts.session_end || hints.session_end;
  if (hints.expected_return > absl::ZeroDuration()) {
    facts.expected_return_s = static_cast<float>(absl::ToDoubleSeconds(hints.expected_return));
  }
}

std::array<HazardModel::Row, kFeatures> FeatureRows(const RequestFacts& request,
                                                    const RunFacts& run) {
  Rows rows;
  const uint64_t hits = std::min<uint32_t>(run.hits, 7);
  const uint64_t sharing = run.children <= 1 ? 0 : Octave(run.children) - 1;
  const uint64_t fresh =
      request.new_blocks < 4 ? request.new_blocks : 2 + Octave(request.new_blocks);
  const uint64_t prompt = HalfOctave(request.chain_blocks);
  const uint64_t user = request.turn == 0 ? 0 : 1 + Octave(request.user_tokens);
  const uint64_t output = HalfOctave(request.output_tokens);
  const auto stop = static_cast<uint64_t>(request.stop) * 2 + (request.session_end ? 1 : 0);
  const uint64_t begins = request.turn == 0 ? 1 : 0;
  const uint64_t last = run.last ? 1 : 0;
  const uint64_t expected =
      request.expected_return_s <= 0 ? 0 : 1 + HazardModel::BucketOf(request.expected_return_s);
  const uint64_t app = request.app;
  rows.Add(0);
  rows.Add(hits, sharing);
  rows.Add(output, hits, last);
  rows.Add(fresh, hits);
  rows.Add(user, hits);
  rows.Add(stop, hits);
  rows.Add(stop, output);
  rows.Add(app & 0xFFFFFU, hits);
  rows.Add(Octave(run.depth), last);
  rows.Add(output, prompt);
  rows.Add(Octave(run.depth), hits, sharing);
  rows.Add(expected);
  rows.Add(user, output, begins);
  return rows.All();
}

}  // namespace terrace
