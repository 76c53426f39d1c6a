// Client: the connection, its greeting, and what arrives on it.
#include <sys/syscall.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <new>
#include <utility>

#include "client/src/client.h"

namespace terrace::client {
namespace {

constexpr int kMostReceives = 64;  // of one drain; the rest stays readable
constexpr int64_t kLeastRetryNs = 10 * kNsPerMs;
constexpr int64_t kMostBackPressureNs = 10'000 * kNsPerMs;

#ifndef TERRACE_VERSION
#define TERRACE_VERSION "unknown"
#endif

Descriptor OwnPidDescriptor() {
  return Descriptor(static_cast<int>(::syscall(SYS_pidfd_open, ::getpid(), 0)));
}

}  // namespace

void Client::EnsureConnectedLocked(Instant now) {
  if (link_.connected() || now < next_attempt_ || parted_.Full()) {
    return;
  }
  const int error = link_.Connect(options_.socket_path);
  if (error != 0) {
    std::snprintf(trouble_.data(), trouble_.size(), "%s: %s", options_.socket_path.c_str(),
                  strerrordesc_np(error));
    LoseLocked(now);
    return;
  }
  lost_ = false;
  first_call_of_session_ = next_call_id_;
  wakeup_.Add(link_.fd());
  GreetLocked();
}

// Everything that the daemon has to know before it sees a request, without waiting for its answers.
void Client::GreetLocked() {
  const Descriptor pidfd = OwnPidDescriptor();
  Greeting greeting;
  greeting.client_name = options_.client_name;
  greeting.client_version = TERRACE_VERSION;
  greeting.pidfd = pidfd.valid();
  try {
    std::string hello;
    EncodeHello(greeting, &hello);
    SendOwnLocked(Method::kHello, Call{}, hello, pidfd.get());
    for (size_t i = 0; i < namespaces_.size(); ++i) {
      OpenNamespaceLocked(static_cast<terrace_namespace>(i + 1));
    }
    std::vector<terrace_region> active;
    for (const auto& [region, entry] : regions_) {
      if (entry.state == RegionEntry::State::kActive) {
        active.push_back(region);
      }
    }
    for (const terrace_region region : active) {
      RegisterRegionLocked(region);
    }
  } catch (const std::bad_alloc&) {
    GiveUpLocked("no memory to begin a session");
  }
}

void Client::SendOwnLocked(Method method, Call call, std::string_view message, int passed) {
  if (!link_.connected() || lost_) {
    return;
  }
  FrameHeader header;
  header.payload_bytes = static_cast<uint32_t>(message.size());
  header.method = static_cast<uint16_t>(method);
  header.kind = static_cast<uint8_t>(FrameKind::kRequest);
  header.descriptor_count = passed >= 0 ? 1 : 0;
  header.call_id = next_call_id_++;
  try {
    std::string frame(kFrameHeaderBytes, '\0');
    EncodeFrameHeader(header, frame.data());
    frame.append(message);
    call.method = method;
    calls_.emplace(header.call_id, std::move(call));
    if (!link_.Send(frame, passed)) {
      GiveUpSendingLocked();
    }
  } catch (const std::bad_alloc&) {
    GiveUpLocked("no memory to queue a request");
  }
}

void Client::GiveUpLocked(std::string_view why) {
  if (lost_) {
    return;
  }
  lost_ = true;
  const size_t length = std::min(why.size(), trouble_.size() - 1);
  std::memcpy(trouble_.data(), why.data(), length);
  trouble_[length] = '\0';
}

void Client::GiveUpSendingLocked() {
  may_have_said_more_ = may_have_said_more_ || !lost_;
  GiveUpLocked("terraced closed the session");
}

// What a daemon said before its end: answers, and which processes copy for it.
void Client::HearOutLocked(Instant now) {
  const std::array<char, 160> trouble = trouble_;
  lost_ = false;
  try {
    ReceiveLocked(now);
  } catch (const std::bad_alloc&) {
    lost_ = true;  // what it said is a miss
  }
  trouble_ = trouble;
}

// A daemon that has not closed its end may be copying into regions.
void Client::EndLinkLocked() {
  wakeup_.Remove(link_.fd());
  if (link_.ended() || regions_.empty()) {
    link_.Close();
  } else {
    parted_.Add(link_.Part(), sessions_, &wakeup_);
  }
}

// Ends the session: every call in flight completes, or waits until nothing copies for it any more;
// nothing of the daemon's is valid any more but the mapped memory. Needs no memory.
void Client::LoseLocked(Instant now) {
  if (std::exchange(may_have_said_more_, false) && link_.connected()) {
    HearOutLocked(now);
  }
  if (link_.connected()) {
    EndLinkLocked();
  }
  lost_ = false;
  greeted_ = false;
  draining_ = false;
  silent_ = false;
  owes_since_ = kNever;
  back_pressure_until_ = 0;
  next_attempt_ = now + jitter_.Around(int64_t{options_.reconnect_ms} * kNsPerMs);
  KeepOutlivedLocked();
  waiting_calls_.clear();
  waiting_bytes_ = 0;
  owed_holds_.clear();
  owed_at_ = kNever;
  slabs_.clear();
  for (NamespaceEntry& entry : namespaces_) {
    entry.asked = false;
    entry.refusal.status = TERRACE_OK;
    entry.refusal.retry_at = kNever;
  }
  for (auto& [region, entry] : regions_) {
    entry.refusal.status = TERRACE_OK;
    entry.refusal.retry_at = kNever;
    entry.page = Mapping();
    entry.page_fd = Descriptor();
    entry.unregister_again_at = kNever;
    if (entry.state == RegionEntry::State::kUnregistering) {
      entry.state = RegionEntry::State::kGone;
    }
  }
}

void Client::ReceiveLocked(Instant now) {
  for (int i = 0; i < kMostReceives && !lost_; ++i) {
    bool drained = false;
    switch (link_.Receive(&drained)) {
      case Link::Received::kNothing:
        return;
      case Link::Received::kLost:
        GiveUpLocked("terraced closed the session");
        return;
      case Link::Received::kSome:
        break;
    }
    silent_ = false;
    if (!TakeFramesLocked(now)) {
      GiveUpLocked("terraced sent a malformed frame");
      return;
    }
    owes_since_ = callers_in_flight_ > outlived_calls_ ? now : kNever;
    if (drained) {
      return;
    }
  }
}

bool Client::TakeFramesLocked(Instant now) {
  for (;;) {
    ReceivedFrame frame;
    switch (link_.NextFrame(&frame)) {
      case Link::Next::kIncomplete:
        return true;
      case Link::Next::kGarbage:
        return false;
      case Link::Next::kFrame:
        break;
    }
    const bool push = frame.header.kind == static_cast<uint8_t>(FrameKind::kPush);
    if (!(push ? TakePushLocked(&frame, now) : TakeReplyLocked(&frame, now))) {
      return false;
    }
    if (lost_) {
      return true;
    }
  }
}

bool Client::TakePushLocked(ReceivedFrame* frame, Instant now) {
  const auto method = static_cast<Method>(frame->header.method);
  if (method == Method::kGpuWorkerNotice) {
    return TakeWorkerLocked(frame);
  }
  if (frame->header.descriptor_count != 0) {
    return false;
  }
  switch (method) {
    case Method::kDrainNotice:
      draining_ = true;
      return true;
    case Method::kBackPressureNotice: {
      uint32_t retry_after_ms = 0;
      if (!DecodeBackPressure(frame->message, &retry_after_ms)) {
        return false;
      }
      back_pressure_until_ =
          now + std::min(int64_t{retry_after_ms} * kNsPerMs, kMostBackPressureNs);
      return true;
    }
    case Method::kSlabRetiredNotice: {
      uint32_t slab_id = 0;
      if (!DecodeSlabRetired(frame->message, &slab_id)) {
        return false;
      }
      slabs_.erase(slab_id);  // leases and waiting gets keep it as long as they need it
      return true;
    }
    default:
      return true;  // of a newer daemon
  }
}

bool Client::TakeReplyLocked(ReceivedFrame* frame, Instant now) {
  const auto found = calls_.find(frame->header.call_id);
  if (found == calls_.end() || found->second.stage == Stage::kWaitingForSlabs ||
      found->second.stage == Stage::kOutlived) {
    // Its call has ended: at its deadline. What it would have held is given back.
    if (frame->header.method == static_cast<uint16_t>(Method::kGet) && frame->header.status == 0) {
      ReleaseLateLocked(frame->message);
    }
    return frame->header.descriptor_count == 0;
  }
  const Method method = found->second.method;
  const bool descriptor_expected = found->second.brings_descriptor && frame->header.status == 0;
  if (frame->header.method != static_cast<uint16_t>(method) ||
      found->second.stage != Stage::kSent ||
      frame->header.descriptor_count != (descriptor_expected ? 1 : 0) ||
      (!greeted_ && found->second.by_lease && frame->header.status == 0)) {
    return false;  // the last: a lease of a boot without a name
  }
  if (method == Method::kRelease) {
    return TakeReleaseLocked(found, *frame, now);
  }
  if (found->second.completion != nullptr) {
    return TakeCallersReplyLocked(found, *frame);
  }
  const Call call = TakeCallLocked(found);
  return TakeOwnReplyLocked(call, frame, now);
}

bool Client::TakeCallersReplyLocked(Calls::iterator found, const ReceivedFrame& frame) {
  if (frame.header.status != TERRACE_OK) {
    const Refusal refusal = RefusalOf(frame, 0);
    Call call = TakeCallLocked(found);
    FailLocked(&call, refusal.status, refusal.text);
    return true;
  }
  if (found->second.method == Method::kGet) {
    return TakeGetLocked(found, frame.message);
  }
  if (!DecodeInto(frame.message, found->second.completion.get())) {
    return false;
  }
  Call call = TakeCallLocked(found);
  CompleteLocked(&call);
  return true;
}

bool Client::TakeOwnReplyLocked(const Call& call, ReceivedFrame* frame, Instant now) {
  switch (call.method) {
    case Method::kHello:
      return TakeHelloLocked(*frame, now);
    case Method::kOpenNamespace:
      TakeNamespaceLocked(call, *frame, now);
      return true;
    case Method::kRegisterRegion:
      TakeRegionLocked(call, frame, now);
      return true;
    case Method::kUnregisterRegion:
      TakeUnregisteredLocked(call, *frame, now);
      return true;
    case Method::kMapSlab:
      TakeSlabLocked(call, frame);
      return true;
    default:
      return true;  // Ping, Cancel: that it came is all that matters
  }
}

bool Client::TakeHelloLocked(const ReceivedFrame& frame, Instant now) {
  if (frame.header.status != TERRACE_OK) {
    GiveUpLocked("terraced refused the session: " + RefusalOf(frame, now).text);
    return true;
  }
  HelloReply hello;
  if (!DecodeHello(frame.message, &hello)) {
    return false;
  }
  if (hello.boot_id != boot_id_) {
    owed_leases_.clear();
  }
  owed_at_ = owed_leases_.empty() ? kNever : now;
  boot_id_ = hello.boot_id;
  server_ = hello;
  greeted_ = true;
  ++sessions_;
  return true;
}

// A release that the daemon had no room for is said again later; the caller's completion doesn't
// wait for that.
bool Client::TakeReleaseLocked(Calls::iterator found, const ReceivedFrame& frame, Instant now) {
  Call call = TakeCallLocked(found);
  if (frame.header.status != TERRACE_OK) {
    const Refusal refusal = RefusalOf(frame, now);
    if (refusal.retry_at != kNever) {
      OweLeaseLocked(call.leases);
      owed_holds_.append(call.holds);
      owed_at_ = std::min(owed_at_, std::max(refusal.retry_at, now + kLeastRetryNs));
    }
    FailLocked(&call, refusal.status, refusal.text);
    return true;
  }
  if (call.completion != nullptr) {
    if (!DecodeInto(frame.message, call.completion.get())) {
      FailLocked(&call, TERRACE_UNAVAILABLE, "terraced sent a malformed frame");
      return false;
    }
    call.completion->count += call.subject;
    CompleteLocked(&call);
  }
  return true;
}

}  // namespace terrace::client
