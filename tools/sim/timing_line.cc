#include "tools/sim/timing_line.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"

#include "tools/trace/prefill_model.h"

namespace terrace::sim {
namespace {

constexpr std::array<const char*, kPlaces> kNames = {"dram", "local", "shared"};
// GB/s, about what a host of four GPUs has: half of their PCIe 5; four drives; a port of 100 GbE.
constexpr std::array<double, kPlaces> kBandwidths = {100, 25, 10};
constexpr std::array<double, kPlaces> kLatencies = {0.01, 0.1, 2};  // ms
constexpr double kMostBandwidth = 1e6;
constexpr double kMostLatency = 1e6;

std::string Joined(const std::array<double, kPlaces>& values) {
  std::string text;
  for (size_t place = 0; place < kPlaces; ++place) {
    text += absl::StrFormat("%s%s=%g", text.empty() ? "" : ",", kNames[place], values[place]);
  }
  return text;
}

// "NAME=NUMBER"; false: it is not.
bool Split(const std::string& text, std::string& name, double& number) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos) {
    return false;
  }
  name = text.substr(0, equals);
  return absl::SimpleAtod(text.substr(equals + 1), &number) && number >= 0;
}

absl::Status Read(const char* option,
                  const std::vector<std::string>& line,
                  double least,
                  double most,
                  std::array<double, kPlaces>& values) {
  for (const std::string& each : line) {
    std::string name;
    double number = 0;
    const bool is_pair = Split(each, name, number);
    const auto* place = std::find(kNames.begin(), kNames.end(), name);
    if (!is_pair || place == kNames.end() || number < least || number > most) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "%s %s: dram, local or shared = %g to %g is wanted", option, each, least, most));
    }
    values[static_cast<size_t>(place - kNames.begin())] = number;
  }
  return absl::OkStatus();
}

absl::StatusOr<RecomputeModel> ReadPrefill(const std::vector<std::string>& line) {
  if (line.empty()) {
    return RecomputeModel{kPrefillSecondsPerToken, kPrefillSecondsPerSquare};
  }
  std::vector<PrefillTime> points;
  for (const std::string& each : line) {
    std::string tokens;
    double seconds = 0;
    PrefillTime point;
    if (!Split(each, tokens, seconds) || !absl::SimpleAtoi(tokens, &point.tokens)) {
      return absl::InvalidArgumentError("--prefill " + each + ": TOKENS=SECONDS is wanted");
    }
    point.took = absl::Seconds(seconds);
    points.push_back(point);
  }
  absl::StatusOr<RecomputeModel> model = ModelThrough(points);
  return model.ok()
             ? model
             : absl::InvalidArgumentError("--prefill: " + std::string(model.status().message()));
}

}  // namespace

std::string DefaultBandwidths() {
  return Joined(kBandwidths);
}

std::string DefaultLatencies() {
  return Joined(kLatencies);
}

absl::StatusOr<TimingOptions> TimingOf(const TimingLine& line, uint64_t block_tokens) {
  if (block_tokens == 0) {
    return absl::InvalidArgumentError("the trace does not tell the tokens of a block");
  }
  std::array<double, kPlaces> bandwidths = kBandwidths;
  std::array<double, kPlaces> latencies = kLatencies;
  absl::Status status = Read("--bandwidth", line.bandwidths, 1e-6, kMostBandwidth, bandwidths);
  if (status.ok()) {
    status = Read("--latency", line.latencies, 0, kMostLatency, latencies);
  }
  if (!status.ok()) {
    return status;
  }
  absl::StatusOr<RecomputeModel> model = ReadPrefill(line.prefill);
  if (!model.ok()) {
    return model.status();
  }
  TimingOptions timing;
  for (size_t place = 0; place < kPlaces; ++place) {
    timing.speeds[place] = {bandwidths[place] * 1e9, absl::Milliseconds(latencies[place])};
  }
  timing.recompute = *model;
  timing.block_tokens = block_tokens;
  timing.block_bytes =
      block_tokens * (line.token_bytes == 0 ? kPrefillTokenBytes : line.token_bytes);
  timing.lead = absl::Seconds(line.lead_s);
  timing.stray_percent = line.stray_percent;
  timing.seed = line.seed;
  return timing;
}

}  // namespace terrace::sim
