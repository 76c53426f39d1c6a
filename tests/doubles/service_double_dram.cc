// Slabs, slots, eviction, and the test verbs that move or damage blocks.
#include <algorithm>

#include "tests/doubles/service_double.h"

namespace terrace::doubles {
namespace {

constexpr size_t kSlotsPerSlab = 8;
constexpr uint64_t kHeaderBytes = 4096;

}  // namespace

char* ServiceDouble::Bytes(const SlotRef& ref) {
  return slabs_.at(ref.slab).memory->data() + OffsetOf(ref);
}

uint64_t ServiceDouble::OffsetOf(const SlotRef& ref) const {
  return ref.slot * slabs_.at(ref.slab).slot_bytes + kHeaderBytes;
}

uint64_t ServiceDouble::tenant_used_bytes(const std::string& tenant) const {
  uint64_t used = 0;
  for (const auto& [id, slab] : slabs_) {
    if (slab.tenant != tenant) {
      continue;
    }
    for (const Slot& slot : slab.slots) {
      used += slot.holds_block || slot.leases != 0 ? slab.slot_bytes : 0;
    }
  }
  return used;
}

uint64_t ServiceDouble::dram_used_bytes() const {
  std::set<std::string> tenants;
  for (const auto& [id, slab] : slabs_) {
    tenants.insert(slab.tenant);
  }
  uint64_t used = 0;
  for (const std::string& tenant : tenants) {
    used += tenant_used_bytes(tenant);
  }
  return used;
}

size_t ServiceDouble::leased_slot_count() const {
  size_t leased = 0;
  for (const auto& [id, slab] : slabs_) {
    leased += static_cast<size_t>(std::count_if(slab.slots.begin(), slab.slots.end(),
                                                [](const Slot& slot) { return slot.leases != 0; }));
  }
  return leased;
}

ServiceDouble::SlotRef ServiceDouble::TakeSlot(const std::string& tenant, uint64_t slot_bytes) {
  for (auto& [id, slab] : slabs_) {
    if (slab.tenant != tenant || slab.slot_bytes != slot_bytes) {
      continue;
    }
    for (uint32_t i = 0; i < slab.slots.size(); ++i) {
      if (!slab.slots[i].holds_block && slab.slots[i].leases == 0) {
        slab.slots[i].holds_block = true;
        return {id, i};
      }
    }
  }
  const uint32_t id = next_slab_++;
  Slab& slab = slabs_[id];
  slab.tenant = tenant;
  slab.slot_bytes = slot_bytes;
  slab.memory = std::make_shared<std::vector<char>>(slot_bytes * kSlotsPerSlab);
  slab.slots.resize(kSlotsPerSlab);
  slab.slots[0].holds_block = true;
  return {id, 0};
}

void ServiceDouble::FreeSlot(Block& block) {
  if (block.slot) {
    slabs_.at(block.slot->slab).slots[block.slot->slot].holds_block = false;
    block.slot.reset();
  }
}

bool ServiceDouble::IsHeld(const BlockName& name) const {
  return std::any_of(holds_.begin(), holds_.end(),
                     [&](const auto& hold) { return hold.second.names.contains(name); });
}

bool ServiceDouble::IsEvictable(const BlockName& name, const Block& block) const {
  return block.slot && block.touch != next_touch_ && !block.pinned_until && !IsHeld(name) &&
         slabs_.at(block.slot->slab).slots[block.slot->slot].leases == 0;
}

std::string ServiceDouble::StemOf(const BlockName& name) const {
  const auto it = namespaces_.find(name.namespace_digest);
  const size_t suffix = it == namespaces_.end() ? 0 : it->second.record.key_suffix().size();
  return name.key.substr(0, name.key.size() - std::min(suffix, name.key.size()));
}

bool ServiceDouble::EvictOne(const std::string& only_tenant) {
  const BlockName* victim = nullptr;
  const Block* victim_block = nullptr;
  for (const auto& [name, block] : blocks_) {
    if ((!only_tenant.empty() && block.tenant != only_tenant) || !IsEvictable(name, block)) {
      continue;
    }
    const bool sooner =
        victim == nullptr || block.touch < victim_block->touch ||
        (block.touch == victim_block->touch && block.first_token > victim_block->first_token);
    if (sooner) {
      victim = &name;
      victim_block = &block;
    }
  }
  if (victim == nullptr) {
    return false;
  }
  const std::string family = namespaces_.at(victim->namespace_digest).family;
  const std::string stem = StemOf(*victim);
  const std::string salt = victim->salt;
  std::vector<BlockName> together;
  for (const auto& [name, block] : blocks_) {
    const bool sibling = name.salt == salt &&
                         namespaces_.at(name.namespace_digest).family == family &&
                         StemOf(name) == stem;
    if (sibling && IsEvictable(name, block)) {
      together.push_back(name);
    }
  }
  for (const BlockName& name : together) {
    EvictBlock(name);
  }
  return true;
}

void ServiceDouble::EvictBlock(const BlockName& name) {
  Block& block = blocks_.at(name);
  if (!options_.local_tier) {
    Remove(name);
    return;
  }
  FreeSlot(block);
  block.level = std::max(block.level, v1::LEVEL_LOCAL_WRITTEN);
  Publish(name, block, v1::EVENT_KIND_MOVED, "g3");
}

bool ServiceDouble::MakeRoom(const std::string& tenant, uint64_t slot_bytes, v1::Reason* reason) {
  const uint64_t limit = tenants_[tenant].limit;
  while (limit != 0 && tenant_used_bytes(tenant) + slot_bytes > limit) {
    if (slot_bytes > limit || !EvictOne(tenant)) {
      *reason = v1::REASON_QUOTA;
      return false;
    }
  }
  while (dram_used_bytes() + slot_bytes > options_.dram_bytes) {
    if (slot_bytes > options_.dram_bytes || !EvictOne("")) {
      *reason = v1::REASON_NO_SPACE;
      return false;
    }
  }
  return true;
}

void ServiceDouble::Remove(const BlockName& name) {
  const auto it = blocks_.find(name);
  Publish(name, it->second, v1::EVENT_KIND_REMOVED, it->second.slot ? "g2" : "g3");
  const bool reading = it->second.arrives.has_value();
  FreeSlot(it->second);
  blocks_.erase(it);
  if (reading) {
    ReportToTickets(name, std::nullopt);
  }
}

bool ServiceDouble::MoveLower(const BlockName& name) {
  Settle();
  const auto it = blocks_.find(name);
  if (it == blocks_.end() || !options_.local_tier) {
    return false;
  }
  ++next_touch_;
  if (!IsEvictable(name, it->second)) {
    return false;
  }
  EvictBlock(name);
  return true;
}

bool ServiceDouble::Evict(const BlockName& name) {
  Settle();
  const auto it = blocks_.find(name);
  ++next_touch_;
  if (it == blocks_.end() || !IsEvictable(name, it->second)) {
    return false;
  }
  EvictBlock(name);
  return true;
}

bool ServiceDouble::Corrupt(const BlockName& name) {
  const auto it = blocks_.find(name);
  if (it == blocks_.end() || !it->second.slot) {
    return false;
  }
  Bytes(*it->second.slot)[it->second.payload.size() / 2] ^= 1;
  return true;
}

}  // namespace terrace::doubles
