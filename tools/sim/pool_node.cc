#include "tools/sim/pool_node.h"

#include <cstddef>
#include <optional>

#include "absl/status/statusor.h"

#include "tiers/segment/payload_hash.h"
#include "tiers/vocab/check.h"
#include "tools/sim/seeded_numbers.h"

namespace terrace::sim {
namespace {

constexpr size_t kKeyBytes = 32;
constexpr uint64_t kHeaderBytes = 4096;
// Nothing here takes time that is not waiting for a tick.
constexpr absl::Duration kDeadline = absl::Minutes(5);

uint64_t Padded(uint64_t bytes) {
  return (bytes + kHeaderBytes - 1) / kHeaderBytes * kHeaderBytes;
}

BlockIdentity IdentityOf(const std::string& key) {
  return {Digest128{1, 2}, 1, "", key};
}

}  // namespace

std::string BlockName::Key() const {
  SeededNumbers numbers(uint64_t{node} << 32 | number);
  std::string key;
  while (key.size() < kKeyBytes) {
    const uint64_t word = numbers.Next();
    key.append(reinterpret_cast<const char*>(&word), sizeof(word));
  }
  return key;
}

ZeroBlock::ZeroBlock(uint32_t payload_bytes)
    : slot_(kHeaderBytes + Padded(payload_bytes)),
      payload_bytes_(payload_bytes),
      checksum_(PayloadChecksum(slot_.span().subspan(kHeaderBytes, payload_bytes))) {}

absl::Status PoolNode::Start() {
  SharedTierParts parts;
  parts.files = &files_;
  parts.clock = room_.clock;
  parts.hashing = &executor_;
  parts.maintenance = &executor_;
  absl::StatusOr<std::unique_ptr<SharedTier>> opened = OpenSharedTier(options_, parts);
  if (!opened.ok()) {
    return opened.status();
  }
  tier_ = *std::move(opened);
  return absl::OkStatus();
}

void PoolNode::Tick() {
  tier_->Tick();
  executor_.RunAll();
}

void PoolNode::Kill() {
  if (tier_ == nullptr) {
    return;
  }
  files_.Stop();
  executor_.RunAll();  // whatever waits for the mount is told
  tier_.reset();
  executor_.RunAll();
}

void PoolNode::Publish(const BlockName& name, std::function<void(WriteOutcome)> done) {
  const std::string key = name.Key();
  WriteRequest request;
  request.identity = IdentityOf(key);
  request.slot = room_.block->slot();
  request.payload_bytes = room_.block->payload_bytes();
  request.checksum = room_.block->checksum();
  request.deadline = room_.clock->Now() + kDeadline;
  tier_->Publish(
      request, [] {}, std::move(done));
  executor_.RunAll();
}

bool PoolNode::Finds(const BlockName& name) const {
  LowerBlock found;
  return tier_->Lookup(IdentityOf(name.Key()), &found);
}

ReadOutcome PoolNode::Read(const BlockName& name) {
  const std::string key = name.Key();
  LowerTier::ReadRequest request;
  request.identity = IdentityOf(key);
  if (!tier_->Lookup(request.identity, &request.block)) {
    return ReadOutcome::kGone;
  }
  AlignedBuffer slot = room_.shelf->Take(kHeaderBytes + Padded(request.block.payload_bytes));
  request.destination = slot.span().subspan(kHeaderBytes);
  request.header_page_in_front = true;
  request.deadline = room_.clock->Now() + kDeadline;
  std::optional<ReadOutcome> outcome;
  files_.ReadsBlocks(true);
  tier_->Read(request, [&outcome](ReadOutcome ended) { outcome = ended; });
  executor_.RunAll();
  files_.ReadsBlocks(false);
  room_.shelf->Return(std::move(slot));
  TERRACE_CHECK(outcome.has_value());  // its files answer at once
  return *outcome;
}

}  // namespace terrace::sim
