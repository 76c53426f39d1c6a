#include "client/src/client.h"

#include <poll.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <random>
#include <utility>

namespace terrace::client {
namespace {

constexpr int64_t kCloseNs = 100 * kNsPerMs;

// Numbers of enum Feature in session.proto.
enum class Feature : uint8_t {
  kNone = 0,
  kLeases = 1,
  kHostRegions = 2,
  kPrefetch = 5,
  kPins = 6,
  kDelete = 7,
  kClear = 8,
  kCancel = 13,
};

Feature FeatureOf(const Request& request) {
  switch (request.method) {
    case Method::kPrefetch:
    case Method::kTicket:
      return Feature::kPrefetch;
    case Method::kPin:
    case Method::kUnpin:
      return Feature::kPins;
    case Method::kDelete:
      return Feature::kDelete;
    case Method::kClearNamespace:
      return Feature::kClear;
    case Method::kCancel:
      return Feature::kCancel;
    case Method::kGet:
      return request.delivery == TERRACE_DELIVER_LEASE ? Feature::kLeases : Feature::kHostRegions;
    case Method::kPut:
      return request.parts[0].part.region != 0 ? Feature::kHostRegions : Feature::kNone;
    default:
      return Feature::kNone;
  }
}

// What the daemon is given: a little less than the caller waits, so that its answer for what it
// could do in time is there before the caller's deadline.
uint32_t ServerDeadlineMs(Instant deadline, Instant now) {
  const int64_t left = (deadline - now) / kNsPerMs;
  const int64_t given = left - std::min<int64_t>(left / 10, 20);
  return static_cast<uint32_t>(std::clamp<int64_t>(given, 1, UINT32_MAX));
}

uint64_t RandomNumber() {
  std::random_device device;
  return (uint64_t{device()} << 32) | device();
}

Verdict Forked() {
  return {TERRACE_FAILED_PRECONDITION, "a child of fork must open a client of its own"};
}

}  // namespace

Client::Client(ClientOptions options)
    : options_(std::move(options)), jitter_(RandomNumber()), leases_(RandomNumber()) {
  all_slabs_.watch = options_.slabs;
}

Client::~Client() {
  if (!SameProcess()) {
    all_slabs_.watch = {};  // what was registered with a driver is the parent's
    return;
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!link_.connected() || !greeted_ || lost_) {
    return;
  }
  try {
    std::string ids;
    for (const auto& [number, lease] : leases_.all()) {
      if (lease.boot_id == boot_id_) {
        ids.append(lease.daemon_id.data(), lease.daemon_id.size());
      }
    }
    SendReleasesLocked(ids, {});
  } catch (const std::bad_alloc&) {
    return;  // the end of the session says as much
  }
  const Instant until = Now() + kCloseNs;
  while (!lost_ && link_.backlog_bytes() > 0 && Now() < until) {
    pollfd writable{link_.fd(), POLLOUT, 0};
    ::poll(&writable, 1, MillisecondsUntil(until, Now()));
    if (!link_.Flush()) {
      break;
    }
  }
}

Verdict Client::Open() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!wakeup_.Open()) {
    return {TERRACE_RESOURCE_EXHAUSTED, "no descriptor or memory for the event descriptor"};
  }
  EnsureConnectedLocked(Now());
  SettleLocked();
  return {};
}

Verdict Client::Submit(Request* request, uint64_t* call_id) {
  if (!SameProcess()) {
    return Forked();
  }
  Call call;
  call.completion = Completion::Create(static_cast<terrace_verb>(request->method),
                                       request->key_count, request->part_count);
  const std::lock_guard<std::mutex> lock(mutex_);
  Verdict verdict = SubmitLocked(request, std::move(call), call_id);
  SettleLocked();
  return verdict;
}

