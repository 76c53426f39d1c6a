#include "tools/bench/churned_set.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <numeric>
#include <thread>
#include <utility>

#include "tools/bench/block_set.h"

namespace terrace::bench {
namespace {

constexpr uint32_t kMostTogether = 16;
constexpr uint32_t kBatchesOfMany = 16;
constexpr uint32_t kDeletedTogether = 8192;
constexpr int kTriesForRoom = 20;
constexpr std::chrono::milliseconds kPause{5};

// Places of the region, one a block of a batch.
constexpr std::array<uint32_t, kMostTogether> kPlaces = {0, 1, 2,  3,  4,  5,  6,  7,
                                                         8, 9, 10, 11, 12, 13, 14, 15};
// All take slots of one size: the daemon's DRAM is a single slab, which could serve no other.
constexpr std::array<uint32_t, 6> kPayloadBytes = {20'481, 21'000, 22'222,
                                                   24'000, 24'575, ChurnedSet::kMaxPayloadBytes};

}  // namespace

ChurnedSet::ChurnedSet(const Options& options, SharedMemory memory)
    : options_(options),
      names_(options.seed),
      memory_(std::move(memory)),
      random_(options.seed),
      ledger_(options.blocks, options.promise) {
  std::vector<uint64_t> names(options.blocks);
  std::iota(names.begin(), names.end(), uint64_t{0});
  keys_ = names_.Keys(names, kBenchKeyBytes);
}

absl::StatusOr<std::unique_ptr<ChurnedSet>> ChurnedSet::Create(const Options& options) {
  absl::StatusOr<SharedMemory> memory = SharedMemory::Create(kMostTogether * kMaxPayloadBytes);
  if (!memory.ok()) {
    return memory.status();
  }
  return std::unique_ptr<ChurnedSet>(new ChurnedSet(options, *std::move(memory)));
}

void ChurnedSet::Findings::Add(const Findings& other) {
  checked += other.checked;
  wrong_bytes += other.wrong_bytes;
  lost += other.lost;
  came_back += other.came_back;
  undecided += other.undecided;
  puts += other.puts;
  short_puts += other.short_puts;
  tier_faults += other.tier_faults;
  deletes += other.deletes;
  clears += other.clears;
  flushes += other.flushes;
}

ChurnedSet::Findings ChurnedSet::TakeFindings() {
  return std::exchange(findings_, {});
}

absl::Status ChurnedSet::Connect(const std::string& runtime_dir, std::chrono::milliseconds limit) {
  absl::StatusOr<std::unique_ptr<ClientSession>> session = ClientSession::Open(runtime_dir);
  if (!session.ok()) {
    return Noted(session.status());
  }
  if (!(*session)->WaitConnected(limit)) {
    return absl::UnavailableError("connect: no daemon answers");
  }
  absl::StatusOr<terrace_namespace> ns =
      (*session)->OpenNamespace(options_.name, kMaxPayloadBytes, kBenchBlockTokens);
  absl::StatusOr<terrace_region> region =
      (*session)->RegisterRegion(memory_.fd(), kMaxPayloadBytes, kMostTogether);
  if (!ns.ok() || !region.ok()) {
    return Noted(ns.ok() ? region.status() : ns.status());
  }
  session_ = *std::move(session);
  operator_calls_ = OperatorCalls::Create(runtime_dir);
  ns_ = *ns;
  region_ = *region;
  return absl::OkStatus();
}

void ChurnedSet::Disconnect() {
  session_.reset();
  operator_calls_.reset();
  recovered_ = false;
}

absl::Status ChurnedSet::AwaitRecovery() {
  while (true) {
    const absl::StatusOr<OperatorCalls::LocalState> state = operator_calls_->Local();
    if (!state.ok()) {
      return Noted(state.status());
    }
    if (!state->last_fault.empty()) {
      findings_.errors.push_back("the local tier reports a fault: " + state->last_fault);
    }
    if (!state->recovering) {
      recovered_ = true;
      return absl::OkStatus();
    }
    std::this_thread::sleep_for(kPause);
  }
}

uint64_t ChurnedSet::LocalFileBytes() const {
  const absl::StatusOr<OperatorCalls::LocalState> state = operator_calls_->Local();
  return state.ok() ? state->file_bytes : 0;
}

KeyChain ChurnedSet::Chain(uint32_t begin, uint32_t count) const {
  KeyChain chain;
  chain.ns = ns_;
  chain.keys = std::string_view(keys_).substr(size_t{begin} * kBenchKeyBytes,
                                              size_t{count} * kBenchKeyBytes);
  chain.key_bytes = kBenchKeyBytes;
  chain.first_token = uint64_t{begin} * kBenchBlockTokens;
  // A chain that moves payload is no longer than the region.
  chain.region = count <= kMostTogether ? region_ : 0;
  chain.block_indexes = absl::MakeConstSpan(kPlaces).first(std::min(count, kMostTogether));
  chain.rule = TERRACE_RULE_INDEPENDENT;
  return chain;
}

PayloadSource ChurnedSet::Content(uint32_t block) const {
  return PayloadSource(options_.seed ^ (ledger_.version(block) << 32U));
}

uint32_t ChurnedSet::PayloadBytes(uint32_t block) const {
  return kPayloadBytes[(uint64_t{block} * 7 + ledger_.version(block)) % kPayloadBytes.size()];
}

absl::Status ChurnedSet::Noted(absl::Status status) {
  if (!status.ok() && !absl::IsUnavailable(status)) {
    findings_.errors.emplace_back(status.message());
  }
  return status;
}

absl::Status ChurnedSet::Verify(uint32_t count) {
  const uint32_t begin = Below(blocks());
  for (uint32_t done = 0; done < count;) {
    const uint32_t at = (begin + done) % blocks();
    const uint32_t together = std::min({kMostTogether, count - done, blocks() - at});
    uint32_t undecided = 1;
    for (int i = 0; i < kTriesForRoom && undecided > 0; ++i) {
      if (i > 0) {
        std::this_thread::sleep_for(kPause);
      }
      if (absl::Status status = Get(at, together, &undecided); !status.ok()) {
        return status;
      }
    }
    findings_.undecided += undecided;
    done += together;
  }
  return absl::OkStatus();
}

absl::Status ChurnedSet::Turn() {
  const uint32_t count = 1 + Below(kMostTogether);
  const uint32_t begin = Below(blocks() - count);
  const uint32_t choice = Below(1000);
  uint32_t undecided = 0;
  if (choice < 600) {
    return PutNext();
  }
  if (choice < 800) {
    return Get(begin, count, &undecided);
  }
  if (choice < 900) {
    return Probe(begin, count);
  }
  if (choice < 950) {
    return Noted(session_->Prefetch(Chain(begin, count)));
  }
  if (choice < 996) {
    return Delete(begin, count);
  }
  return choice < 999 || options_.promise == BlockLedger::Promise::kMayForget ? Flush() : Clear();
}

absl::Status ChurnedSet::PutMany() {
  absl::Status status;
  for (uint32_t i = 0; i < kBatchesOfMany && status.ok(); ++i) {
    const uint32_t count = std::min(kMostTogether, blocks() - next_put_);
    status = Put(next_put_, count, TERRACE_LEVEL_LOCAL_WRITTEN);
    next_put_ = (next_put_ + count) % blocks();
  }
  return status;
}

absl::Status ChurnedSet::DeleteAll() {
  absl::Status status;
  for (uint32_t begin = 0; begin < blocks() && status.ok(); begin += kDeletedTogether) {
    status = Delete(begin, std::min(kDeletedTogether, blocks() - begin));
  }
  return status;
}

absl::Status ChurnedSet::PutNext() {
  constexpr std::array<terrace_level, 5> kLevels = {
      TERRACE_LEVEL_DRAM, TERRACE_LEVEL_LOCAL_WRITTEN, TERRACE_LEVEL_LOCAL_WRITTEN,
      TERRACE_LEVEL_LOCAL_SYNCED, TERRACE_LEVEL_LOCAL_WRITTEN};
  const uint32_t begin = next_put_;
  const uint32_t count = std::min(1 + Below(kMostTogether), blocks() - begin);
  next_put_ = (begin + count) % blocks();
  // Every block goes round in order and is written anew, so that what is alive lies in the few
  // segments that were written last, and reclaim need not take any of it. Where nothing is promised
  // blocks are let be until reclaim has taken them.
  if (options_.promise == BlockLedger::Promise::kKeepsAll) {
    if (absl::Status status = Delete(begin, count); !status.ok()) {
      return status;
    }
  }
  return Put(begin, count, kLevels[Below(kLevels.size())]);
}

absl::Status ChurnedSet::Put(uint32_t begin, uint32_t count, terrace_level level) {
  std::array<uint32_t, kMostTogether> sizes{};
  for (uint32_t i = 0; i < count; ++i) {
    ledger_.BeginPut(begin + i);
    sizes[i] = PayloadBytes(begin + i);
    Content(begin + i).Fill(Chain(begin + i, 1).keys,
                            memory_.bytes().subspan(i * kMaxPayloadBytes, sizes[i]));
  }
  absl::StatusOr<Completion> put =
      session_->Put(Chain(begin, count), absl::MakeConstSpan(sizes).first(count), "", level);
  if (!put.ok()) {
    return Noted(put.status());
  }
  for (uint32_t i = 0; i < count; ++i) {
    const bool stored =
        (*put)->outcomes[i] == TERRACE_PUT_STORED || (*put)->outcomes[i] == TERRACE_PUT_DUPLICATE;
    if (stored && (*put)->levels[i] >= TERRACE_LEVEL_LOCAL_WRITTEN) {
      ledger_.PutSurvives(begin + i);
    }
    const bool draining = (*put)->reasons[i] == TERRACE_REASON_DRAINING;
    findings_.short_puts += (!stored || (*put)->levels[i] < level) && !draining ? 1U : 0U;
    findings_.tier_faults += (*put)->reasons[i] == TERRACE_REASON_TIER_FAULT ? 1U : 0U;
  }
  findings_.puts += count;
  return absl::OkStatus();
}

absl::Status ChurnedSet::Get(uint32_t begin, uint32_t count, uint32_t* undecided) {
  absl::StatusOr<Completion> got =
      session_->GetLease(Chain(begin, count), {}, ClientSession::Pending::kWait);
  if (!got.ok()) {
    return Noted(got.status());
  }
  *undecided = 0;
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t block = begin + i;
    const uint8_t outcome = (*got)->outcomes[i];
    const bool owed = ledger_.due(block) == BlockLedger::Due::kThere;
    if (outcome == TERRACE_GET_OK) {
      CheckDelivered(block, {static_cast<const char*>((*got)->data[i]), (*got)->payload_bytes[i]});
    } else if (outcome == TERRACE_GET_MISS) {
      ++findings_.checked;
      NoteMiss(block, "get");
    } else if (outcome == TERRACE_GET_BUSY || outcome == TERRACE_GET_DEADLINE) {
      *undecided += owed ? 1U : 0U;
    } else {
      findings_.errors.push_back("get: a block got outcome " + std::to_string(outcome));
    }
  }
  return Noted(session_->Release((*got)->lease, {}));
}

