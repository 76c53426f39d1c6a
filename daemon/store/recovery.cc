// What an earlier life left, put back into a store that nobody uses yet.
#include <algorithm>
#include <utility>

#include "daemon/store/store.h"

namespace terrace {
namespace {

// Parents before children, else as they became ready.
std::vector<uint32_t> InOrder(const std::vector<DirectoryBlock>& blocks) {
  absl::flat_hash_map<uint64_t, uint32_t> by_sequence;
  by_sequence.reserve(blocks.size());
  for (uint32_t i = 0; i < blocks.size(); ++i) {
    by_sequence.emplace(blocks[i].entry.sequence, i);
  }
  std::vector<uint32_t> order;
  order.reserve(blocks.size());
  std::vector<bool> seen(blocks.size(), false);
  std::vector<uint32_t> ancestors;
  for (uint32_t i = 0; i < blocks.size(); ++i) {
    uint32_t at = i;
    while (!seen[at]) {
      seen[at] = true;
      ancestors.push_back(at);
      const auto parent = by_sequence.find(blocks[at].entry.parent_sequence);
      if (parent == by_sequence.end()) {
        break;
      }
      at = parent->second;
    }
    order.insert(order.end(), ancestors.rbegin(), ancestors.rend());
    ancestors.clear();
  }
  return order;
}

// Those with the newest blocks first: they stay where not all fit.
std::vector<uint32_t> NewestFirst(const DirectoryContent& content) {
  std::vector<uint64_t> newest(content.slabs.size(), 0);
  for (const DirectoryBlock& block : content.blocks) {
    newest[block.slab] = std::max(newest[block.slab], block.entry.sequence);
  }
  std::vector<uint32_t> order(content.slabs.size());
  for (uint32_t i = 0; i < order.size(); ++i) {
    order[i] = i;
  }
  std::sort(order.begin(), order.end(),
            [&newest](uint32_t a, uint32_t b) { return newest[a] > newest[b]; });
  return order;
}

}  // namespace

class Store::Recovery {
 public:
  explicit Recovery(Store& store) : store_(store) {}

  void TakeOver(KeptDram kept) ABSL_LOCKS_EXCLUDED(store_.mutex_);

 private:
  std::vector<std::optional<NamespaceId>> RecoverNamespaces(const KeptDram& kept)
      ABSL_LOCKS_EXCLUDED(store_.mutex_);
  // `slabs`: one a slab of the content, 0 where it is not taken over.
  void RecoverSlabsLocked(KeptDram& kept, std::vector<SlabId>& slabs)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(store_.mutex_);
  void RecoverBlocksLocked(const DirectoryContent& content,
                           absl::Span<const std::optional<NamespaceId>> namespaces,
                           absl::Span<const SlabId> slabs)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(store_.mutex_);
  // kNoBlock: it is not to be had again.
  BlockId RecoverBlockLocked(const DirectoryBlock& kept, ScopeId scope, SlabId slab, BlockId parent)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(store_.mutex_);
  void TouchRecoveredLocked(absl::Span<const BlockId> blocks)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(store_.mutex_);