Verdict Client::SubmitLocked(Request* request, Call call, uint64_t* call_id) {
  Verdict verdict = ResolveLocked(request, &call);
  if (!verdict.ok()) {
    return verdict;
  }
  scratch_.assign(kFrameHeaderBytes, '\0');
  missing_.clear();
  EncodeRequest(*request, &scratch_, &missing_);
  // A release is never turned away: its leases have ended here already.
  const bool is_release = request->method == Method::kRelease;
  verdict = is_release ? Verdict{} : AdmitLocked(*request);
  if (!verdict.ok()) {
    return verdict;
  }
  const Instant now = Now();
  EnsureConnectedLocked(now);  // first, as calls of a session have numbers from where it began
  const uint64_t id = next_call_id_++;
  const uint32_t deadline_ms =
      request->deadline_ms == 0 ? options_.default_deadline_ms : request->deadline_ms;
  call.method = request->method;
  call.deadline = now + int64_t{deadline_ms} * kNsPerMs;
  call.completion->call_id = id;
  call.completion->tag = request->tag;
  if (call_id != nullptr) {
    *call_id = id;
  }
  RetryRefusedLocked(*request, call, now);
  ResetProgressLocked(*request);
  const Verdict obstacle = is_release ? Verdict{} : ObstacleLocked(*request, call, now);
  if (!obstacle.ok()) {
    FailLocked(&call, obstacle.status, obstacle.text);
    return {};
  }
  const bool waits = !missing_.empty();
  if (waits) {
    call.stage = Stage::kWaitingForNamespace;
    call.frame = scratch_;
    call.missing = missing_;
    waiting_calls_.push_back(id);
  }
  const Instant deadline = call.deadline;
  copying_calls_ += call.copies() ? 1 : 0;
  calls_.emplace(id, std::move(call));
  ++callers_in_flight_;
  next_expiry_ = std::min(next_expiry_, deadline);
  owes_since_ = std::min(owes_since_, now);
  if (waits) {
    waiting_bytes_ += scratch_.size();
  } else {
    SendCallLocked(&scratch_, request->method, id, deadline, now);
  }
  return {};
}

Verdict Client::ResolveLocked(Request* request, Call* call) const {
  call->by_lease = request->method == Method::kGet && request->delivery == TERRACE_DELIVER_LEASE;
  if (request->method == Method::kClearNamespace) {
    if (request->ns == 0 || request->ns > namespaces_.size()) {
      return Verdict::Invalid("ns: not a namespace of this client");
    }
    const NamespaceEntry& entry = namespaces_[request->ns - 1];
    request->digest = entry.digest_known ? &entry.digest : nullptr;
  }
  for (uint32_t i = 0; i < request->part_count; ++i) {
    PartSpec& spec = request->parts[i];
    if (spec.part.ns == 0 || spec.part.ns > namespaces_.size()) {
      return Verdict::Invalid("parts.ns: not a namespace of this client");
    }
    const NamespaceEntry& entry = namespaces_[spec.part.ns - 1];
    spec.digest = entry.digest_known ? &entry.digest : nullptr;
    if (spec.part.region == 0) {
      continue;
    }
    const auto region = regions_.find(spec.part.region);
    if (region == regions_.end() || region->second.state != RegionEntry::State::kActive) {
      return Verdict::Invalid("parts.region: not a region of this client");
    }
    call->regions.push_back(spec.part.region);
  }
  return {};
}

Verdict Client::AdmitLocked(const Request& request) const {
  const uint32_t calls_most = greeted_ && server_.max_calls_in_flight > 0
                                  ? server_.max_calls_in_flight
                                  : kDefaultCallsInFlight;
  if (callers_in_flight_ >= calls_most) {
    return {TERRACE_RESOURCE_EXHAUSTED,
            "more than " + std::to_string(calls_most) + " calls in flight"};
  }
  const uint32_t keys_most =
      greeted_ && server_.max_keys > 0 ? std::min(server_.max_keys, kMaxKeys) : kMaxKeys;
  if (request.key_count > keys_most) {
    return Verdict::Invalid("parts: more than " + std::to_string(keys_most) + " keys");
  }
  const uint32_t bytes_most = greeted_ && server_.max_message_bytes > 0
                                  ? std::min(server_.max_message_bytes, kMaxMessageBytes)
                                  : kMaxMessageBytes;
  if (scratch_.size() - kFrameHeaderBytes > bytes_most) {
    return Verdict::Invalid("call: its message exceeds " + std::to_string(bytes_most) + " bytes");
  }
  if (link_.backlog_bytes() + waiting_bytes_ + scratch_.size() > kMaxBacklogBytes) {
    return {TERRACE_RESOURCE_EXHAUSTED,
            "more than " + std::to_string(kMaxBacklogBytes) + " bytes wait to be sent"};
  }
  return {};
}

