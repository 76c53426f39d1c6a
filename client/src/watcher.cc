#include "client/src/watcher.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <new>
#include <utility>

#include "client/src/reply.h"
#include "client/src/request.h"

namespace terrace::client {
namespace {

constexpr int kMostReceives = 64;  // of one call; the rest stays readable
constexpr int64_t kSilentHeartbeats = 3;
constexpr int64_t kLeastSilenceNs = 1'000 * kNsPerMs;
constexpr size_t kMostTierNames = 64;
constexpr uint64_t kWatchFeature = 10;  // FEATURE_WATCH

#ifndef TERRACE_VERSION
#define TERRACE_VERSION "unknown"
#endif

uint32_t CountOf(size_t bytes, uint32_t each) {
  return each == 0 ? 0 : static_cast<uint32_t>(bytes / each);
}

const void* DataOf(std::string_view bytes) {
  return bytes.empty() ? nullptr : bytes.data();
}

}  // namespace

Watcher::Watcher(WatchOptions options)
    : options_(std::move(options)),
      jitter_(static_cast<uint64_t>(Now()) * 0x9E3779B97F4A7C15U),
      publisher_id_(options_.publisher_id),
      sequence_(options_.after_sequence),
      whole_(options_.publisher_id != 0) {}

Verdict Watcher::Open() {
  if (!wakeup_.Open()) {
    return {TERRACE_RESOURCE_EXHAUSTED, "no descriptor or memory for the event descriptor"};
  }
  Connect(Now());  // and no more: what were handed out now nobody would see
  wakeup_.ArmTimer(NextWake());
  return {};
}

uint32_t Watcher::Next(const terrace_event** events, uint32_t timeout_ms) noexcept {
  batch_.clear();
  records_.clear();
  Instant now = Now();
  const Instant until = now + int64_t{timeout_ms} * kNsPerMs;
  wakeup_.ClearTimer(now);
  for (;;) {
    Advance(now);
    if (!batch_.empty() || now >= until) {
      break;
    }
    wakeup_.ArmTimer(NextWake());
    wakeup_.Wait(MillisecondsUntil(until, now));
    now = Now();
    wakeup_.ClearTimer(now);
  }
  wakeup_.ArmTimer(NextWake());
  *events = batch_.data();
  return static_cast<uint32_t>(batch_.size());
}

terrace_watch_state Watcher::State() const {
  terrace_watch_state state{};
  state.connection = stage_ == Stage::kServing ? TERRACE_CONNECTION_UP
                     : stage_ == Stage::kDown  ? TERRACE_CONNECTION_DOWN
                                               : TERRACE_CONNECTION_CONNECTING;
  // A picture that is not whole is nothing to go on from.
  if (!WantsSnapshot()) {
    state.publisher_id = publisher_id_;
    state.sequence = sequence_;
  }
  state.complete = options_.snapshots && whole_ ? 1 : 0;
  state.reconnects = served_ > 0 ? served_ - 1 : 0;
  if (stage_ != Stage::kServing) {
    std::memcpy(state.error, trouble_.data(), trouble_.size());
  }
  return state;
}

// ---------------------------------------------------------------- the connection

// What cannot be handed out for want of memory is asked for again.
void Watcher::Advance(Instant now) {
  const uint64_t publisher_id = publisher_id_;
  const uint64_t sequence = sequence_;
  const bool whole = whole_;
  try {
    AdvanceOrThrow(now);
  } catch (const std::bad_alloc&) {
    batch_.clear();
    Lose("no memory", now);
    publisher_id_ = publisher_id;
    sequence_ = sequence;
    whole_ = whole;
  }
}

void Watcher::AdvanceOrThrow(Instant now) {
  HandOutOwed();
  if (std::exchange(ask_again_, false)) {
    Close(Why::kOwnWish, now);
  }
  if (!link_.connected() && now >= next_attempt_) {
    Connect(now);
  }
  if (link_.connected()) {
    Receive(now);
  }
  if (link_.connected() && batch_.empty() && now >= SilentAt()) {
    Lose("terraced says nothing", now);
  }
  HandOutOwed();
}

void Watcher::HandOutOwed() {
  if (owes_down_) {
    HandOut(TERRACE_EVENT_DOWN);
    owes_down_ = false;
  }
}

void Watcher::Connect(Instant now) {
  const int error = link_.Connect(options_.socket_path);
  heard_at_ = now;
  if (error != 0) {
    std::snprintf(trouble_.data(), trouble_.size(), "%s: %s", options_.socket_path.c_str(),
                  strerrordesc_np(error));
    Close(Why::kLost, now);
    return;
  }
  wakeup_.Add(link_.fd());
  stage_ = Stage::kGreeting;
  Greet();
}

void Watcher::Send(Method method, std::string_view message) {
  FrameHeader header;
  header.payload_bytes = static_cast<uint32_t>(message.size());
  header.method = static_cast<uint16_t>(method);
  header.kind = static_cast<uint8_t>(FrameKind::kRequest);
  header.call_id = next_call_id_++;
  std::string frame(kFrameHeaderBytes, '\0');
  EncodeFrameHeader(header, frame.data());
  frame.append(message);
  // What a socket does not take at the beginning of a session it never will: the silence tells.
  link_.Send(frame, -1);
}

void Watcher::Greet() {
  Greeting greeting;
  greeting.client_name = options_.client_name;
  greeting.client_version = TERRACE_VERSION;
  std::string hello;
  EncodeHello(greeting, &hello);
  Send(Method::kHello, hello);
}

void Watcher::Ask() {
  WatchRequest request;
  request.snapshot = WantsSnapshot();
  if (!request.snapshot) {
    request.publisher_id = publisher_id_;
    request.after_sequence = sequence_;
  }
  request.namespaces = options_.namespaces;
  request.heartbeat_ms = options_.heartbeat_ms;
  std::string message;
  EncodeWatch(request, &message);
  watch_call_id_ = next_call_id_;
  stage_ = Stage::kAsking;
  Send(Method::kWatch, message);
}

void Watcher::Receive(Instant now) {
  for (int i = 0; i < kMostReceives && batch_.empty(); ++i) {
    bool drained = false;
    switch (link_.Receive(&drained)) {
      case Link::Received::kNothing:
        return;
      case Link::Received::kLost:
        Lose("terraced closed the session", now);
        return;
      case Link::Received::kSome:
        break;
    }
    heard_at_ = now;
    if (!TakeFrames(now)) {
      return;
    }
  }
}

bool Watcher::TakeFrames(Instant now) {
  while (!ask_again_) {
    ReceivedFrame frame;
    switch (link_.NextFrame(&frame)) {
      case Link::Next::kIncomplete:
        return true;
      case Link::Next::kGarbage:
        Lose("terraced sent a malformed frame", now);
        return false;
      case Link::Next::kFrame:
        break;
    }
    if (frame.header.kind == static_cast<uint8_t>(FrameKind::kReply)) {
      if (!TakeReply(frame, now)) {
        return false;
      }
    } else if (frame.header.method == static_cast<uint16_t>(Method::kWatch) &&
               !TakeEvents(frame.message)) {
      Lose("terraced sent a malformed frame", now);
      return false;
    }
  }
  return true;
}

bool Watcher::TakeReply(const ReceivedFrame& frame, Instant now) {
  const bool hello = stage_ == Stage::kGreeting;
  const Method expected = hello ? Method::kHello : Method::kWatch;
  if ((stage_ != Stage::kGreeting && stage_ != Stage::kAsking) ||
      frame.header.method != static_cast<uint16_t>(expected)) {
    Lose("terraced sent a malformed frame", now);
    return false;
  }
  if (frame.header.status != TERRACE_OK) {
    ErrorDetail detail;
    DecodeError(frame.message, &detail);
    Lose(std::string("terraced refused the ") + (hello ? "session: " : "watch: ") +
             std::string(detail.message),
         now);
    return false;
  }
  if (hello) {
    HelloReply reply;
    if (!DecodeHello(frame.message, &reply)) {
      Lose("terraced sent a malformed frame", now);
      return false;
    }
    if ((reply.features >> kWatchFeature & 1) == 0) {
      Lose("this terraced has no Watch", now);
      return false;
    }
    Ask();
    return true;
  }
  stage_ = Stage::kServing;
  ++served_;
  if (!std::exchange(told_up_, true)) {
    HandOut(TERRACE_EVENT_UP);
  }
  if (WantsSnapshot()) {
    HandOut(TERRACE_EVENT_SNAPSHOT_BEGIN);
  } else if (publisher_id_ == 0 && served_ > 1) {
    HandOut(TERRACE_EVENT_GAP);  // the one before said nothing to go on from
  }
  return true;
}

void Watcher::Lose(std::string_view why, Instant now) {
  const size_t length = std::min(why.size(), trouble_.size() - 1);
  std::memcpy(trouble_.data(), why.data(), length);
  trouble_[length] = '\0';
  Close(Why::kLost, now);
}

// Leaves the receive buffer as it is: what was handed out lies there.
void Watcher::Close(Why why, Instant now) {
  if (link_.connected()) {
    wakeup_.Remove(link_.fd());
    link_.Close();
  }
  stage_ = Stage::kDown;
  const int64_t pause = jitter_.Around(int64_t{options_.reconnect_ms} * kNsPerMs);
  if (why == Why::kLost) {
    owes_down_ = owes_down_ || std::exchange(told_up_, false);
    next_attempt_ = now + pause;
    return;
  }
  // At once, but not again and again.
  next_attempt_ = std::max(now, own_wish_at_ + pause);
  own_wish_at_ = now;
}

Instant Watcher::SilentAt() const {
  return heard_at_ +
         std::max(kLeastSilenceNs, kSilentHeartbeats * int64_t{options_.heartbeat_ms} * kNsPerMs);
}

Instant Watcher::NextWake() const {
  return ask_again_ ? Now() : link_.connected() ? SilentAt() : next_attempt_;
}

// ---------------------------------------------------------------- events

terrace_event& Watcher::HandOut(uint32_t kind) {
  terrace_event& event = batch_.emplace_back();
  event = {};
  event.kind = static_cast<terrace_event_kind>(kind);
  event.publisher_id = publisher_id_;
  event.sequence = sequence_;
  event.tier = "";
  return event;
}

const char* Watcher::TierName(std::string_view name) {
  auto found = tiers_.find(name);
  if (found == tiers_.end()) {
    if (tiers_.size() >= kMostTierNames) {
      return "";
    }
    found = tiers_.emplace(name).first;
  }
  return found->c_str();
}

bool Watcher::TakeEvents(std::string_view message) {
  WatchReply reply;
  if (!DecodeWatch(message, &reply)) {
    return false;
  }
  if (stage_ != Stage::kServing || reply.call_id != watch_call_id_) {
    return stage_ == Stage::kServing;  // of another watch: none of ours
  }
  publisher_id_ = reply.publisher_id;
  for (const WatchedNamespaceMessage& named : reply.namespaces) {
    TakeNamespace(named);
  }
  for (const WatchEvent& event : reply.events) {
    TakeEvent(event);
    if (ask_again_) {
      break;  // the snapshot says all that follows
    }
  }
  return true;
}

void Watcher::TakeNamespace(const WatchedNamespaceMessage& message) {
  auto record = std::make_unique<WatchedRecord>();
  if (!record->Decode(message.record)) {
    return;  // its events say the digest all the same
  }
  terrace_event& event = HandOut(TERRACE_EVENT_NAMESPACE);
  event.ns = message.digest;
  event.family = message.family;
  event.record = &record->record();
  records_.push_back(std::move(record));
}

void Watcher::TakeEvent(const WatchEvent& told) {
  switch (told.kind) {
    case kHeartbeatKind:
    case TERRACE_EVENT_STORED:
    case TERRACE_EVENT_REMOVED:
    case TERRACE_EVENT_MOVED:
    case TERRACE_EVENT_CLEARED:
    case TERRACE_EVENT_GAP:
    case TERRACE_EVENT_SNAPSHOT_END:
      break;
    default:
      return;  // of a newer daemon
  }
  sequence_ = told.sequence;
  if (told.kind == kHeartbeatKind) {
    return;
  }
  terrace_event& event = HandOut(told.kind);
  event.ns = told.ns;
  event.keys = DataOf(told.keys);
  event.key_bytes = told.keys.empty() ? 0 : told.key_bytes;
  event.key_count = CountOf(told.keys.size(), told.key_bytes);
  event.parent = DataOf(told.parent);
  event.parent_bytes = static_cast<uint32_t>(told.parent.size());
  event.salt = DataOf(told.salt);
  event.salt_bytes = static_cast<uint32_t>(told.salt.size());
  event.first_token = told.first_token;
  event.block_tokens = told.block_tokens;
  event.tier = TierName(told.tier);
  if (told.kind == TERRACE_EVENT_SNAPSHOT_END) {
    whole_ = true;
  } else if (told.kind == TERRACE_EVENT_GAP) {
    whole_ = false;
    ask_again_ = options_.snapshots;
  }
}

}  // namespace terrace::client
