// Client: deadlines, waiting and completions.
#include <poll.h>

#include <algorithm>
#include <new>
#include <utility>

#include "client/src/client.h"

namespace terrace::client {
namespace {

// How long a daemon that owes an answer may say nothing before calls stop waiting for it.
constexpr int64_t kSilenceNs = 1000 * kNsPerMs;
constexpr int64_t kPopulateNs = 20 * kNsPerMs;
// Waits for something other than a completion look again this often: another thread may have read
// what they wait for.
constexpr int64_t kSliceNs = 5 * kNsPerMs;
// A copy of 2 MiB takes 100 to 200 us, where an answer without one takes 10.
constexpr int64_t kSpinsForCopy = 3;

}  // namespace

uint32_t Client::Drain(terrace_completion** out, uint32_t max, uint32_t timeout_ms) {
  if (!SameProcess()) {
    return 0;
  }
  uint32_t taken = 0;
  std::vector<SlabPtr> mapped;
  std::unique_lock<std::mutex> lock(mutex_);
  Instant now = Now();
  const Instant until = now + int64_t{timeout_ms} * kNsPerMs;
  for (;;) {
    AdvanceLocked(now);
    for (; taken < max && !ready_.empty(); ++taken) {
      out[taken] = ready_.Pop().release();
    }
    if (taken > 0 || max == 0 || now >= until) {
      break;
    }
    ++waiters_;
    SettleLocked();
    WaitLocked(&lock, now, std::min(until, NextWakeLocked()));
    --waiters_;
    now = Now();
  }
  SettleLocked();
  mapped.swap(to_populate_);
  lock.unlock();
  int64_t budget_ns = kPopulateNs;
  for (const SlabPtr& slab : mapped) {
    slab->Populate(&budget_ns);
  }
  return taken;
}

// Until there is something to do; the lock is given back meanwhile.
void Client::WaitLocked(std::unique_lock<std::mutex>* lock, Instant now, Instant until) {
  // A lone copy of a block or two is over soon; while more are copied the cores are needed.
  const bool copies = copying_calls_ > 0;
  const Instant spin = int64_t{options_.spin_us} * kNsPerUs;
  const Instant spin_until = std::min(until, now + spin * (copies ? kSpinsForCopy : 1));
  Patience& patience = copies ? patience_with_copies_ : patience_;
  // One thread at most polls, the others sleep.
  const bool polls = spin_until > now && waiters_ == 1 && (!copies || callers_in_flight_ == 1) &&
                     patience.PollsNow(now);
  lock->unlock();
  const Patience::End end = polls ? wakeup_.Poll(spin_until) : Patience::End::kWasted;
  if (end != Patience::End::kPaid) {
    wakeup_.Wait(MillisecondsUntil(until, polls ? spin_until : now));
  }
  lock->lock();
  if (polls) {
    patience.Ended(end, Now());
  }
}

void Client::AdvanceLocked(Instant now) {
  try {
    wakeup_.ClearTimer(now);
    if (parted_.Any()) {
      parted_.HearOut(&wakeup_);
    }
    EnsureConnectedLocked(now);
    if (link_.connected() && !lost_) {
      // First, so that what a dying daemon still said is not lost with the first failed send.
      ReceiveLocked(now);
      if (!lost_ && link_.backlog_bytes() > 0 && !link_.Flush()) {
        GiveUpSendingLocked();
      }
    }
    if (now >= next_expiry_) {
      ExpireLocked(now);
    }
    if (outlived_calls_ > 0 || watches_workers_) {
      EndOutlivedLocked();
    }
    if (now >= register_again_at_) {
      RegisterAgainLocked(now);
    }
    if (now >= owed_at_) {
      RetryOwedLocked(now);
    }
  } catch (const std::bad_alloc&) {
    GiveUpLocked("no memory");
  }
  if (lost_) {
    LoseLocked(now);
  }
}

void Client::ExpireLocked(Instant now) {
  std::vector<uint64_t> due;
  next_expiry_ = kNever;
  for (const auto& [id, call] : calls_) {
    if (call.deadline <= now) {
      due.push_back(id);
    } else {
      next_expiry_ = std::min(next_expiry_, call.deadline);
    }
  }
  std::sort(due.begin(), due.end());
  const Instant next = next_expiry_;
  for (const uint64_t id : due) {
    ExpireCallLocked(id, TakeCallLocked(calls_.find(id)), now);
  }
  next_expiry_ = next;
}

void Client::ExpireCallLocked(uint64_t id, Call call, Instant now) {
  FailLocked(&call, TERRACE_DEADLINE_EXCEEDED, "no answer within the deadline");
  if (call.stage == Stage::kWaitingForSlabs) {
    ReleaseLateLocked(call.reply);
  }
  constexpr unsigned kCancelFeature = 13;
  if (call.stage == Stage::kSent && !call.regions.empty() &&
      (server_.features >> kCancelFeature & 1U) != 0) {
    // The daemon may still copy; this makes it stop soon.
    Request cancel;
    cancel.method = Method::kCancel;
    cancel.target_call_id = id;
    std::string message;
    EncodeRequest(cancel, &message, &missing_);
    SendOwnLocked(Method::kCancel, Call{}, message, -1);
  }
  if (!silent_ && owes_since_ != kNever && now - owes_since_ >= kSilenceNs) {
    silent_ = true;
    SendOwnLocked(Method::kPing, Call{}, {}, -1);
  }
}

void Client::RetryOwedLocked(Instant) {
  owed_at_ = kNever;
  if (!greeted_) {
    return;
  }
  const std::string leases = std::exchange(owed_leases_, {});
  const std::string holds = std::exchange(owed_holds_, {});
  SendReleasesLocked(leases, holds);
}

Instant Client::NextWakeLocked() const {
  Instant next = std::min({next_expiry_, owed_at_, register_again_at_});
  if (!link_.connected() && !parted_.Full()) {
    next = std::min(next, next_attempt_);
  }
  return next;
}

void Client::SettleLocked() {
  if (lost_) {
    LoseLocked(Now());
  }
  if (link_.connected()) {
    wakeup_.WatchWritable(link_.fd(), link_.backlog_bytes() > 0);
  }
  // Whoever waits or watches is told of what others left for them and of earlier deadlines.
  const bool seen = watched_ || waiters_ > 0;
  wakeup_.SetSignal(seen && !ready_.empty());
  if (seen) {
    wakeup_.ArmTimer(std::min({next_expiry_, owed_at_, register_again_at_}));
  }
}

void Client::WaitInSlice(std::unique_lock<std::mutex>* lock, Instant until) {
  SettleLocked();
  const Instant now = Now();
  pollfd readable{link_.fd(), POLLIN, 0};
  const int wait_ms = MillisecondsUntil(std::min({until, NextWakeLocked(), now + kSliceNs}), now);
  lock->unlock();
  ::poll(&readable, 1, wait_ms);
  lock->lock();
  AdvanceLocked(Now());
}

int Client::EventDescriptor() {
  if (!SameProcess()) {
    return -1;
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  watched_ = true;
  SettleLocked();
  return wakeup_.fd();
}

Verdict Client::WaitConnected(uint32_t timeout_ms) {
  if (!SameProcess()) {
    return {TERRACE_FAILED_PRECONDITION, "a child of fork must open a client of its own"};
  }
  std::unique_lock<std::mutex> lock(mutex_);
  const Instant until = Now() + int64_t{timeout_ms} * kNsPerMs;
  AdvanceLocked(Now());
  // What a dead daemon still said may hide its end from the first look.
  AdvanceLocked(Now());
  while (!greeted_) {
    if (Now() >= until) {
      SettleLocked();
      return {TERRACE_DEADLINE_EXCEEDED, std::string("no session yet: ") + trouble_.data()};
    }
    WaitInSlice(&lock, until);
  }
  SettleLocked();
  return {};
}

terrace_client_state Client::State() {
  const std::lock_guard<std::mutex> lock(mutex_);
  terrace_client_state state{};
  state.struct_bytes = sizeof(state);
  if (link_.connected()) {
    state.connection = !greeted_   ? TERRACE_CONNECTION_CONNECTING
                       : draining_ ? TERRACE_CONNECTION_DRAINING
                                   : TERRACE_CONNECTION_UP;
  }
  state.boot_id = boot_id_;
  state.reconnects = static_cast<uint32_t>(sessions_ > 0 ? sessions_ - 1 : 0);
  state.calls_in_flight = callers_in_flight_;
  state.features = greeted_ ? server_.features : 0;
  state.leased_bytes = leases_.leased_bytes();
  state.lease_limit_bytes = greeted_ ? server_.lease_limit_bytes : 0;
  state.mapped_bytes = all_slabs_.mapped_bytes.load(std::memory_order_relaxed);
  state.leases_allowed = greeted_ && server_.leases ? 1 : 0;
  return state;
}

}  // namespace terrace::client