Verdict Client::ObstacleLocked(const Request& request, const Call& call, Instant now) const {
  if (!link_.connected() || lost_) {
    return {TERRACE_UNAVAILABLE, trouble_.data()};
  }
  if (silent_) {
    return {TERRACE_UNAVAILABLE, "terraced does not answer"};
  }
  for (uint32_t i = 0; i < request.part_count; ++i) {
    const Refusal& refusal = namespaces_[request.parts[i].part.ns - 1].refusal;
    if (refusal.status != TERRACE_OK) {
      return {refusal.status, refusal.text};
    }
  }
  if (request.ns != 0 && namespaces_[request.ns - 1].refusal.status != TERRACE_OK) {
    const Refusal& refusal = namespaces_[request.ns - 1].refusal;
    return {refusal.status, refusal.text};
  }
  for (const terrace_region region : call.regions) {
    const Refusal& refusal = regions_.at(region).refusal;
    if (refusal.status != TERRACE_OK) {
      return {refusal.status, refusal.text};
    }
  }
  const bool deferrable = request.method == Method::kPut || request.method == Method::kPrefetch;
  if (deferrable && now < back_pressure_until_) {
    return {TERRACE_RESOURCE_EXHAUSTED, "terraced asked to hold puts and prefetches back"};
  }
  return FeatureObstacleLocked(request);
}

Verdict Client::FeatureObstacleLocked(const Request& request) const {
  const Feature feature = FeatureOf(request);
  if (!greeted_ || feature == Feature::kNone ||
      (server_.features >> static_cast<unsigned>(feature) & 1U) != 0) {
    return {};
  }
  return {TERRACE_UNIMPLEMENTED,
          "this terraced lacks feature " + std::to_string(static_cast<unsigned>(feature))};
}

void Client::SendCallLocked(
    std::string* frame, Method method, uint64_t id, Instant deadline, Instant now) {
  if (!link_.connected() || lost_) {
    return;  // SettleLocked ends the call
  }
  FrameHeader header;
  header.payload_bytes = static_cast<uint32_t>(frame->size() - kFrameHeaderBytes);
  header.method = static_cast<uint16_t>(method);
  header.kind = static_cast<uint8_t>(FrameKind::kRequest);
  header.call_id = id;
  header.deadline_ms = deadline == kNever ? 0 : ServerDeadlineMs(deadline, now);
  EncodeFrameHeader(header, frame->data());
  try {
    if (!link_.Send(*frame, -1)) {
      GiveUpSendingLocked();
    }
  } catch (const std::bad_alloc&) {
    GiveUpLocked("no memory to queue a request");
  }
}

void Client::CompleteLocked(Call* call) {
  if (call->completion != nullptr) {
    ready_.Push(std::move(call->completion));
  }
}

void Client::FailLocked(Call* call, terrace_status status, std::string_view text) {
  if (call->completion != nullptr) {
    call->completion->Fail(status, text);
    CompleteLocked(call);
  }
}

Client::Call Client::TakeCallLocked(Calls::iterator found) {
  Call call = std::move(found->second);
  calls_.erase(found);
  if (call.completion != nullptr) {
    --callers_in_flight_;
    copying_calls_ -= call.copies() ? 1 : 0;
    outlived_calls_ -= call.stage == Stage::kOutlived ? 1 : 0;
    next_expiry_ = callers_in_flight_ == 0 ? kNever : next_expiry_;
  }
  if (call.stage == Stage::kWaitingForNamespace) {
    waiting_bytes_ -= call.frame.size();
  }
  return call;
}

