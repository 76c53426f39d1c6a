// Client: who may touch memory of this process for sessions that are over, and what has to wait
// until they don't: processes that copy from and to the memory of GPUs for the daemon, and daemons
// whose session was given up here.
#include <algorithm>
#include <utility>

#include "client/src/client.h"

namespace terrace::client {
namespace {

// Of a region. A daemon that has lost eight of them, and they hang, starts no other.
constexpr size_t kMostWorkers = 16;

}  // namespace

bool Client::TakeWorkerLocked(ReceivedFrame* frame) {
  uint32_t region = 0;
  if (frame->header.descriptor_count != 1 || !DecodeGpuWorker(frame->message, &region)) {
    return false;
  }
  const auto found = regions_.find(region);
  if (found == regions_.end()) {
    return true;
  }
  std::vector<CopyingProcess>& workers = found->second.workers;
  DropWorkersLocked(&found->second, [](const CopyingProcess& worker) { return worker.Ended(); });
  if (workers.size() >= kMostWorkers) {
    return false;
  }
  workers.emplace_back(std::move(frame->descriptors[0]), sessions_, boot_id_);
  return true;
}

template <typename Which>
void Client::DropWorkersLocked(RegionEntry* entry, Which which) {
  for (auto worker = entry->workers.begin(); worker != entry->workers.end();) {
    if (which(*worker)) {
      wakeup_.RemoveOther(worker->pidfd());
      worker = entry->workers.erase(worker);
    } else {
      ++worker;
    }
  }
}

void Client::LetGoLocked(RegionEntry* entry, uint64_t session) {
  DropWorkersLocked(entry, [&](const CopyingProcess& worker) {
    return worker.session() <= session && worker.boot_id() == boot_id_;
  });
}

void Client::WatchWorkersLocked(bool watch) {
  watches_workers_ = watch;
  for (const auto& [region, entry] : regions_) {
    for (const CopyingProcess& worker : entry.workers) {
      if (watch) {
        wakeup_.AddOther(worker.pidfd());
      } else {
        wakeup_.RemoveOther(worker.pidfd());
      }
    }
  }
}

bool Client::MayBeTouchedLocked(terrace_region region, uint64_t session) const {
  const auto found = regions_.find(region);
  if (found == regions_.end()) {
    return false;
  }
  const RegionEntry& entry = found->second;
  return parted_.MayTouch(entry.parted_before, session) ||
         std::any_of(entry.workers.begin(), entry.workers.end(),
                     [session](const CopyingProcess& worker) {
                       return worker.session() <= session && !worker.Ended();
                     });
}

bool Client::OutlivesLocked(const Call& call) const {
  if (call.confirms && call.regions.empty()) {
    return std::any_of(regions_.begin(), regions_.end(), [&](const auto& region) {
      return MayBeTouchedLocked(region.first, call.session);
    });
  }
  return std::any_of(call.regions.begin(), call.regions.end(), [&](terrace_region region) {
    return MayBeTouchedLocked(region, call.session);
  });
}

void Client::KeepOutlivedLocked() {
  callers_in_flight_ = 0;
  copying_calls_ = 0;
  outlived_calls_ = 0;
  next_expiry_ = kNever;
  for (auto it = calls_.begin(); it != calls_.end();) {
    Call& call = it->second;
    if (call.stage == Stage::kSent) {
      call.session = sessions_;
    }
    const bool was_with_daemon = call.stage == Stage::kSent || call.stage == Stage::kOutlived;
    if (call.completion == nullptr || !was_with_daemon || !OutlivesLocked(call)) {
      EndLostLocked(&call, was_with_daemon, trouble_.data());
      it = calls_.erase(it);
      continue;
    }
    call.stage = Stage::kOutlived;
    ++callers_in_flight_;
    copying_calls_ += call.copies() ? 1 : 0;
    ++outlived_calls_;
    next_expiry_ = std::min(next_expiry_, call.deadline);
    ++it;
  }
  if (outlived_calls_ > 0) {
    WatchWorkersLocked(true);
  }
}

void Client::EndLostLocked(Call* call, bool was_with_daemon, std::string_view text) {
  if (call->confirms && was_with_daemon) {
    CompleteLocked(call);  // what it asks for has come to pass
  } else {
    FailLocked(call, TERRACE_UNAVAILABLE, text);
  }
}

void Client::EndOutlivedLocked() {
  std::vector<uint64_t> over;
  for (const auto& [id, call] : calls_) {
    if (call.stage == Stage::kOutlived && !OutlivesLocked(call)) {
      over.push_back(id);
    }
  }
  std::sort(over.begin(), over.end());
  for (const uint64_t id : over) {
    Call call = TakeCallLocked(calls_.find(id));
    EndLostLocked(&call, true, "the session ended during the call");
  }
  if (outlived_calls_ == 0) {
    WatchWorkersLocked(false);  // one that has ended is readable for good
  }
}

// A call that outlived its session waits for that, and nobody may call meanwhile.
void Client::RegisterAgainLocked(Instant now) {
  register_again_at_ = kNever;
  if (outlived_calls_ == 0 || !link_.connected() || lost_) {
    return;
  }
  std::vector<terrace_region> due;
  for (const auto& [region, entry] : regions_) {
    const bool refused = entry.state == RegionEntry::State::kActive && entry.is_gpu &&
                         entry.refusal.status == TERRACE_ALREADY_EXISTS;
    if (refused && entry.refusal.retry_at <= now) {
      due.push_back(region);
    } else if (refused) {
      register_again_at_ = std::min(register_again_at_, entry.refusal.retry_at);
    }
  }
  for (const terrace_region region : due) {
    RegisterRegionLocked(region);
  }
}

void Client::CancelOutlivedLocked(Request* request, Call call, uint64_t* call_id) {
  const Instant now = Now();
  const uint32_t deadline_ms =
      request->deadline_ms == 0 ? options_.default_deadline_ms : request->deadline_ms;
  const uint64_t id = next_call_id_++;
  call.method = Method::kCancel;
  call.stage = Stage::kOutlived;
  call.deadline = now + int64_t{deadline_ms} * kNsPerMs;
  call.completion->call_id = id;
  call.completion->tag = request->tag;
  if (call_id != nullptr) {
    *call_id = id;
  }
  if (!OutlivesLocked(call)) {
    CompleteLocked(&call);
    return;
  }
  const Instant deadline = call.deadline;
  calls_.emplace(id, std::move(call));
  ++callers_in_flight_;
  ++outlived_calls_;
  next_expiry_ = std::min(next_expiry_, deadline);
  WatchWorkersLocked(true);
}

}  // namespace terrace::client
