// Chains that will be asked for again at a known time: which are due, within bounds.
//
// A return is due from its lead before its time on, and late as long after it; but what is read so
// early that it would be evicted before it is used is read in vain, so that it is not due before a
// share of the time that blocks stay in DRAM unused. It is kept by the name of its chain's last
// block, so that a chain that grows can end what was expected of its shorter self. A tenant's
// returns take at most kTenantBytes of keys, all together kAllBytes.
//
// Thread-compatible: confined to the store's lock.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"

#include "daemon/block_store.h"

namespace terrace {

class ExpectedReturns {
 public:
  static constexpr uint64_t kTenantBytes = uint64_t{4} << 20;
  static constexpr uint64_t kAllBytes = uint64_t{32} << 20;
  // What a return takes beside its keys.
  static constexpr uint64_t kOwnBytes = 256;
  // A quarter of the time until then, within these.
  static constexpr absl::Duration kLeastLead = absl::Seconds(1);
  static constexpr absl::Duration kMostLead = absl::Seconds(10);

  // The most, of the time that blocks stay unused; at least kLeastShortLead.
  static constexpr double kStayShare = 0.25;
  static constexpr absl::Duration kLeastShortLead = absl::Milliseconds(200);

  struct Return {
    TenantId tenant{0};
    StorePart chain;  // PREFIX, from the first block on
    absl::Duration at;
    absl::Duration lead;
  };

  // `in`, from `now` on, somebody asks for the chain whose last block has this name; in place of
  // what was expected of it. False: there is no room for it.
  bool Expect(
      uint64_t last, TenantId tenant, StorePart chain, absl::Duration now, absl::Duration in);
  // False: nothing was expected of it.
  bool Forget(uint64_t last);
  // A block has been evicted for another that had not been used for so long.
  void NoteEvicted(absl::Duration unused);
  // Those that are late are dropped, so many at a time. How many.
  uint64_t DropLate(absl::Duration now);
  // One that is due, the nearest of all or of the next few; it is not expected any more.
  std::optional<Return> TakeDue(absl::Duration now);

  [[nodiscard]] bool empty() const { return returns_.empty(); }
  [[nodiscard]] size_t size() const { return returns_.size(); }
  [[nodiscard]] uint64_t bytes() const { return bytes_; }

 private:
  Return Take(uint64_t last);
  [[nodiscard]] absl::Duration LeadOf(const Return& due) const;

  absl::flat_hash_map<uint64_t, Return> returns_;
  std::set<std::pair<absl::Duration, uint64_t>> order_;  // by their times
  absl::flat_hash_map<TenantId, uint64_t> tenant_bytes_;
  uint64_t bytes_ = 0;
  absl::Duration stay_ = absl::InfiniteDuration();  // average; infinite: none was evicted yet
};

}  // namespace terrace