Verdict Client::Release(const terrace_id128* leases,
                        uint32_t lease_count,
                        Request* request,
                        uint64_t* call_id) {
  if (!SameProcess()) {
    return Forked();
  }
  std::vector<LeaseRecord> ended;  // outlives the lock: unmapping a slab takes time
  std::string ids;
  ended.reserve(lease_count);
  ids.reserve(size_t{lease_count} * kDigestBytes);
  Call call;
  if (request->tag != 0) {
    call.completion = Completion::Create(TERRACE_VERB_RELEASE, 0, 0);
    call.holds = request->holds;
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  const bool reachable = link_.connected() && greeted_ && !lost_;
  for (uint32_t i = 0; i < lease_count; ++i) {
    LeaseRecord record;
    if (!leases_.Remove(leases[i], &record)) {
      continue;
    }
    const std::string_view id(record.daemon_id.data(), record.daemon_id.size());
    if (record.boot_id == boot_id_ && reachable) {
      ids.append(id);
    } else if (record.boot_id == boot_id_) {
      OweLeaseLocked(id);
    }
    ended.push_back(std::move(record));
  }
  if (call_id != nullptr) {
    *call_id = 0;
  }
  Verdict verdict;
  if (request->tag == 0) {
    if (reachable) {
      SendReleasesLocked(ids, request->holds);
    }
  } else if (reachable && (!ids.empty() || !request->holds.empty())) {
    call.subject = static_cast<uint32_t>(ended.size() - ids.size() / kDigestBytes);
    call.leases = ids;
    request->leases = ids;
    try {
      verdict = SubmitLocked(request, std::move(call), call_id);
    } catch (const std::bad_alloc&) {
      GiveUpLocked("no memory to release leases");
      verdict = {TERRACE_RESOURCE_EXHAUSTED, "no memory"};
    }
  } else {
    call.completion->call_id = next_call_id_++;
    call.completion->tag = request->tag;
    if (call_id != nullptr) {
      *call_id = call.completion->call_id;
    }
    if (!request->holds.empty()) {
      call.completion->Fail(TERRACE_UNAVAILABLE, trouble_.data());
    }
    call.completion->count = static_cast<uint32_t>(ended.size());
    CompleteLocked(&call);
  }
  SettleLocked();
  return verdict;
}

void Client::SendReleasesLocked(std::string_view leases, std::string_view holds) {
  constexpr size_t kMostBytes = size_t{kMaxReleases} * kDigestBytes;
  while (!lost_ && (!leases.empty() || !holds.empty())) {
    Request request;
    request.method = Method::kRelease;
    request.leases = leases.substr(0, kMostBytes);
    request.holds = holds.substr(0, kMostBytes);
    leases.remove_prefix(request.leases.size());
    holds.remove_prefix(request.holds.size());
    try {
      scratch_.assign(kFrameHeaderBytes, '\0');
      EncodeRequest(request, &scratch_, &missing_);
      Call call;
      call.method = Method::kRelease;
      call.leases = request.leases;
      call.holds = request.holds;
      const uint64_t id = next_call_id_++;
      calls_.emplace(id, std::move(call));
      SendCallLocked(&scratch_, Method::kRelease, id, kNever, 0);
    } catch (const std::bad_alloc&) {
      GiveUpLocked("no memory to release leases");
    }
  }
}

// Without room to remember it the lease stays with the daemon until this process ends.
void Client::OweLeaseLocked(std::string_view lease) {
  constexpr size_t kMostOwedBytes = 65536 * kDigestBytes;
  if (owed_leases_.size() + lease.size() > kMostOwedBytes) {
    return;
  }
  try {
    owed_leases_.append(lease);
  } catch (const std::bad_alloc&) {
    return;
  }
}

Verdict Client::Cancel(Request* request, uint64_t* call_id) {
  if (!SameProcess()) {
    return Forked();
  }
  Call call;
  call.completion = Completion::Create(TERRACE_VERB_CANCEL, 0, 0);
  const std::lock_guard<std::mutex> lock(mutex_);
  Verdict verdict;
  const auto target = calls_.find(request->target_call_id);
  // A call that has ended here may not have ended there: it may have expired while the daemon was
  // still copying.
  const bool here = target != calls_.end() && target->second.stage != Stage::kSent;
  // Sessions before this one are none of its daemon's business.
  const bool up = link_.connected() && !lost_;
  const bool of_session = up && request->target_call_id >= first_call_of_session_;
  call.confirms = request->target_call_id != 0;
  if (here && target->second.stage == Stage::kOutlived) {
    call.regions = target->second.regions;
    call.session = target->second.session;
    CancelOutlivedLocked(request, std::move(call), call_id);
  } else if (!here && call.confirms && !of_session) {
    // sessions_ counts those that were greeted.
    call.session = up && greeted_ ? sessions_ - 1 : sessions_;
    CancelOutlivedLocked(request, std::move(call), call_id);
  } else if (!here) {
    verdict = SubmitLocked(request, std::move(call), call_id);
  } else {
    call.completion->call_id = next_call_id_++;
    call.completion->tag = request->tag;
    if (call_id != nullptr) {
      *call_id = call.completion->call_id;
    }
    if (target->second.stage == Stage::kWaitingForNamespace) {
      call.completion->count = 1;
      Call cancelled = TakeCallLocked(target);
      FailLocked(&cancelled, TERRACE_CANCELLED, "cancelled before it was sent");
    }
    CompleteLocked(&call);
  }
  SettleLocked();
  return verdict;
}

}  // namespace terrace::client