  Store& store_;
};

void Store::RecoverKept() {
  if (keeper_ == nullptr) {
    return;
  }
  KeptDram kept = keeper_->Take();
  if (kept.fresh.empty()) {
    return;
  }
  Recovery(*this).TakeOver(std::move(kept));
}

void Store::Recovery::TakeOver(KeptDram kept) {
  const std::vector<std::optional<NamespaceId>> namespaces = RecoverNamespaces(kept);
  DeferredCalls deferred;
  Lock lock(&store_.mutex_);
  store_.keep_.directory = std::make_unique<SlabDirectory>(kept.fresh, kept.geometry, kept.life,
                                                           kept.content.next_serial);
  std::vector<SlabId> slabs(kept.content.slabs.size(), SlabId{0});
  RecoverSlabsLocked(kept, slabs);
  RecoverBlocksLocked(kept.content, namespaces, slabs);
  // What only clients of the last life may still read is charged and never given out.
  for (const SlabId id : slabs) {
    if (id != SlabId{0} && store_.arena_->View(id)->used_slots == 0) {
      store_.RetireSlabLocked(*store_.arena_->View(id), deferred);
    }
  }
}

std::vector<std::optional<NamespaceId>> Store::Recovery::RecoverNamespaces(const KeptDram& kept) {
  const DirectoryContent& content = kept.content;
  std::vector<std::optional<NamespaceId>> out(content.namespaces.size());
  std::vector<bool> wanted(content.namespaces.size(), false);
  for (const DirectoryBlock& block : content.blocks) {
    const uint32_t ns = content.scopes[block.entry.scope]->ns;
    if (ns < wanted.size() && kept.memory[block.slab] != nullptr) {
      wanted[ns] = true;
    }
  }
  for (size_t i = 0; i < out.size(); ++i) {
    const std::optional<DirectoryNamespace>& noted = content.namespaces[i];
    const absl::StatusOr<OwnedRecord> owned =
        noted.has_value() ? DecodeRecord(noted->record) : absl::NotFoundError("");
    if (!owned.ok() || IsPrivate(owned->record)) {
      continue;
    }
    const Digest128 digest = DigestOf(owned->record, owned->tenant);
    if (noted->generation > 1) {
      Lock lock(&store_.mutex_);
      const uint64_t before = store_.KnownGenerationLocked(digest);
      const uint64_t known = store_.RaiseHereLocked(digest, noted->generation);
      if (known != before && store_.local_ != nullptr) {
        store_.generations_.unnoted[digest] = known;
      }
    }
    const absl::StatusOr<TenantId> tenant =
        wanted[i] ? store_.OpenTenant(owned->tenant) : absl::NotFoundError("");
    if (tenant.ok() && store_.OpenNamespace(Caller{*tenant, kNoSession}, owned->record).ok()) {
      Lock lock(&store_.mutex_);
      out[i] = store_.TenantOf(*tenant).namespaces.at(digest);
    }
  }
  return out;
}

void Store::Recovery::RecoverSlabsLocked(KeptDram& kept, std::vector<SlabId>& slabs) {
  std::vector<uint32_t> blocks(kept.content.slabs.size(), 0);
  for (const DirectoryBlock& block : kept.content.blocks) {
    ++blocks[block.slab];
  }
  for (const uint32_t i : NewestFirst(kept.content)) {
    DirectorySlab slab = kept.content.slabs[i];
    const auto tenant = store_.tenant_ids_.find(slab.tenant);
    std::unique_ptr<SlabMemory>& memory = kept.memory[i];
    if (memory == nullptr || tenant == store_.tenant_ids_.end() ||
        (blocks[i] == 0 && slab.leases == 0) || memory->memory().size() != slab.bytes ||
        slab.bytes > store_.arena_->HeadroomBytes()) {
      continue;
    }
    const bool held = std::exchange(slab.leases, 0) > 0;
    const uint32_t index = store_.keep_.directory->AddSlab(slab);
    if (index == SlabDirectory::kNone) {
      continue;
    }
    store_.page_kind_ = memory->page_kind();
    const SlabId id =
        store_.arena_->InstallKept(std::move(memory), tenant->second, slab.slot_bytes);
    store_.keeper_->SlabInUse(slab.serial, store_.arena_->Find(id)->descriptor());
    store_.keep_.slabs[id] = index;
    if (held) {
      store_.keep_.held.insert(id);
      ++store_.slab_mappings_[id];  // that nobody here can end
    }
    slabs[i] = id;
    ++store_.keep_.recovered_slabs;
  }
}

void Store::Recovery::RecoverBlocksLocked(const DirectoryContent& content,
                                          absl::Span<const std::optional<NamespaceId>> namespaces,
                                          absl::Span<const SlabId> slabs) {
  std::vector<std::optional<ScopeId>> scopes(content.scopes.size());
  absl::flat_hash_map<uint64_t, BlockId> by_sequence;
  std::vector<BlockId> recovered;
  for (const uint32_t i : InOrder(content.blocks)) {
    const DirectoryBlock& block = content.blocks[i];
    const DirectoryScope& kept = *content.scopes[block.entry.scope];
    const SlabId slab = slabs[block.slab];
    const bool named = kept.ns < namespaces.size() && namespaces[kept.ns].has_value();
    if (slab == SlabId{0} || !named) {
      continue;
    }
    const Namespace& ns = *store_.namespaces_[static_cast<uint32_t>(*namespaces[kept.ns])];
    std::optional<ScopeId>& scope = scopes[block.entry.scope];
    if (!scope.has_value() && kept.generation == ns.generation) {
      StorePart part;
      part.namespace_digest = ns.digest;
      part.salt = kept.salt;
      scope = store_.UseScopeLocked(ns.tenant, part);
    }
    const auto parent = by_sequence.find(block.entry.parent_sequence);
    const BlockId id =
        scope.has_value()
            ? RecoverBlockLocked(block, *scope, slab,
                                 parent == by_sequence.end() ? kNoBlock : parent->second)
            : kNoBlock;
    if (id != kNoBlock) {
      by_sequence.emplace(block.entry.sequence, id);
      recovered.push_back(id);
      store_.keep_.recovered_bytes += block.entry.payload_bytes;
    }
  }
  store_.keep_.recovered_blocks = recovered.size();
  store_.keep_.dropped_blocks = content.blocks.size() - recovered.size() + content.damaged;
  TouchRecoveredLocked(recovered);
  for (const std::optional<ScopeId>& scope : scopes) {
    if (scope.has_value()) {
      store_.UnuseScopeLocked(*scope);
    }
  }
}

BlockId Store::Recovery::RecoverBlockLocked(const DirectoryBlock& kept,
                                            ScopeId scope,
                                            SlabId slab,
                                            BlockId parent) {
  const DirectoryEntry& entry = kept.entry;
  const SlabView view = *store_.arena_->View(slab);
  const Namespace& ns = store_.NamespaceOf(scope);
  if (ns.tenant != view.tenant || entry.payload_bytes == 0 ||
      entry.payload_bytes > ns.record.block_bytes ||
      SlotBytesFor(entry.payload_bytes) != view.slot_bytes ||
      store_.index_.Find(scope, entry.key) != kNoBlock ||
      !store_.arena_->TakeKept({slab, kept.slot})) {
    return kNoBlock;
  }
  const BlockId id = store_.blocks_.Add(scope, entry.key);
  ++store_.scopes_[static_cast<uint32_t>(scope)].users;
  Block& block = store_.blocks_.at(id);
  block.payload_bytes = entry.payload_bytes;
  block.first_token = entry.first_token;
  block.checksum = entry.checksum;
  block.unverified = 1;
  if (parent != kNoBlock && store_.blocks_.at(parent).scope == scope) {
    block.parent = parent;
    block.parent_serial = store_.blocks_.at(parent).serial;
  }
  block.pool = store_.PoolForLocked(ns.tenant, view.slot_bytes);
  store_.AttachSlotLocked(id, {slab, kept.slot});
  store_.index_.Insert(id);
  store_.EnterReadyLocked(id, {});
  return id;
}

// As their puts did, chain by chain.
void Store::Recovery::TouchRecoveredLocked(absl::Span<const BlockId> blocks) {
  size_t begin = 0;
  for (size_t i = 1; i <= blocks.size(); ++i) {
    if (i < blocks.size() && store_.blocks_.at(blocks[i]).parent == blocks[i - 1] &&
        store_.blocks_.at(blocks[i]).pool == store_.blocks_.at(blocks[i - 1]).pool) {
      continue;
    }
    store_.pools_[store_.blocks_.at(blocks[begin]).pool]->policy->Touch(
        blocks.subspan(begin, i - begin));
    begin = i;
  }
}

}  // namespace terrace
