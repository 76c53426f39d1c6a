// Client: namespaces, regions and staging, which outlive sessions.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "client/src/client.h"

namespace terrace::client {
namespace {

constexpr int64_t kLeastRetryNs = 10 * kNsPerMs;
constexpr size_t kStagingAlignment = 4096;
constexpr size_t kProgressPageBytes = 4096;

// Small blocks lie at cache lines, large ones at pages.
uint64_t StrideOf(uint64_t block_bytes) {
  const uint64_t alignment = block_bytes < kStagingAlignment ? 64 : kStagingAlignment;
  return (block_bytes + alignment - 1) / alignment * alignment;
}

// What the kernel believes could be used without swapping, from MemAvailable of /proc/meminfo; 0:
// not to be known.
uint64_t AvailableBytes() {
  const Descriptor file(::open("/proc/meminfo", O_RDONLY | O_CLOEXEC));
  char text[512] = {};
  const ssize_t got = file.valid() ? ::read(file.get(), text, sizeof(text) - 1) : 0;
  const char* line = got > 0 ? std::strstr(text, "MemAvailable:") : nullptr;
  constexpr size_t kNameBytes = sizeof("MemAvailable:") - 1;
  return line == nullptr ? 0 : std::strtoull(line + kNameBytes, nullptr, 10) * 1024;
}

// All pages are there when this returns: without memory it fails here and not with a signal at the
// first write. A memfd has no limit of its own, and the kernel would kill processes before it
// refuses, so what can't fit is refused beforehand.
Verdict MakeStaging(uint64_t bytes, Descriptor* fd, Mapping* mapping) {
  Verdict refused{TERRACE_RESOURCE_EXHAUSTED,
                  "no memory for " + std::to_string(bytes) + " bytes of staging"};
  const uint64_t available = AvailableBytes();
  if (available != 0 && bytes > available) {
    return refused;
  }
  *fd = Descriptor(static_cast<int>(
      ::syscall(SYS_memfd_create, "terrace-staging", MFD_CLOEXEC | MFD_ALLOW_SEALING)));
  if (!fd->valid() || ::ftruncate(fd->get(), static_cast<off_t>(bytes)) != 0 ||
      ::fcntl(fd->get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return refused;
  }
  *mapping = Mapping::Map(*fd, bytes, PROT_READ | PROT_WRITE);
  if (!mapping->valid()) {
    return refused;
  }
  // Only a wish; before pages are there.
  ::madvise(mapping->data(), mapping->size(), MADV_HUGEPAGE);
  if (::fallocate(fd->get(), 0, 0, static_cast<off_t>(bytes)) != 0) {
    return refused;
  }
#ifndef MADV_POPULATE_WRITE
  constexpr int MADV_POPULATE_WRITE = 23;
#endif
  ::madvise(mapping->data(), mapping->size(), MADV_POPULATE_WRITE);
  return {};
}

bool Transient(terrace_status status) {
  return status == TERRACE_RESOURCE_EXHAUSTED || status == TERRACE_UNAVAILABLE ||
         status == TERRACE_DEADLINE_EXCEEDED || status == TERRACE_CANCELLED;
}

}  // namespace

Client::Refusal Client::RefusalOf(const ReceivedFrame& frame, Instant now) {
  ErrorDetail detail;
  DecodeError(frame.message, &detail);
  Refusal refusal;
  refusal.status = StatusOfWire(frame.header.status);
  if (!detail.field.empty()) {
    refusal.text.append(detail.field).append(": ");
  }
  refusal.text.append(detail.message);
  if (Transient(refusal.status)) {
    refusal.retry_at = now + std::max(kLeastRetryNs, int64_t{detail.retry_after_ms} * kNsPerMs);
  }
  return refusal;
}

Verdict Client::OpenNamespace(const terrace_namespace_record& record, terrace_namespace* out) {
  if (!SameProcess()) {
    return {TERRACE_FAILED_PRECONDITION, "a child of fork must open a client of its own"};
  }
  std::string opening;
  EncodeOpenNamespace(record, &opening);
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto known = namespace_by_record_.find(opening);
  if (known != namespace_by_record_.end()) {
    *out = known->second;
    return {};
  }
  if (namespaces_.size() >= kMaxNamespaces) {
    return {TERRACE_RESOURCE_EXHAUSTED,
            "more than " + std::to_string(kMaxNamespaces) + " namespaces of one client"};
  }
  NamespaceEntry entry;
  entry.opening = opening;
  namespaces_.push_back(std::move(entry));
  const auto ns = static_cast<terrace_namespace>(namespaces_.size());
  try {
    namespace_by_record_.emplace(std::move(opening), ns);
  } catch (...) {
    namespaces_.pop_back();
    return {TERRACE_RESOURCE_EXHAUSTED, "no memory"};
  }
  *out = ns;
  EnsureConnectedLocked(Now());
  // A session that has just begun has opened it with all the others.
  if (!namespaces_.back().asked) {
    OpenNamespaceLocked(ns);
  }
  SettleLocked();
  return {};
}

void Client::OpenNamespaceLocked(terrace_namespace ns) {
  NamespaceEntry& entry = namespaces_[ns - 1];
  entry.refusal = Refusal{};
  entry.asked = link_.connected();
  Call call;
  call.subject = ns;
  SendOwnLocked(Method::kOpenNamespace, std::move(call), entry.opening, -1);
}

void Client::TakeNamespaceLocked(const Call& call, const ReceivedFrame& frame, Instant now) {
  NamespaceEntry& entry = namespaces_[call.subject - 1];
  if (frame.header.status != TERRACE_OK) {
    entry.refusal = RefusalOf(frame, now);
  } else {
    std::string_view digest;
    if (!DecodeOpenNamespace(frame.message, &digest)) {
      GiveUpLocked("a malformed reply to OpenNamespace");
      return;
    }
    std::memcpy(entry.digest.data(), digest.data(), entry.digest.size());
    entry.digest_known = true;
  }
  SendWaitingLocked(now);
}

// Sends the calls whose namespaces are all known, and ends those with a refused one.
void Client::SendWaitingLocked(Instant now) {
  std::deque<uint64_t> still;
  while (!waiting_calls_.empty()) {
    const uint64_t id = waiting_calls_.front();
    waiting_calls_.pop_front();
    const auto found = calls_.find(id);
    if (found == calls_.end()) {
      continue;  // expired or cancelled
    }
    Call& call = found->second;
    const Refusal* refusal = nullptr;
    bool known = true;
    for (const DigestSlot& slot : call.missing) {
      const NamespaceEntry& entry = namespaces_[slot.ns - 1];
      known = known && entry.digest_known;
      refusal = entry.refusal.status != TERRACE_OK ? &entry.refusal : refusal;
      std::memcpy(call.frame.data() + slot.offset, entry.digest.data(), entry.digest.size());
    }
    if (refusal != nullptr) {
      Call refused = TakeCallLocked(found);
      FailLocked(&refused, refusal->status, refusal->text);
    } else if (known) {
      waiting_bytes_ -= call.frame.size();
      call.stage = Stage::kSent;
      SendCallLocked(&call.frame, call.method, id, call.deadline, now);
      call.frame = std::string();
    } else {
      still.push_back(id);
    }
  }
  waiting_calls_ = std::move(still);
}

Verdict Client::RegisterRegion(const terrace_region_spec& spec,
                               Mapping staging,
                               terrace_region* out) {
  if (!SameProcess()) {
    return {TERRACE_FAILED_PRECONDITION, "a child of fork must open a client of its own"};
  }
  RegionEntry entry;
  entry.is_gpu = spec.memory != TERRACE_MEMORY_HOST;
  const bool by_descriptor = spec.memory != TERRACE_MEMORY_CUDA_IPC;
  if (by_descriptor) {
    entry.fd = Descriptor(::fcntl(spec.fd, F_DUPFD_CLOEXEC, 0));
  }
  if (by_descriptor && !entry.fd.valid()) {
    return errno == EBADF
               ? Verdict::Invalid("fd: not an open descriptor")
               : Verdict{TERRACE_RESOURCE_EXHAUSTED, "fd: this process has no descriptor left"};
  }
  entry.is_staging = staging.valid();
  entry.staging = std::move(staging);
  const std::lock_guard<std::mutex> lock(mutex_);
  if (regions_.size() >= kMaxRegions) {
    return {TERRACE_RESOURCE_EXHAUSTED,
            "more than " + std::to_string(kMaxRegions) + " regions of one client"};
  }
  const terrace_region region = next_region_++;
  EncodeRegisterRegion(region, spec, &entry.registration);
  if (spec.canary_block != 0) {
    terrace_region_spec again = spec;
    again.canary_block = 0;
    EncodeRegisterRegion(region, again, &entry.registration_again);
  }
  if (entry.registration.size() > kMaxMessageBytes) {
    return Verdict::Invalid("planes: the geometry exceeds 4 MiB");
  }
  EnsureConnectedLocked(Now());
  entry.parted_before = parted_.total();
  regions_.emplace(region, std::move(entry));
  RegisterRegionLocked(region);
  *out = region;
  SettleLocked();
  return {};
}

void Client::RegisterRegionLocked(terrace_region region) {
  RegionEntry& entry = regions_.at(region);
  entry.refusal = Refusal{};
  Call call;
  call.subject = region;
  call.brings_descriptor = entry.is_gpu;
  SendOwnLocked(Method::kRegisterRegion, std::move(call), entry.registration,
                entry.fd.valid() ? entry.fd.get() : -1);
}

void Client::TakeRegionLocked(const Call& call, ReceivedFrame* frame, Instant now) {
  const auto found = regions_.find(call.subject);
  if (found == regions_.end()) {
    return;
  }
  RegionEntry& entry = found->second;
  entry.page = Mapping();
  entry.page_fd = Descriptor();
  if (frame->header.status != TERRACE_OK) {
    entry.refusal = RefusalOf(*frame, now);
    // The session before this one may not have been taken leave of yet.
    if (entry.is_gpu && entry.refusal.status == TERRACE_ALREADY_EXISTS) {
      entry.refusal.retry_at = now + kLeastRetryNs;
      register_again_at_ = std::min(register_again_at_, entry.refusal.retry_at);
    }
    return;
  }
  // A handle is one session's alone: what copied for an earlier one of the same daemon has ended.
  if (entry.is_gpu && !entry.fd.valid() && sessions_ > 0) {
    LetGoLocked(&entry, sessions_ - 1);
  }
  if (!entry.registration_again.empty()) {
    entry.registration = std::exchange(entry.registration_again, std::string());
  }
  if (frame->header.descriptor_count == 1) {
    entry.page_fd = std::move(frame->descriptors[0]);
    entry.page = Mapping::Map(entry.page_fd, kProgressPageBytes, PROT_READ | PROT_WRITE);
  }
}

std::atomic<uint32_t>* Client::CounterLocked(terrace_region region, uint32_t progress_slot) {
  const auto found = regions_.find(region);
  if (found == regions_.end() || !found->second.page.valid() || progress_slot == 0 ||
      progress_slot > kProgressPageBytes / sizeof(uint32_t)) {
    return nullptr;
  }
  return reinterpret_cast<std::atomic<uint32_t>*>(found->second.page.data()) + progress_slot - 1;
}

void Client::ResetProgressLocked(const Request& request) {
  for (uint32_t i = 0; i < request.part_count; ++i) {
    const terrace_part& part = request.parts[i].part;
    if (std::atomic<uint32_t>* const counter = CounterLocked(part.region, part.progress_slot);
        counter != nullptr) {
      counter->store(0);
    }
  }
}

Verdict Client::WaitLayers(uint64_t call_id,
                           terrace_region region,
                           uint32_t progress_slot,
                           uint32_t layers,
                           uint32_t timeout_ms) {
  constexpr timespec kPause = {0, 20'000};  // far below what a layer takes
  if (!SameProcess()) {
    return {TERRACE_FAILED_PRECONDITION, "a child of fork must open a client of its own"};
  }
  const Instant until = Now() + int64_t{timeout_ms} * kNsPerMs;
  for (;;) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      AdvanceLocked(Now());
      const std::atomic<uint32_t>* const counter = CounterLocked(region, progress_slot);
      const bool landed = counter != nullptr && counter->load() >= layers;
      const bool running = calls_.find(call_id) != calls_.end();
      SettleLocked();
      if (landed) {
        return {};
      }
      if (!running) {
        return {TERRACE_NOT_FOUND, "call_id: it has ended"};
      }
    }
    if (Now() >= until) {
      return {TERRACE_DEADLINE_EXCEEDED, "the layers have not landed in time"};
    }
    ::nanosleep(&kPause, nullptr);
  }
}

Verdict Client::ProgressPage(terrace_region region, int* fd) {
  if (!SameProcess()) {
    return {TERRACE_FAILED_PRECONDITION, "a child of fork must open a client of its own"};
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  AdvanceLocked(Now());
  const auto found = regions_.find(region);
  if (found == regions_.end() || !found->second.page.valid()) {
    return {TERRACE_UNAVAILABLE, "region: not registered now"};
  }
  *fd = ::fcntl(found->second.page_fd.get(), F_DUPFD_CLOEXEC, 0);
  return *fd < 0 ? Verdict{TERRACE_RESOURCE_EXHAUSTED, "this process has no descriptor left"}
                 : Verdict{};
}

void Client::RetryRefusedLocked(const Request& request, const Call& call, Instant now) {
  if (!link_.connected()) {
    return;
  }
  const auto retry = [&](terrace_namespace ns) {
    if (namespaces_[ns - 1].refusal.retry_at <= now) {
      OpenNamespaceLocked(ns);
    }
  };
  for (uint32_t i = 0; i < request.part_count; ++i) {
    retry(request.parts[i].part.ns);
  }
  if (request.ns != 0) {
    retry(request.ns);
  }
  for (const terrace_region region : call.regions) {
    if (regions_.at(region).refusal.retry_at <= now) {
      RegisterRegionLocked(region);
    }
  }
}

Verdict Client::CreateStaging(uint64_t block_bytes,
                              uint32_t block_count,
                              terrace_region* region,
                              void** memory,
                              uint64_t* stride) {
  const uint64_t step = StrideOf(block_bytes);
  Descriptor fd;
  Mapping mapping;
  const uint64_t bytes =
      (step * block_count + kStagingAlignment - 1) / kStagingAlignment * kStagingAlignment;
  Verdict verdict = MakeStaging(bytes, &fd, &mapping);
  if (!verdict.ok()) {
    return verdict;
  }
  const terrace_segment payload{0, block_bytes};
  const terrace_plane plane{0, step, &payload, 1};
  terrace_region_spec spec{};
  spec.struct_bytes = sizeof(spec);
  spec.fd = fd.get();
  spec.bytes = bytes;
  spec.block_count = block_count;
  spec.planes = &plane;
  spec.plane_count = 1;
  char* address = mapping.data();
  verdict = RegisterRegion(spec, std::move(mapping), region);
  if (verdict.ok()) {
    *memory = address;
    *stride = step;
  }
  return verdict;
}

Verdict Client::UnregisterRegion(terrace_region region, uint32_t timeout_ms, RegionKind kind) {
  if (!SameProcess()) {
    return {TERRACE_FAILED_PRECONDITION, "a child of fork must open a client of its own"};
  }
  const Instant until = Now() + int64_t{timeout_ms} * kNsPerMs;
  RegionEntry ended;  // outlives the lock: unmapping takes time
  std::unique_lock<std::mutex> lock(mutex_);
  const auto found = regions_.find(region);
  if (found == regions_.end() || (kind == RegionKind::kStaging && !found->second.is_staging)) {
    return {TERRACE_NOT_FOUND, "region: not a region of this client"};
  }
  if (found->second.state == RegionEntry::State::kActive) {
    found->second.state = RegionEntry::State::kUnregistering;
    // Its calls that were never sent; those that were end by themselves, before the daemon answers.
    const std::deque<uint64_t> waiting = waiting_calls_;
    for (const uint64_t id : waiting) {
      const auto call = calls_.find(id);
      const auto uses = [&](const Call& c) {
        return std::find(c.regions.begin(), c.regions.end(), region) != c.regions.end();
      };
      if (call != calls_.end() && uses(call->second)) {
        Call dropped = TakeCallLocked(call);
        FailLocked(&dropped, TERRACE_CANCELLED, "its region was unregistered");
      }
    }
  }
  Verdict verdict = UnregisterLocked(region, &lock, until);
  if (verdict.ok()) {
    const auto gone = regions_.find(region);
    if (gone != regions_.end()) {
      ended = std::move(gone->second);
      regions_.erase(gone);
    }
  }
  SettleLocked();
  return verdict;
}

Verdict Client::UnregisterLocked(terrace_region region,
                                 std::unique_lock<std::mutex>* lock,
                                 Instant until) {
  for (;;) {
    const auto found = regions_.find(region);
    const bool over = found == regions_.end() || found->second.state == RegionEntry::State::kGone ||
                      !link_.connected() || lost_;
    if (over && !MayBeTouchedLocked(region, sessions_)) {
      return {};
    }
    RegionEntry& entry = found->second;
    const Instant now = Now();
    if (!over && (!entry.unregister_asked || entry.unregister_again_at <= now)) {
      entry.unregister_asked = true;
      entry.unregister_again_at = kNever;
      std::string message;
      EncodeUnregisterRegion(region, &message);
      Call call;
      call.subject = region;
      SendOwnLocked(Method::kUnregisterRegion, std::move(call), message, -1);
      continue;
    }
    if (now >= until) {
      return {TERRACE_DEADLINE_EXCEEDED, "terraced may still touch the region"};
    }
    WaitInSlice(lock, std::min(until, entry.unregister_again_at));
  }
}

void Client::TakeUnregisteredLocked(const Call& call, const ReceivedFrame& frame, Instant now) {
  const auto found = regions_.find(call.subject);
  if (found == regions_.end()) {
    return;
  }
  if (frame.header.status == TERRACE_OK) {
    found->second.state = RegionEntry::State::kGone;
    LetGoLocked(&found->second, sessions_);
  } else {
    const Refusal refusal = RefusalOf(frame, now);
    found->second.unregister_again_at =
        refusal.retry_at != kNever ? refusal.retry_at : now + kLeastRetryNs;
  }
}

}  // namespace terrace::client
