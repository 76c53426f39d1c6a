#include "daemon/store/expected_returns.h"

#include <algorithm>
#include <utility>

namespace terrace {
namespace {

constexpr double kNewShare = 0.01;  // of an eviction in the average
// Bounds of a call, as the store's lock is held. Who is passed over for the nearest is farther away
// than they are, and taken when they are gone; who is late is dropped by a later call.
constexpr int kLooks = 64;
constexpr uint64_t kDrops = 1024;

uint64_t BytesOf(const StorePart& chain) {
  return ExpectedReturns::kOwnBytes + chain.keys.size() + chain.salt.size();
}

}  // namespace

bool ExpectedReturns::Expect(
    uint64_t last, TenantId tenant, StorePart chain, absl::Duration now, absl::Duration in) {
  Forget(last);
  const uint64_t bytes = BytesOf(chain);
  const auto mine = tenant_bytes_.find(tenant);
  const uint64_t before = mine == tenant_bytes_.end() ? 0 : mine->second;
  if (before + bytes > kTenantBytes || bytes_ + bytes > kAllBytes) {
    return false;
  }
  const absl::Duration lead = std::clamp(in / 4, kLeastLead, kMostLead);
  const absl::Duration at = now + in;
  order_.emplace(at, last);
  returns_[last] = {tenant, std::move(chain), at, lead};
  tenant_bytes_[tenant] = before + bytes;
  bytes_ += bytes;
  return true;
}

ExpectedReturns::Return ExpectedReturns::Take(uint64_t last) {
  const auto found = returns_.find(last);
  Return taken = std::move(found->second);
  returns_.erase(found);
  order_.erase({taken.at, last});
  const uint64_t bytes = BytesOf(taken.chain);
  bytes_ -= bytes;
  const auto mine = tenant_bytes_.find(taken.tenant);
  mine->second -= bytes;
  if (mine->second == 0) {
    tenant_bytes_.erase(mine);
  }
  return taken;
}

bool ExpectedReturns::Forget(uint64_t last) {
  const bool is_expected = returns_.contains(last);
  if (is_expected) {
    Take(last);
  }
  return is_expected;
}

uint64_t ExpectedReturns::DropLate(absl::Duration now) {
  uint64_t dropped = 0;
  // Leads differ, so that one behind those that are not late may be; it goes in its turn.
  while (!order_.empty() && dropped < kDrops) {
    const uint64_t first = order_.begin()->second;
    const Return& due = returns_.at(first);
    if (due.at + due.lead >= now) {
      break;
    }
    Take(first);
    ++dropped;
  }
  return dropped;
}

void ExpectedReturns::NoteEvicted(absl::Duration unused) {
  stay_ = stay_ == absl::InfiniteDuration() ? unused : (1 - kNewShare) * stay_ + kNewShare * unused;
}

absl::Duration ExpectedReturns::LeadOf(const Return& due) const {
  return std::min(due.lead, std::max(kStayShare * stay_, kLeastShortLead));
}

std::optional<ExpectedReturns::Return> ExpectedReturns::TakeDue(absl::Duration now) {
  int looks = 0;
  for (const auto& [at, last] : order_) {
    if (at - kMostLead > now || ++looks > kLooks) {
      break;
    }
    if (at - LeadOf(returns_.at(last)) <= now) {
      return Take(last);
    }
  }
  return std::nullopt;
}

}  // namespace terrace
