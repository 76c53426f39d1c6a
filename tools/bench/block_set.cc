#include "tools/bench/block_set.h"

#include <algorithm>
#include <numeric>

#include "tiers/dram/arena.h"

namespace terrace::bench {
namespace {

constexpr uint64_t kLeaseBatchBytes = uint64_t{128} << 20;  // of payload

}  // namespace

absl::StatusOr<std::unique_ptr<BlockSet>> BlockSet::Create(ClientSession& session,
                                                           const Options& options) {
  std::unique_ptr<BlockSet> set(new BlockSet(session, options));
  absl::StatusOr<SharedMemory> memory = SharedMemory::Create(set->bytes());
  if (!memory.ok()) {
    return memory.status();
  }
  set->memory_ = *std::move(memory);
  set->MakeKeys(options.first);
  set->indexes_.resize(options.count);
  std::iota(set->indexes_.begin(), set->indexes_.end(), 0U);
  absl::StatusOr<terrace_namespace> ns = session.OpenNamespace(
      options.name + "/" + std::to_string(options.seed), options.block_bytes, kBenchBlockTokens);
  if (!ns.ok()) {
    return ns.status();
  }
  set->ns_ = *ns;
  absl::StatusOr<terrace_region> region =
      session.RegisterRegion(set->memory_.fd(), options.block_bytes, options.count);
  if (!region.ok()) {
    return region.status();
  }
  set->region_ = *region;
  const uint64_t leasable = session.LeaseLimitBytes() / 2 / SlotBytesFor(options.block_bytes);
  const uint64_t wanted = std::min(kLeaseBatchBytes / options.block_bytes, uint64_t{kMaxKeysAGet});
  set->lease_batch_ = static_cast<uint32_t>(std::max<uint64_t>(1, std::min(leasable, wanted)));
  set->Fill();
  return set;
}

BlockSet::~BlockSet() {
  if (region_ != 0) {
    // Where it fails the session has ended, and the region with it.
    static_cast<void>(session_.UnregisterRegion(region_));
  }
}

void BlockSet::MakeKeys(uint64_t first) {
  std::vector<uint64_t> names(options_.count);
  std::iota(names.begin(), names.end(), first);
  keys_ = source_.Keys(names, kBenchKeyBytes);
}

void BlockSet::Renew(uint64_t first) {
  MakeKeys(first);
  Fill();
}

KeyChain BlockSet::Chain(uint32_t begin, uint32_t count) const {
  KeyChain chain;
  chain.ns = ns_;
  chain.keys = keys_;
  chain.key_bytes = kBenchKeyBytes;
  chain.region = region_;
  chain.block_indexes = indexes_;
  return chain.Slice(begin, count, kBenchBlockTokens);
}

absl::Span<char> BlockSet::Place(uint32_t i) const {
  return memory_.bytes().subspan(i * options_.block_bytes, options_.block_bytes);
}

void BlockSet::Fill() {
  for (uint32_t i = 0; i < options_.count; ++i) {
    source_.Fill(Key(i), Place(i));
  }
}

absl::Status BlockSet::Put(uint32_t begin, uint32_t count, terrace_level wait_for) {
  return PutAll(begin, count, wait_for, TERRACE_PUT_STORED);
}

absl::Status BlockSet::Raise(uint32_t begin, uint32_t count, terrace_level level) {
  return PutAll(begin, count, level, TERRACE_PUT_DUPLICATE);
}

absl::Status BlockSet::PutAll(uint32_t begin,
                              uint32_t count,
                              terrace_level wait_for,
                              uint8_t outcome) {
  const std::string_view parent = begin == 0 ? std::string_view() : Key(begin - 1);
  absl::StatusOr<Completion> put = session_.Put(
      Chain(begin, count), static_cast<uint32_t>(options_.block_bytes), parent, wait_for);
  if (!put.ok()) {
    return put.status();
  }
  for (uint32_t i = 0; i < (*put)->key_count && wait_for > TERRACE_LEVEL_DRAM; ++i) {
    if ((*put)->levels[i] < wait_for) {
      return absl::UnavailableError("put: a block did not reach the level that was asked for");
    }
  }
  return AllOutcomes(**put, outcome, "put");
}

absl::Status BlockSet::Delete(uint32_t begin, uint32_t count) {
  return session_.Delete(Chain(begin, count));
}

absl::Status BlockSet::Verify(Report& report) {
  for (uint32_t begin = 0; begin < options_.count; begin += lease_batch_) {
    const KeyChain chain = Chain(begin, lease_batch_);
    absl::StatusOr<Completion> got = session_.GetLease(chain, {});
    if (!got.ok()) {
      return got.status();
    }
    const uint32_t delivered = DeliveredPrefix(**got);
    for (uint32_t i = 0; i < delivered; ++i) {
      const absl::Span<const char> payload(static_cast<const char*>((*got)->data[i]),
                                           (*got)->payload_bytes[i]);
      report.AddWrongBytes(source_.WrongBytes(chain.Key(i), payload) +
                           (options_.block_bytes - payload.size()));
    }
    if (delivered < chain.count()) {
      report.AddError("get: " + std::to_string(chain.count() - delivered) + " blocks are missing");
    }
    if (absl::Status status = session_.Release((*got)->lease, {}); !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

uint64_t BlockSet::WrongBytesInRegion(uint32_t i) const {
  return source_.WrongBytes(Key(i), Place(i));
}

}  // namespace terrace::bench
