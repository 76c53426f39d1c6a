// Client: replies to gets, and the slabs that leases lie in.
#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

#include "client/src/client.h"

namespace terrace::client {

bool Client::TakeGetLocked(Calls::iterator found, std::string_view message) {
  Completion* completion = found->second.completion.get();
  GetReply reply;
  if (!DecodeGet(message, completion->key_count, &reply)) {
    return false;
  }
  if (found->second.by_lease) {
    return TakeLeaseGetLocked(found, reply, message);
  }
  Call call = TakeCallLocked(found);
  for (uint32_t i = 0; i < completion->key_count; ++i) {
    completion->key_outcomes[i] = KnownGetOutcome(reply.outcomes[i]);
    completion->key_payload_bytes[i] =
        completion->key_outcomes[i] == TERRACE_GET_OK ? reply.payload_bytes[i] : 0;
  }
  CompleteLocked(&call);
  return true;
}

SlabPtr Client::SlabLocked(uint32_t slab_id) {
  const auto known = slabs_.find(slab_id);
  if (known != slabs_.end()) {
    return known->second;
  }
  auto slab = std::make_shared<Slab>(slab_id, &all_slabs_);
  slabs_.emplace(slab_id, slab);
  std::string message;
  EncodeMapSlab(slab_id, &message);
  Call call;
  call.slabs.push_back(slab);
  call.brings_descriptor = true;
  SendOwnLocked(Method::kMapSlab, std::move(call), message, -1);
  return slab;
}

// Collects the slabs of a lease and asks for those that are not mapped yet.
bool Client::TakeLeaseGetLocked(Calls::iterator found,
                                const GetReply& reply,
                                std::string_view message) {
  const uint64_t id = found->first;
  if (reply.lease_id.empty()) {
    FinishLeaseGetLocked(TakeCallLocked(found), message);
    return true;
  }
  std::vector<uint32_t> ids;
  for (uint32_t i = 0; i < reply.outcomes.size(); ++i) {
    const uint32_t slab_id = reply.slab_ids[i];
    const bool delivered = KnownGetOutcome(reply.outcomes[i]) == TERRACE_GET_OK;
    if (delivered && (ids.empty() || ids.back() != slab_id)) {
      ids.push_back(slab_id);
    }
  }
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  std::vector<SlabPtr> slabs;
  bool mapped = true;
  for (const uint32_t slab_id : ids) {
    slabs.push_back(SlabLocked(slab_id));
    mapped = mapped && slabs.back()->state() != Slab::State::kAsked;
  }
  Call& call = calls_.at(id);  // asking for slabs has added calls
  call.slabs = std::move(slabs);
  if (mapped) {
    FinishLeaseGetLocked(TakeCallLocked(calls_.find(id)), message);
  } else {
    call.reply = message;
    call.stage = Stage::kWaitingForSlabs;
  }
  return true;
}

void Client::FinishLeaseGetLocked(Call call, std::string_view message) {
  Completion* completion = call.completion.get();
  GetReply reply;
  DecodeGet(message, completion->key_count, &reply);
  LeaseRecord lease;
  lease.boot_id = boot_id_;
  const Slab* slab = nullptr;
  for (uint32_t i = 0; i < completion->key_count; ++i) {
    uint8_t outcome = KnownGetOutcome(reply.outcomes[i]);
    if (outcome == TERRACE_GET_OK) {
      const uint32_t slab_id = reply.lease_id.empty() ? 0 : reply.slab_ids[i];
      if (slab == nullptr || slab->id() != slab_id) {
        const auto at = std::lower_bound(
            call.slabs.begin(), call.slabs.end(), slab_id,
            [](const SlabPtr& one, uint32_t wanted) { return one->id() < wanted; });
        slab = at != call.slabs.end() && (*at)->id() == slab_id ? at->get() : nullptr;
      }
      const uint32_t bytes = reply.payload_bytes[i];
      const char* payload = slab == nullptr ? nullptr : slab->At(reply.slab_offsets[i], bytes);
      outcome = payload == nullptr ? uint8_t{TERRACE_GET_MISS} : outcome;
      completion->key_data[i] = payload;
      completion->key_payload_bytes[i] = payload == nullptr ? 0 : bytes;
      lease.bytes += completion->key_payload_bytes[i];
    }
    completion->key_outcomes[i] = outcome;
  }
  const bool any =
      std::find(completion->key_outcomes, completion->key_outcomes + completion->key_count,
                TERRACE_GET_OK) != completion->key_outcomes + completion->key_count;
  if (any) {
    std::memcpy(lease.daemon_id.data(), reply.lease_id.data(), kDigestBytes);
    lease.slabs = std::move(call.slabs);
    try {
      completion->lease = leases_.Add(std::move(lease));
    } catch (const std::bad_alloc&) {
      FailLocked(&call, TERRACE_RESOURCE_EXHAUSTED, "no memory to remember a lease");
      SendReleasesLocked(reply.lease_id, {});
      return;
    }
  } else if (!reply.lease_id.empty()) {
    SendReleasesLocked(reply.lease_id, {});
  }
  CompleteLocked(&call);
}

void Client::TakeSlabLocked(const Call& call, ReceivedFrame* frame) {
  const SlabPtr& slab = call.slabs.front();
  uint64_t slab_bytes = 0;
  if (frame->header.status == 0 && DecodeMapSlab(frame->message, &slab_bytes) &&
      slab->Map(frame->descriptors[0], slab_bytes)) {
    to_populate_.push_back(slab);
  } else {
    slab->SetFailed();
    const auto known = slabs_.find(slab->id());
    if (known != slabs_.end() && known->second == slab) {
      slabs_.erase(known);  // the next get asks again
    }
  }
  FinishReadyGetsLocked();
}

void Client::FinishReadyGetsLocked() {
  std::vector<uint64_t> finished;
  for (const auto& [id, call] : calls_) {
    const bool waits = std::any_of(call.slabs.begin(), call.slabs.end(), [](const SlabPtr& slab) {
      return slab->state() == Slab::State::kAsked;
    });
    if (call.stage == Stage::kWaitingForSlabs && !waits) {
      finished.push_back(id);
    }
  }
  std::sort(finished.begin(), finished.end());
  for (const uint64_t id : finished) {
    Call call = TakeCallLocked(calls_.find(id));
    const std::string reply = std::move(call.reply);
    FinishLeaseGetLocked(std::move(call), reply);
  }
}

void Client::ReleaseLateLocked(std::string_view get_reply) {
  SendReleasesLocked(LeaseOf(get_reply), {});
}

}  // namespace terrace::client
