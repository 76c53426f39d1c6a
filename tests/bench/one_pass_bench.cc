// What the copies of the data path cost beside memcpy and beside reading alone. Not a test: run by
// hand, as
//
//   one_pass_bench [small|huge]
//
// on cold data: source and destination are two sealed slabs of 384 MiB, gone through in blocks of 2
// MiB. Each figure alternates with memcpy of the next block; the median of the pairs' ratios is
// printed with minimum and maximum, and of the time the quartiles. Time is the thread's CPU time,
// so that neighbours on a shared machine disturb less.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <ctime>
#include <functional>
#include <iostream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include <benchmark/benchmark.h>

#include "tiers/copy/one_pass.h"
#include "tiers/os/descriptor.h"

namespace terrace {
namespace {

constexpr uint64_t kBlockBytes = uint64_t{2} << 20;
constexpr uint64_t kBlocks = 192;

struct Slabs {
  SealedMemory source;
  SealedMemory destination;
};

absl::StatusOr<Slabs> MakeSlabs(bool huge_pages) {
  const SealedMemory::Options options{
      .bytes = kBlocks * kBlockBytes, .huge_pages = huge_pages, .touch_threads = 2};
  absl::StatusOr<SealedMemory> source = SealedMemory::Create(options);
  if (!source.ok()) {
    return source.status();
  }
  absl::StatusOr<SealedMemory> destination = SealedMemory::Create(options);
  if (!destination.ok()) {
    return destination.status();
  }
  const absl::Span<char> memory = source->memory();
  for (uint64_t at = 0; at < memory.size(); at += sizeof(at)) {
    const uint64_t word = at * 0x9E3779B97F4A7C15U;
    std::memcpy(memory.data() + at, &word, sizeof(word));
  }
  return Slabs{*std::move(source), *std::move(destination)};
}

using BlockCopy = std::function<void(const char* source, char* destination)>;

struct Contender {
  std::string name;
  BlockCopy run;
};

std::vector<Contender> Contenders() {
  std::vector<Contender> contenders = {
      {"memcpy", [](const char* from, char* to) { std::memcpy(to, from, kBlockBytes); }},
      {"memcpy, then HashPayload",
       [](const char* from, char* to) {
         std::memcpy(to, from, kBlockBytes);
         benchmark::DoNotOptimize(HashPayload({to, kBlockBytes}));
       }},
      {"read",
       [](const char* from, char*) {
         uint64_t sum = 0;
         for (uint64_t at = 0; at < kBlockBytes; at += sizeof(sum)) {
           uint64_t word = 0;
           std::memcpy(&word, from + at, sizeof(word));
           sum += word;
         }
         benchmark::DoNotOptimize(sum);
       }},
  };
  for (const CopyKernel kernel : {CopyKernel::kBaseline, CopyKernel::kAvx2, CopyKernel::kAvx512}) {
    if (!CopyKernelSupported(kernel)) {
      continue;
    }
    const std::string suffix = " " + std::string(CopyKernelName(kernel));
    const auto add = [&](std::string_view name, BlockCopy run) {
      contenders.push_back(
          {std::string(name) + suffix, [kernel, run = std::move(run)](const char* from, char* to) {
             SetCopyKernel(kernel);
             run(from, to);
           }});
    };
    add("CopyOut", [](const char* from, char* to) {
      const Piece piece{to, kBlockBytes};
      CopyOut({from, kBlockBytes}, {&piece, 1});
    });
    add("CopyOut in 32 KiB pieces", [](const char* from, char* to) {
      std::vector<Piece> pieces;
      for (uint64_t at = 0; at < kBlockBytes; at += 32768) {
        pieces.push_back({to + at, 32768});
      }
      CopyOut({from, kBlockBytes}, pieces);
    });
    add("CopyAndHash", [](const char* from, char* to) {
      const ConstPiece piece{from, kBlockBytes};
      benchmark::DoNotOptimize(CopyAndHash({&piece, 1}, to));
    });
    add("CopyAndHash to unaligned", [](const char* from, char* to) {
      const ConstPiece piece{from, kBlockBytes - 64};
      benchmark::DoNotOptimize(CopyAndHash({&piece, 1}, to + 8));
    });
    add("CopyOutAndHash", [](const char* from, char* to) {
      const Piece piece{to, kBlockBytes};
      benchmark::DoNotOptimize(CopyOutAndHash({from, kBlockBytes}, {&piece, 1}));
    });
    add("HashPayload", [](const char* from, char*) {
      benchmark::DoNotOptimize(HashPayload({from, kBlockBytes}));
    });
  }
  return contenders;
}

double ThreadSeconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

// Goes through the slabs block by block; source and destination are never neighbours twice in a
// row.
class Track {
 public:
  explicit Track(const Slabs& slabs) : slabs_(slabs) {}

  double Seconds(const BlockCopy& copy) {
    const char* const from = slabs_.source.memory().data() + turn_ % kBlocks * kBlockBytes;
    char* const to = slabs_.destination.memory().data() + (turn_ * 7 + 3) % kBlocks * kBlockBytes;
    ++turn_;
    const double begin = ThreadSeconds();
    copy(from, to);
    return ThreadSeconds() - begin;
  }

 private:
  const Slabs& slabs_;
  uint64_t turn_ = 0;
};

double At(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(share * static_cast<double>(values.size() - 1))];
}

void Measure(benchmark::State& state,
             Track& track,
             const Contender& contender,
             const BlockCopy& memcpy_block) {
  std::vector<double> ratios;
  std::vector<double> rates;
  for (auto turn : state) {
    const double limit = track.Seconds(memcpy_block);
    const double seconds = track.Seconds(contender.run);
    state.SetIterationTime(seconds);
    ratios.push_back(limit / seconds);
    rates.push_back(static_cast<double>(kBlockBytes) / seconds / 1e9);
  }
  state.counters["GB/s"] = At(rates, 0.5);
  state.counters["GB/s_q1"] = At(rates, 0.25);
  state.counters["GB/s_q3"] = At(rates, 0.75);
  state.counters["x_memcpy"] = At(ratios, 0.5);
  state.counters["x_min"] = At(ratios, 0.0);
  state.counters["x_max"] = At(ratios, 1.0);
}

int Run(int argc, char** argv) {
  const bool huge_pages = argc < 2 || std::string_view(argv[1]) != "small";
  const absl::StatusOr<Slabs> slabs = MakeSlabs(huge_pages);
  if (!slabs.ok()) {
    std::cerr << slabs.status() << '\n';
    return 1;
  }
  std::cerr << "pages: " << PageKindName(slabs->source.page_kind()) << ", best kernel "
            << CopyKernelName(ActiveCopyKernel()) << '\n';
  Track track(*slabs);
  const std::vector<Contender> contenders = Contenders();
  for (const Contender& contender : contenders) {
    benchmark::RegisterBenchmark(
        contender.name.c_str(),
        [&](benchmark::State& state) { Measure(state, track, contender, contenders.front().run); })
        ->UseManualTime()
        ->Unit(benchmark::kMicrosecond)
        ->Iterations(600);
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}

}  // namespace
}  // namespace terrace

int main(int argc, char** argv) {
  return terrace::Run(argc, argv);
}
