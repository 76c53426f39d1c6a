// What it costs to make and to check the records of a pool, by how it is protected: one thread,
// blocks of 2 MiB. Before each record its slot, or what was read, is pushed out of the caches by
// that of 31 others.
//
//   build/release/tests/bench/protection_bench --benchmark_repetitions=9
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <benchmark/benchmark.h>

#include "daemon/protection/ciphers.h"
#include "daemon/protection/sealed_protection.h"
#include "tests/doubles/seeded.h"
#include "tiers/os/file_system.h"
#include "tiers/segment/payload_hash.h"
#include "tiers/segment/record_format.h"

namespace terrace {
namespace {

constexpr uint32_t kPayload = uint32_t{2} << 20;
constexpr size_t kSlots = 32;

std::unique_ptr<PoolProtection> ProtectionOf(PoolAuth auth) {
  const Digest128 pool{1, 2};
  if (auth == PoolAuth::kNone) {
    return MakePlainProtection(pool);
  }
  SecretBytes bytes(kMinSecretBytes);
  std::fill(bytes.span().begin(), bytes.span().end(), 's');
  return (*MakePoolSecret(auth, std::move(bytes)))->ProtectionOf(pool);
}

// Records of one payload, which nothing here depends on.
class Records {
 public:
  explicit Records(PoolAuth auth) : protection_(ProtectionOf(auth)) {
    const std::string payload = doubles::Seeded(1).Bytes(kPayload);
    checksum_ = PayloadChecksum(payload);
    for (size_t i = 0; i < kSlots; ++i) {
      slots_.emplace_back(kPayload);
      stored_.emplace_back(kPayload + kPageBytes);
      std::copy(payload.begin(), payload.end(), slots_.back().bytes());
      Write(i);
    }
  }

  void Write(size_t i) {
    PublishedRecord record;
    record.place = {{1, 2}, 3, 4, static_cast<uint32_t>(i)};
    record.identity = identity_;
    record.fingerprint = protection_->Fingerprint(identity_);
    record.payload = slots_[i].span();
    record.checksum = checksum_;
    if (!protection_->WriteRecord(
            record, [] {}, stored_[i].span())) {
      std::abort();
    }
  }
  void Read(size_t i) {
    const ExpectedRecord expected{{{1, 2}, 3, 4, static_cast<uint32_t>(i)},
                                  identity_,
                                  protection_->Fingerprint(identity_),
                                  checksum_};
    if (protection_->ReadRecord(expected, stored_[i].span(), slots_[i].span()) !=
        RecordVerdict::kGenuine) {
      std::abort();
    }
  }

  const std::unique_ptr<PoolProtection> protection_;
  const BlockIdentity identity_{{5, 6}, 1, "salt", "the key of a block, of 32 bytes."};

 private:
  Digest128 checksum_;
  std::vector<AlignedBuffer> slots_;
  std::vector<AlignedBuffer> stored_;
};

void Write(benchmark::State& state) {
  Records records(static_cast<PoolAuth>(state.range(0)));
  size_t i = 0;
  for (auto step : state) {
    records.Write(i++ % kSlots);
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * uint64_t{kPayload}));
  state.SetLabel(std::string(AuthText(records.protection_->auth())));
}

void Read(benchmark::State& state) {
  Records records(static_cast<PoolAuth>(state.range(0)));
  size_t i = 0;
  for (auto step : state) {
    records.Read(i++ % kSlots);
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * uint64_t{kPayload}));
  state.SetLabel(std::string(AuthText(records.protection_->auth())));
}

// Of each key of a probe.
void Fingerprint(benchmark::State& state) {
  Records records(static_cast<PoolAuth>(state.range(0)));
  for (auto step : state) {
    benchmark::DoNotOptimize(records.protection_->Fingerprint(records.identity_));
  }
  state.SetLabel(std::string(AuthText(records.protection_->auth())));
}

// What kMac would cost with HMAC-SHA256 in the place of GCM, before anything else.
void HmacAlone(benchmark::State& state) {
  const std::string payload = doubles::Seeded(1).Bytes(kPayload);
  BriefKey out;
  for (auto step : state) {
    HmacSha256("a key", payload, out.span());
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * uint64_t{kPayload}));
}

BENCHMARK(Write)->DenseRange(0, 2)->Unit(benchmark::kMicrosecond);
BENCHMARK(Read)->DenseRange(0, 2)->Unit(benchmark::kMicrosecond);
BENCHMARK(Fingerprint)->DenseRange(0, 2)->Unit(benchmark::kNanosecond);
BENCHMARK(HmacAlone)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace terrace

BENCHMARK_MAIN();