void ChurnedSet::NoteMiss(uint32_t block, const char* verb) {
  if (ledger_.due(block) != BlockLedger::Due::kThere || !recovered_) {
    return;
  }
  if (findings_.lost++ == 0) {
    findings_.errors.push_back(std::string(verb) + ": block " + std::to_string(block) +
                               " is missing, the next put begins at " + std::to_string(next_put_));
  }
}

void ChurnedSet::CheckDelivered(uint32_t block, absl::Span<const char> payload) {
  ++findings_.checked;
  if (ledger_.due(block) == BlockLedger::Due::kAbsent) {
    ++findings_.came_back;
    return;
  }
  const uint64_t bytes = PayloadBytes(block);
  findings_.wrong_bytes +=
      Content(block).WrongBytes(Chain(block, 1).keys, payload) +
      (std::max<uint64_t>(bytes, payload.size()) - std::min<uint64_t>(bytes, payload.size()));
}

absl::Status ChurnedSet::Probe(uint32_t begin, uint32_t count) {
  absl::StatusOr<Completion> probe =
      session_->Probe(Chain(begin, count), std::chrono::milliseconds(0));
  if (!probe.ok()) {
    return Noted(probe.status());
  }
  for (uint32_t i = 0; i < count; ++i) {
    const bool missed = ((*probe)->states[i] & 15U) == TERRACE_KEY_MISS;
    const BlockLedger::Due due = ledger_.due(begin + i);
    if (missed) {
      NoteMiss(begin + i, "probe");
    }
    findings_.came_back += !missed && due == BlockLedger::Due::kAbsent ? 1U : 0U;
  }
  return absl::OkStatus();
}

