// Probe, Prefetch, Ticket: what could be delivered, and reading it up from the lower tier.
#include <algorithm>

#include "absl/strings/str_cat.h"

#include "tests/doubles/request_limits.h"
#include "tests/doubles/service_double.h"

namespace terrace::doubles {
namespace {

constexpr absl::Duration kCountedOnceFor = absl::Seconds(60);
constexpr uint32_t kPrefetchMs = 10'000;
constexpr uint32_t kMaxPrefetchMs = 60'000;
constexpr uint32_t kMaxTicketWaitMs = 10'000;
constexpr uint64_t kDramBytesPerUs = 10'000;

bool IsHit(v1::KeyState state) {
  return state == v1::KEY_STATE_READY || state == v1::KEY_STATE_PENDING ||
         state == v1::KEY_STATE_LOWER;
}

}  // namespace

v1::KeyState ServiceDouble::StateOf(const BlockName& name, uint32_t* tier) const {
  *tier = 0;
  const auto it = blocks_.find(name);
  if (it == blocks_.end()) {
    return storing_.contains(name) ? v1::KEY_STATE_PENDING : v1::KEY_STATE_MISS;
  }
  if (it->second.slot) {
    return v1::KEY_STATE_READY;
  }
  *tier = 1;
  return it->second.arrives ? v1::KEY_STATE_PENDING : v1::KEY_STATE_LOWER;
}

absl::Status ServiceDouble::LookUp(const Caller& caller, const v1::Part& part, Looked* looked) {
  const Namespace* opened = OpenedBy(caller, part.namespace_digest());
  const uint32_t block_tokens = opened == nullptr ? 1 : opened->record.block_tokens();
  const bool ordered = part.rule() != v1::RULE_INDEPENDENT;
  if (ordered && block_tokens == 0) {
    return Invalid("parts.rule", "RULE_INDEPENDENT where block_tokens is 0");
  }
  looked->keys = SplitKeys(part);
  looked->ruled.rule = part.rule() == v1::RULE_UNSPECIFIED ? v1::RULE_PREFIX : part.rule();
  looked->ruled.first_token = part.first_token();
  looked->ruled.window_tokens = part.window_tokens();
  for (size_t i = 0; i < looked->keys.size(); ++i) {
    const std::string& key = looked->keys[i];
    looked->names.push_back(NameOf(part.namespace_digest(), part.salt(), key));
    uint32_t tier = 0;
    v1::KeyState state = v1::KEY_STATE_MISS;
    if (opened != nullptr) {
      const bool suffix_ok = key.ends_with(opened->record.key_suffix());
      state = suffix_ok ? StateOf(looked->names.back(), &tier) : v1::KEY_STATE_INVALID;
    }
    looked->states.push_back(state);
    looked->tiers.push_back(tier);
    looked->ruled.held.push_back(IsHit(state));
    const uint64_t end = part.end_tokens().empty()
                             ? part.first_token() + (i + 1) * uint64_t{block_tokens}
                             : part.end_tokens(static_cast<int>(i));
    looked->ruled.end_tokens.push_back(end);
  }
  return absl::OkStatus();
}

void ServiceDouble::CountProbe(const Caller& caller, const v1::ProbeRequest& request) {
  if (!request.request_id().empty()) {
    const auto key = std::make_pair(caller.tenant, request.request_id());
    const auto it = counted_.find(key);
    if (it != counted_.end() && it->second + kCountedOnceFor > clock_.Now()) {
      return;
    }
    counted_[key] = clock_.Now();
  }
  probed_keys_ += KeyCount(request.parts());
}

std::string ServiceDouble::GrantHold(const Caller& caller,
                                     const std::set<BlockName>& names,
                                     uint32_t hold_ms) {
  if (names.empty() || hold_ms == 0) {
    return "";
  }
  const std::string id = NewId();
  holds_[id] = {.tenant = caller.tenant,
                .session = caller.session,
                .until = clock_.Now() + absl::Milliseconds(std::min(hold_ms, kHoldMs)),
                .names = names,
                .from_arrival = {}};
  return id;
}

bool ServiceDouble::BeginRead(const BlockName& name) {
  const auto it = blocks_.find(name);
  if (it == blocks_.end() || it->second.slot) {
    return false;
  }
  if (!it->second.arrives) {
    it->second.arrives = clock_.Now() + options_.lower_read_time;
  }
  return true;
}

uint64_t ServiceDouble::OpenTicket(const Caller& caller,
                                   const std::set<BlockName>& moving,
                                   absl::Duration deadline) {
  if (moving.empty()) {
    return 0;
  }
  const uint64_t id = next_id_++;
  TicketRecord& ticket = tickets_[id];
  ticket.tenant = caller.tenant;
  ticket.deadline = deadline;
  ticket.waiting = moving;
  ticket.total = static_cast<uint32_t>(moving.size());
  return id;
}

void ServiceDouble::FillProbe(const std::vector<Looked>& parts,
                              uint64_t boundary,
                              v1::ProbeReply* reply) const {
  uint64_t dram_bytes = 0;
  absl::Duration longest_read;
  for (const Looked& part : parts) {
    bool missed = false;  // of a chain, what lies behind the first miss is not looked up
    for (size_t i = 0; i < part.states.size(); ++i) {
      missed = missed || (part.ruled.rule == v1::RULE_PREFIX && !part.ruled.held[i]);
      const bool hidden = missed && part.ruled.held[i];
      const uint32_t state =
          hidden ? 0U : static_cast<uint32_t>(part.states[i]) | (part.tiers[i] << 4);
      reply->mutable_states()->push_back(static_cast<char>(state));
    }
    reply->add_part_hits(CountHits(part.ruled));
    reply->add_part_boundary_keys(KeysUnder(part.ruled, boundary));
    for (size_t key = 0; key < KeysUnder(part.ruled, boundary); ++key) {
      const auto it = blocks_.find(part.names[key]);
      if (it == blocks_.end() || !part.ruled.held[key]) {
        continue;  // being stored, or a hole that the rule allows
      }
      dram_bytes += it->second.payload.size();
      if (!it->second.slot) {
        longest_read = std::max(
            longest_read,
            it->second.arrives.value_or(clock_.Now() + options_.lower_read_time) - clock_.Now());
      }
    }
  }
  reply->set_hit_bytes(dram_bytes);
  reply->set_load_us(static_cast<uint64_t>(absl::ToInt64Microseconds(longest_read)) +
                     dram_bytes / kDramBytesPerUs);
}

absl::Status ServiceDouble::Probe(const Caller& caller,
                                  const v1::ProbeRequest& request,
                                  v1::ProbeReply* reply) {
  if (absl::Status status = Admit(caller); !status.ok()) {
    return status;
  }
  if (absl::Status status = CheckProbe(request); !status.ok()) {
    return status;
  }
  if (request.hold_ms() != 0 && !Has(v1::FEATURE_HOLDS)) {
    return absl::UnimplementedError("hold_ms: not in the features");
  }
  if (request.prefetch() && !Has(v1::FEATURE_PREFETCH)) {
    return absl::UnimplementedError("prefetch: not in the features");
  }
  std::vector<Looked> parts(static_cast<size_t>(request.parts_size()));
  std::vector<RuledKeys> ruled;
  for (size_t p = 0; p < parts.size(); ++p) {
    if (absl::Status status = LookUp(caller, request.parts(static_cast<int>(p)), &parts[p]);
        !status.ok()) {
      return status;
    }
    ruled.push_back(parts[p].ruled);
  }
  CountProbe(caller, request);
  const uint64_t boundary = LargestLegalBoundary(ruled);
  std::set<BlockName> under;
  std::set<BlockName> moving;
  for (const Looked& part : parts) {
    for (size_t key = 0; key < KeysUnder(part.ruled, boundary); ++key) {
      const BlockName& name = part.names[key];
      if (!part.ruled.held[key]) {
        continue;  // a hole that the part's rule allows
      }
      under.insert(name);
      if (const auto it = blocks_.find(name); it != blocks_.end()) {
        it->second.touch = next_touch_;
      }
      if (request.prefetch() && BeginRead(name)) {
        moving.insert(name);
      }
    }
  }
  FillProbe(parts, boundary, reply);
  reply->set_boot_id(boot_id_);
  reply->set_boundary_tokens(boundary);
  reply->set_worth_tokens(boundary);  // it does not know what computing takes
  reply->set_hold_id(GrantHold(caller, under, request.hold_ms()));
  reply->set_hold_ms(reply->hold_id().empty() ? 0 : std::min(request.hold_ms(), kHoldMs));
  reply->set_ticket(OpenTicket(caller, moving, clock_.Now() + absl::Milliseconds(kPrefetchMs)));
  Settle();
  return absl::OkStatus();
}

absl::Status ServiceDouble::Prefetch(const Caller& caller,
                                     const v1::PrefetchRequest& request,
                                     v1::PrefetchReply* reply) {
  if (absl::Status status = Admit(caller); !status.ok()) {
    return status;
  }
  if (absl::Status status = Require(v1::FEATURE_PREFETCH, "Prefetch"); !status.ok()) {
    return status;
  }
  if (absl::Status status = CheckParts(request.parts()); !status.ok()) {
    return status;
  }
  if (!v1::Priority_IsValid(request.priority())) {
    return Invalid("priority", "a known value");
  }
  if (request.deadline_ms() > kMaxPrefetchMs) {
    return Invalid("deadline_ms", "at most 60000");
  }
  std::set<BlockName> all;
  std::set<BlockName> moving;
  uint32_t ready = 0;
  uint32_t missing = 0;
  for (const v1::Part& part : request.parts()) {
    Looked looked;
    if (absl::Status status = LookUp(caller, part, &looked); !status.ok()) {
      return status;
    }
    for (size_t i = 0; i < looked.names.size(); ++i) {
      ready += looked.states[i] == v1::KEY_STATE_READY ? 1 : 0;
      missing += looked.ruled.held[i] ? 0 : 1;
      if (looked.ruled.held[i]) {
        all.insert(looked.names[i]);
      }
      if (BeginRead(looked.names[i])) {
        moving.insert(looked.names[i]);
      }
    }
  }
  const uint32_t deadline_ms = request.deadline_ms() == 0 ? kPrefetchMs : request.deadline_ms();
  const absl::Duration deadline = clock_.Now() + absl::Milliseconds(deadline_ms);
  reply->set_boot_id(boot_id_);
  reply->set_ticket(OpenTicket(caller, moving, deadline));
  reply->set_keys_moving(static_cast<uint32_t>(moving.size()));
  reply->set_keys_ready(ready);
  reply->set_keys_missing(missing);
  reply->set_hold_id(GrantHold(caller, all, request.hold_ms()));
  if (!reply->hold_id().empty()) {
    Hold& hold = holds_[reply->hold_id()];
    const absl::Duration length = absl::Milliseconds(std::min(request.hold_ms(), kHoldMs));
    if (!moving.empty()) {
      hold.until = deadline + length;  // at the latest; arrival may only shorten it
    }
    for (const BlockName& name : moving) {
      hold.from_arrival[name] = length;
    }
  }
  Settle();
  return absl::OkStatus();
}

void ServiceDouble::ReportToTickets(const BlockName& name, std::optional<uint64_t> arrived_bytes) {
  for (auto& [id, ticket] : tickets_) {
    if (ticket.state != v1::TICKET_STATE_RUNNING || ticket.waiting.erase(name) == 0) {
      continue;
    }
    ticket.arrived += arrived_bytes ? 1 : 0;
    ticket.failed += arrived_bytes ? 0 : 1;
    ticket.bytes += arrived_bytes.value_or(0);
    if (ticket.waiting.empty()) {
      ticket.state = v1::TICKET_STATE_DONE;
      ticket.ended = clock_.Now();
    }
  }
}

void ServiceDouble::Arrive(const BlockName& name, Block& block) {
  const absl::Duration when = *block.arrives;
  v1::Reason reason = v1::REASON_NONE;
  block.touch = next_touch_;
  const bool room = MakeRoom(block.tenant, SlotBytes(block.payload.size()), &reason);
  block.arrives.reset();
  if (room) {
    block.slot = TakeSlot(block.tenant, SlotBytes(block.payload.size()));
    std::copy(block.payload.begin(), block.payload.end(), Bytes(*block.slot));
    Publish(name, block, v1::EVENT_KIND_MOVED, "g2");
  }
  for (auto& [id, hold] : holds_) {
    const auto it = hold.from_arrival.find(name);
    if (it == hold.from_arrival.end()) {
      continue;
    }
    const absl::Duration length = it->second;
    hold.from_arrival.erase(it);
    if (hold.from_arrival.empty()) {
      hold.until = when + length;
    }
  }
  ReportToTickets(name, room ? std::optional<uint64_t>(block.payload.size()) : std::nullopt);
}

absl::Status ServiceDouble::Ticket(const Caller& caller,
                                   const v1::TicketRequest& request,
                                   v1::TicketReply* reply) {
  if (absl::Status status = Admit(caller); !status.ok()) {
    return status;
  }
  if (request.wait_ms() > kMaxTicketWaitMs) {
    return Invalid("wait_ms", "at most 10000");
  }
  const auto it = tickets_.find(request.ticket());
  if (it == tickets_.end() || it->second.tenant != caller.tenant) {
    return absl::NotFoundError("ticket: unknown");
  }
  TicketRecord& ticket = it->second;
  const absl::Duration until = clock_.Now() + absl::Milliseconds(request.wait_ms());
  while (ticket.state == v1::TICKET_STATE_RUNNING && clock_.Now() < until) {
    absl::Duration next = std::min(until, ticket.deadline);
    for (const BlockName& name : ticket.waiting) {
      const auto block = blocks_.find(name);
      if (block != blocks_.end() && block->second.arrives) {
        next = std::min(next, *block->second.arrives);
      }
    }
    WaitUntil(next);
  }
  reply->set_boot_id(boot_id_);
  reply->set_state(ticket.state);
  reply->set_keys_total(ticket.total);
  reply->set_keys_arrived(ticket.arrived);
  reply->set_keys_failed(ticket.failed);
  reply->set_bytes_arrived(ticket.bytes);
  return absl::OkStatus();
}

}  // namespace terrace::doubles
