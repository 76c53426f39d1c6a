#include "tiers/placement/local_pool.h"

#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"

#include "tiers/vocab/check.h"

namespace terrace {
namespace {

class LocalPool final : public LocalContents {
 public:
  LocalPool(std::string_view policy, uint64_t capacity_blocks) : capacity_(capacity_blocks) {
    auto made = MakeEvictionPolicy(policy, recency_);
    TERRACE_CHECK(made.ok() && capacity_blocks > 0);
    policy_ = *std::move(made);
  }

  void Begin(absl::Duration now,
             absl::Span<const uint64_t> chain,
             const RequestHints& hints) override {
    if (!policy_->learns()) {
      return;
    }
    std::vector<BlockId> resident;
    for (const uint64_t name : chain) {
      const auto found = ids_.find(name);
      if (found == ids_.end()) {
        break;
      }
      resident.push_back(found->second);
    }
    policy_->Use({now, chain, resident, hints});
    GrowthTicket ticket = policy_->Extend({now, kNoBlock, chain, hints});
    for (const uint64_t name : chain) {
      tickets_[name] = ticket;
      ++ticket.depth;
    }
  }

  [[nodiscard]] bool Holds(uint64_t name) const override { return ids_.contains(name); }

  bool NoteUse(uint64_t name) override {
    const auto found = ids_.find(name);
    if (found == ids_.end()) {
      return false;
    }
    policy_->Touch({&found->second, 1});
    return true;
  }

  void NoteReads(absl::Span<const uint64_t> names) override {
    std::vector<BlockId> chain;
    for (const uint64_t name : names) {
      chain.push_back(ids_.at(name));
    }
    policy_->Touch(chain);
  }

  void Append(uint64_t name) override {
    TERRACE_CHECK(!Holds(name));
    ++counts_.appended;
    const auto ticket = tickets_.find(name);
    const Newcomer newcomer{kNoBlock, name,
                            ticket == tickets_.end() ? GrowthTicket{} : ticket->second};
    BlockId id{static_cast<uint32_t>(names_.size())};
    if (policy_->resident() == capacity_) {
      id = policy_->Victim();
      ++counts_.dropped;
      if (!policy_->Admits(newcomer)) {
        return;
      }
      policy_->Remove(id);
      ids_.erase(names_[static_cast<uint32_t>(id)]);
      names_[static_cast<uint32_t>(id)] = name;
    } else {
      names_.push_back(name);
    }
    ids_.emplace(name, id);
    policy_->Insert(id, newcomer);
    policy_->Touch({&id, 1});
  }

  void ForgetUse() override {}

  [[nodiscard]] const Counts& counts() const override { return counts_; }

 private:
  const uint64_t capacity_;
  RecencySource recency_;
  std::unique_ptr<EvictionPolicy> policy_;
  absl::flat_hash_map<uint64_t, BlockId> ids_;
  std::vector<uint64_t> names_;                          // by id
  absl::flat_hash_map<uint64_t, GrowthTicket> tickets_;  // of all that was ever asked for
  Counts counts_;
};

}  // namespace

std::unique_ptr<LocalContents> MakeLocalPool(std::string_view policy, uint64_t capacity_blocks) {
  return std::make_unique<LocalPool>(policy, capacity_blocks);
}

}  // namespace terrace