absl::Status ChurnedSet::Delete(uint32_t begin, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) {
    ledger_.BeginDelete(begin + i);
  }
  if (absl::Status status = session_->Delete(Chain(begin, count)); !status.ok()) {
    return Noted(status);
  }
  for (uint32_t i = 0; i < count; ++i) {
    ledger_.DeleteDone(begin + i);
  }
  findings_.deletes += count;
  return absl::OkStatus();
}

absl::Status ChurnedSet::Clear() {
  // All but one are deleted before: what a new generation makes worthless is alive to the tier, and
  // may not crowd out what is to be kept.
  const uint32_t left = Below(blocks());
  for (const auto& [begin, end] : {std::pair(0U, left), std::pair(left + 1, blocks())}) {
    if (begin == end) {
      continue;
    }
    if (absl::Status status = Delete(begin, end - begin); !status.ok()) {
      return status;
    }
  }
  ledger_.BeginClear();
  if (absl::Status status = session_->ClearNamespace(ns_); !status.ok()) {
    return Noted(status);
  }
  ledger_.ClearDone();
  ++findings_.clears;
  return absl::OkStatus();
}

absl::Status ChurnedSet::Flush() {
  ++findings_.flushes;
  return Noted(operator_calls_->Flush());
}

}  // namespace terrace::bench
