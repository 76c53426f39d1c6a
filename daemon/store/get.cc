// Get: resolve the keys, wait for blocks on their way, deliver as leases, into regions or inline.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

#include "daemon/store/region_pieces.h"
#include "daemon/store/store.h"
#include "tiers/copy/one_pass.h"
#include "tiers/vocab/check.h"

namespace terrace {
namespace {

// A job hands its turn on after so much, so that a large batch cannot keep others waiting.
constexpr uint64_t kBytesPerTurn = uint64_t{16} << 20;
// As much as is worth waking another copy thread for.
constexpr uint64_t kBytesPerJob = uint64_t{1} << 20;
// Copy threads begin tens of microseconds apart, so each takes several slices; below this they cost
// more than they even out.
constexpr uint64_t kSlicesPerJob = 4;
constexpr uint64_t kLeastSliceBytes = uint64_t{256} << 10;

size_t KeysOf(const GetCall& call) {
  size_t keys = 0;
  for (const StorePart& part : call.parts) {
    keys += part.key_count();
  }
  return keys;
}

// A key that failed after its place in the payload was planned leaves a gap: what follows it moves
// up, so that the payloads of OK keys lie end to end and nothing of the failed one leaves the
// store.
void ClosePayloadGaps(GetOperation& get) {
  uint64_t end = 0;
  for (const GetTarget& target : get.targets) {
    if (!target.locked || target.outcome != GetOutcome::kOk) {
      continue;
    }
    if (target.inline_offset != end) {
      std::memmove(get.result.payload.data() + end,
                   get.result.payload.data() + target.inline_offset, target.payload_bytes);
    }
    end += target.payload_bytes;
  }
  get.result.payload.resize(end);
}

}  // namespace

void Store::Get(const Caller& caller,
                GetCall call,
                std::function<void(absl::StatusOr<GetResult>)> done) {
  auto get = std::make_shared<GetOperation>();
  get->caller = caller;
  get->call_id = call.call_id;
  get->deadline = call.deadline;
  get->call = std::move(call);
  get->done = std::move(done);
  get->targets.resize(KeysOf(get->call));
  for (uint32_t i = 0; i < get->targets.size(); ++i) {
    get->targets[i].position = i;
  }
  DeferredCalls deferred;
  Lock lock(&mutex_);
  if (const absl::Status status = AdmitGetLocked(*get); !status.ok()) {
    for (const std::shared_ptr<Region>& region : get->regions) {
      UnuseRegionLocked(*region, deferred);
    }
    deferred.Add([get, status] { get->done(status); });
    return;
  }
  ++in_flight_;
  TrackLocked(get);
  get->copied_by_caller = CopiedByCaller(options_, get->call.alone);
  ResolveGetLocked(get, deferred);
  get->copied_by_caller = 0;
  PumpReadsLocked(deferred);
}

absl::Status Store::AdmitGetLocked(GetOperation& get) {
  const StoreSession* session = FindSessionLocked(get.caller.session);
  if (session != nullptr && session->closed) {
    return absl::CancelledError("the session has ended");
  }
  switch (get.call.delivery) {
    case Delivery::kInline:
    case Delivery::kInPlace:
      return absl::OkStatus();
    case Delivery::kLease:
      return session != nullptr && session->lease_right
                 ? absl::OkStatus()
                 : absl::FailedPreconditionError("delivery: leases need a session with a pidfd");
    case Delivery::kRegion:
      break;
  }
  if (session == nullptr) {
    return absl::FailedPreconditionError("delivery: regions need a session");
  }
  if (get.call.regions.size() != get.call.parts.size()) {
    return absl::InvalidArgumentError("regions: one a part is needed");
  }
  for (size_t p = 0; p < get.call.parts.size(); ++p) {
    const RegionBlocks& blocks = get.call.regions[p];
    if (blocks.block_indexes.size() != get.call.parts[p].key_count()) {
      return absl::InvalidArgumentError("regions.block_indexes: one a key is needed");
    }
    std::shared_ptr<Region> region = UseRegionLocked(get.caller.session, blocks.region_id);
    if (region == nullptr) {
      return absl::NotFoundError("regions.region_id: not registered in this session");
    }
    get.regions.push_back(std::move(region));
    if (get.regions.back()->read_only) {
      return absl::FailedPreconditionError("regions.region_id: registered read-only");
    }
  }
  return absl::OkStatus();
}

void Store::ResolveGetLocked(const std::shared_ptr<GetOperation>& get, DeferredCalls& deferred) {
  get->result.outcomes.assign(get->targets.size(), static_cast<char>(GetOutcome::kMiss));
  get->result.payload_bytes.assign(get->targets.size(), 0);
  uint32_t first = 0;
  for (size_t p = 0; p < get->call.parts.size(); ++p) {
    ResolvePartLocked(get, p, first, deferred);
    first += get->call.parts[p].key_count();
  }
  if (get->waiting == 0) {
    DeliverLocked(get, deferred);
  } else {
    waiting_.push_back(get);
  }
}

void Store::ResolvePartLocked(const std::shared_ptr<GetOperation>& get,
                              size_t part_index,
                              uint32_t first,
                              DeferredCalls& deferred) {
  static_cast<void>(deferred);
  const StorePart& part = get->call.parts[part_index];
  std::vector<BlockId> found;
  FindPartLocked(get->caller.tenant, part, found);
  std::vector<BlockId> touched;
  for (uint32_t i = 0; i < part.key_count(); ++i) {
    GetTarget& target = get->targets[first + i];
    if (get->call.delivery == Delivery::kRegion) {
      target.region = get->regions[part_index].get();
      target.region_block = get->call.regions[part_index].block_indexes[i];
      if (target.region_block >= target.region->geometry.block_count) {
        target.outcome = GetOutcome::kInvalid;
        continue;
      }
    }
    BlockId block = found[i];
    uint32_t tier = 0;
    if (block == kNoBlock && get->call.wait_pending) {
      block = BeginReadLocked(get->caller.tenant, part, i, Priority::kHigh, &tier);
    }
    const bool ready = block != kNoBlock && blocks_.at(block).state == BlockState::kReady;
    if (ready) {
      target.block = block;
      target.locked = true;
      LockBlockLocked(block);
      touched.push_back(block);
    } else if (block != kNoBlock && get->call.wait_pending) {
      target.block = block;
      ++get->waiting;
      Flight& flight = flights_.at(block);
      target.tier = flight.is_read ? static_cast<uint8_t>(flight.tier + 1) : 0;
      if (flight.is_read && flight.priority < Priority::kHigh) {  // fetched ahead, and now awaited
        flight.priority = Priority::kHigh;
        reads_[flight.tier].Raise(block, Priority::kHigh);
      }
      flight.waiters.push_back(FlightWaiter{get, nullptr, 0, first + i});
    } else if (part.rule == Rule::kPrefix) {
      break;  // what follows could not be used
    }
  }
  TouchLocked(touched);
  NoteReuseLocked(touched);
}

// Everything is here or given up: decides what is delivered and how.
void Store::DeliverLocked(const std::shared_ptr<GetOperation>& get, DeferredCalls& deferred) {
  get->dispatched = true;
  if (CheckKeptLocked(get, deferred)) {
    return;
  }
  uint64_t bytes = 0;
  for (GetTarget& target : get->targets) {
    if (target.locked) {
      PrepareTargetLocked(*get, target);
      bytes += target.locked ? target.payload_bytes : 0;
    }
  }
  if (get->call.delivery == Delivery::kLease) {
    DeliverLeaseLocked(*get);
    FinishGetLocked(*get, deferred);
    return;
  }
  if (get->call.delivery == Delivery::kInline) {
    PlanInlineLocked(*get);
    bytes = get->result.payload.size();
  }
  if (get->call.delivery == Delivery::kInPlace) {
    bytes = PlanInPlaceLocked(*get);
  }
  if (bytes == 0) {
    FinishGetLocked(*get, deferred);
    return;
  }
  PlanSlicesLocked(*get, bytes);
  if (get->slices.empty()) {
    FinishGetLocked(*get, deferred);
    return;
  }
  const uint64_t most =
      std::min<uint64_t>(get->slices.size(), static_cast<uint64_t>(executor_.parallelism()));
  uint64_t jobs = std::clamp<uint64_t>((bytes + kBytesPerJob - 1) / kBytesPerJob, 1, most);
  get->copy_began = clock_.Now();
  const bool by_caller = bytes <= get->copied_by_caller;
  for (jobs -= by_caller ? 1 : 0; jobs > 0; --jobs) {
    deferred.Add([this, get] { RunJob(Priority::kHigh, [this, get] { RunGetJob(get); }); });
  }
  if (by_caller) {
    deferred.Add([this, get] { RunGetJob(get); });
  }
}

// Cuts blocks into slices where there are fewer blocks than would keep the copy threads busy to the
// end.
void Store::PlanSlicesLocked(GetOperation& get, uint64_t bytes) {
  const auto parallel = static_cast<uint64_t>(executor_.parallelism());
  const uint64_t share = bytes / (parallel * kSlicesPerJob) + 1;
  const uint64_t slice_bytes =
      std::max(kLeastSliceBytes, (share + kSlotAlignment - 1) / kSlotAlignment * kSlotAlignment);
  const uint32_t one_in = verify_one_in_.load();
  get.slices.reserve(get.targets.size());
  for (uint32_t i = 0; i < get.targets.size(); ++i) {
    const GetTarget& target = get.targets[i];
    if (!target.locked) {
      continue;
    }
    const bool in_place = get.call.delivery == Delivery::kInPlace;
    const bool verify = (in_place && !get.call.sampled) ||
                        (one_in != 0 && verify_turn_.fetch_add(1) % one_in == 0);
    if (in_place && !verify) {
      continue;  // nothing is copied, and nothing read
    }
    const uint64_t whole = target.payload_bytes;
    const uint64_t most = verify ? whole : slice_bytes;
    uint64_t begin = 0;
    for (; whole - begin > most; begin += most) {
      get.slices.push_back({i, begin, most, false});
    }
    get.slices.push_back({i, begin, whole - begin, verify});
  }
  get.slices_left = static_cast<uint32_t>(get.slices.size());
}

void Store::PrepareTargetLocked(GetOperation& get, GetTarget& target) {
  const Block& block = blocks_.at(target.block);
  if (block.state !=
      BlockState::kReady) {  // deleted or found corrupt while the call waited for its other keys
    UnlockBlockLocked(target.block);
    target.locked = false;
    return;
  }
  if (get.call.delivery == Delivery::kRegion &&
      block.payload_bytes > target.region->payload_bytes) {
    target.outcome = GetOutcome::kInvalid;
    UnlockBlockLocked(target.block);
    target.locked = false;
    return;
  }
  target.payload_bytes = block.payload_bytes;
  target.checksum = block.checksum;
  target.source = PayloadLocked(block).data();
  target.outcome = GetOutcome::kOk;
}

void Store::DeliverLeaseLocked(GetOperation& get) {
  StoreSession* session = FindSessionLocked(get.caller.session);
  get.result.slab_ids.assign(get.targets.size(), 0);
  get.result.slab_offsets.assign(get.targets.size(), 0);
  if (session == nullptr || session->closed || get.cancelled) {
    for (GetTarget& target : get.targets) {
      if (target.locked) {
        target.outcome = GetOutcome::kCancelled;
      }
    }
    return;
  }
  const auto limit = static_cast<uint64_t>(
      static_cast<double>(DramOfLocked(TenantOf(get.caller.tenant))) * options_.lease_share);
  uint64_t leased = session->leased_bytes;
  std::vector<BlockId> blocks(get.targets.size(), kNoBlock);
  bool any = false;
  bool full = false;  // the prefix that fits is granted, and nothing behind it
  for (GetTarget& target : get.targets) {
    if (!target.locked) {
      continue;
    }
    const Block& block = blocks_.at(target.block);
    const uint64_t slot_bytes = pools_[block.pool]->slot_bytes;
    full = full || leased + slot_bytes > limit;
    if (full) {
      target.outcome = GetOutcome::kBusy;
      continue;
    }
    leased += slot_bytes;
    blocks[target.position] = target.block;
    get.result.slab_ids[target.position] = static_cast<uint32_t>(block.slab);
    get.result.slab_offsets[target.position] = arena_->PayloadOffset({block.slab, block.slot});
    any = true;
  }
  if (any) {
    get.result.lease_id = GrantLeaseLocked(get.caller, std::move(blocks));
  }
}

// The prefix that fits into one message is delivered.
void Store::PlanInlineLocked(GetOperation& get) {
  uint64_t size = 0;
  bool full = false;
  for (GetTarget& target : get.targets) {
    if (!target.locked) {
      continue;
    }
    full = full || size + target.payload_bytes > kMaxInlineBytes;
    if (full) {
      target.outcome = GetOutcome::kTrimmed;
      UnlockBlockLocked(target.block);
      target.locked = false;
      continue;
    }
    target.inline_offset = size;
    size += target.payload_bytes;
  }
  get.result.payload.resize(size);
}

// As with leases, the prefix that fits is delivered and nothing behind it.
uint64_t Store::PlanInPlaceLocked(GetOperation& get) {
  Tenant& tenant = TenantOf(get.caller.tenant);
  const auto limit =
      static_cast<uint64_t>(static_cast<double>(DramOfLocked(tenant)) * options_.lease_share);
  uint64_t bytes = 0;
  bool full = false;
  for (GetTarget& target : get.targets) {
    if (!target.locked) {
      continue;
    }
    const uint64_t slot_bytes = pools_[blocks_.at(target.block).pool]->slot_bytes;
    full = full || tenant.in_place_bytes + slot_bytes > limit;
    if (full) {
      target.outcome = GetOutcome::kBusy;
      UnlockBlockLocked(target.block);
      target.locked = false;
      continue;
    }
    tenant.in_place_bytes += slot_bytes;
    bytes += target.payload_bytes;
  }
  return bytes;
}

// The transfer locks of what was found right become the reader's.
void Store::DeliverInPlaceLocked(GetOperation& get) {
  get.result.in_place.resize(get.targets.size());
  if (get.call.sampled) {
    get.result.slab_ids.assign(get.targets.size(), 0);
    get.result.slab_offsets.assign(get.targets.size(), 0);
  }
  std::vector<BlockId> blocks;
  for (GetTarget& target : get.targets) {
    if (!target.locked) {
      continue;
    }
    if (target.outcome == GetOutcome::kOk) {
      const Block& block = blocks_.at(target.block);
      get.result.in_place[target.position] = {target.source, target.payload_bytes};
      if (get.call.sampled) {
        get.result.slab_ids[target.position] = static_cast<uint32_t>(block.slab);
        get.result.slab_offsets[target.position] = arena_->PayloadOffset({block.slab, block.slot});
      }
      blocks.push_back(target.block);
      target.locked = false;
    } else {
      TenantOf(get.caller.tenant).in_place_bytes -=
          pools_[blocks_.at(target.block).pool]->slot_bytes;
    }
  }
  if (blocks.empty()) {
    return;
  }
  ++in_flight_;  // the store outlives the reader
  get.result.reading = std::shared_ptr<const void>(
      this, [this, tenant = get.caller.tenant, blocks = std::move(blocks)](const void* /*store*/) {
        EndReading(tenant, blocks);
      });
}

void Store::EndReading(TenantId tenant, absl::Span<const BlockId> blocks) {
  Lock lock(&mutex_);
  for (const BlockId block : blocks) {
    TenantOf(tenant).in_place_bytes -= pools_[blocks_.at(block).pool]->slot_bytes;
    UnlockBlockLocked(block);
  }
  JobEndedLocked();
}

void Store::RunGetJob(const std::shared_ptr<GetOperation>& get) {
  uint64_t turn = 0;
  for (;;) {
    const uint32_t index = get->next.fetch_add(1);
    if (index >= get->slices.size()) {
      return;
    }
    CopySlice(*get, get->slices[index]);
    turn += get->slices[index].bytes;
    // Whoever copied the last slice finishes: a job that has yet to begin is not waited for.
    if (get->slices_left.fetch_sub(1) == 1) {
      DeferredCalls deferred;
      Lock lock(&mutex_);
      FinishGetLocked(*get, deferred);
      return;
    }
    if (turn >= kBytesPerTurn) {
      RunJob(Priority::kHigh, [this, get] { RunGetJob(get); });
      return;
    }
  }
}

void Store::CopySlice(GetOperation& get, const GetSlice& slice) {
  GetTarget& target = get.targets[slice.target];
  // Slices of one target fail alike, or any failure of theirs will do.
  const auto fail = [&target](GetOutcome outcome) {
    std::atomic_ref<GetOutcome>(target.outcome).store(outcome);
  };
  if (get.cancelled) {
    return fail(GetOutcome::kCancelled);
  }
  if (clock_.Now() > get.deadline) {
    return fail(GetOutcome::kDeadline);
  }
  if (get.call.delivery == Delivery::kInPlace) {
    if (HashPayload({target.source, slice.bytes}) != target.checksum) {
      fail(GetOutcome::kCorrupt);
    }
    return;
  }
  std::vector<Piece> pieces;
  if (get.call.delivery == Delivery::kRegion) {
    PiecesOf(*target.region, target.region_block, slice.begin, slice.bytes, pieces);
  } else {
    pieces.push_back({get.result.payload.data() + target.inline_offset + slice.begin, slice.bytes});
  }
  const absl::Span<const char> source(target.source + slice.begin, slice.bytes);
  if (!slice.verify) {
    CopyOut(source, pieces);
  } else if (CopyOutAndHash(source, pieces) != target.checksum) {
    return fail(GetOutcome::kCorrupt);
  }
  if (target.region != nullptr && target.region->memory.failed()) {
    return fail(GetOutcome::kRegionFailed);
  }
  get.copied_bytes += slice.bytes;
}

void Store::FinishGetLocked(GetOperation& get, DeferredCalls& deferred) {
  Tenant& tenant = TenantOf(get.caller.tenant);
  if (get.call.delivery == Delivery::kInline) {
    ClosePayloadGaps(get);
  }
  if (get.call.delivery == Delivery::kInPlace) {
    DeliverInPlaceLocked(get);
  }
  for (GetTarget& target : get.targets) {
    // One that a lower tier found corrupt has no block here, and is counted already.
    if (target.outcome == GetOutcome::kCorrupt && target.block != kNoBlock) {
      ++counters_.corrupt;
      HideLocked(target.block);
    }
    if (target.outcome == GetOutcome::kRegionFailed && !get.regions.empty()) {
      for (const std::shared_ptr<Region>& region : get.regions) {
        if (region.get() == target.region && !region->counted_failed) {
          region->counted_failed = true;
          ++counters_.regions_failed;
        }
      }
    }
    if (target.locked) {
      UnlockBlockLocked(target.block);
      target.locked = false;
    }
    const bool ok = target.outcome == GetOutcome::kOk;
    get.result.outcomes[target.position] = static_cast<char>(target.outcome);
    get.result.payload_bytes[target.position] = ok ? target.payload_bytes : 0;
    ++counters_.get_outcomes[static_cast<size_t>(target.outcome)];
    ++(ok ? tenant.hits : tenant.misses);
    if (ok) {
      ++counters_.tier_hits[target.tier];
      (get.call.delivery == Delivery::kLease ? counters_.bytes_leased
                                             : counters_.bytes_copied_out) += target.payload_bytes;
    }
  }
  const uint64_t copied = get.copied_bytes.load();
  if (copied >= (uint64_t{1} << 20)) {
    const double seconds = absl::ToDoubleSeconds(clock_.Now() - get.copy_began);
    if (seconds > 0) {
      const double rate = static_cast<double>(copied) / seconds;
      read_rate_ = read_rate_ == 0 ? rate : 0.9 * read_rate_ + 0.1 * rate;
    }
  }
  EndOperationLocked(get, deferred);
  auto result = std::make_shared<GetResult>(std::move(get.result));
  deferred.Add([this, done = std::move(get.done), result] {
    done(std::move(*result));
    Lock lock(&mutex_);
    JobEndedLocked();
  });
}

}  // namespace terrace
