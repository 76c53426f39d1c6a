#include "client/src/slab.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "client/src/instant.h"

namespace terrace::client {

Slab::~Slab() {
  if (!mapping_.valid()) {
    return;
  }
  all_->mapped_bytes.fetch_sub(mapping_.size(), std::memory_order_relaxed);
  const terrace_slab_watch& watch = all_->watch;
  if (watch.unmapping != nullptr) {
    const std::lock_guard<std::mutex> lock(all_->watching);
    watch.unmapping(watch.context, mapping_.data(), mapping_.size());
  }
}

bool Slab::Map(const Descriptor& fd, uint64_t bytes) {
  state_ = State::kFailed;
  struct stat status {};
  if (bytes == 0 || ::fstat(fd.get(), &status) != 0 || status.st_size < 0 ||
      static_cast<uint64_t>(status.st_size) < bytes) {
    return false;
  }
  const int seals = ::fcntl(fd.get(), F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) {
    return false;
  }
  // All of the file, whose size is a multiple of its page size: a part of a huge page could not be
  // unmapped.
  mapping_ = Mapping::Map(fd, static_cast<size_t>(status.st_size), PROT_READ);
  if (!mapping_.valid()) {
    return false;
  }
  bytes_ = bytes;
  all_->mapped_bytes.fetch_add(mapping_.size(), std::memory_order_relaxed);
  const terrace_slab_watch& watch = all_->watch;
  if (watch.mapped != nullptr) {
    const std::lock_guard<std::mutex> lock(all_->watching);
    watch.mapped(watch.context, mapping_.data(), mapping_.size());
  }
  state_ = State::kMapped;
  return true;
}

void Slab::Populate(int64_t* budget_ns) const {
#ifndef MADV_POPULATE_READ
  constexpr int MADV_POPULATE_READ =
      22;  // Linux 5.14; older kernels refuse it and pages come one fault at a time
#endif
  constexpr size_t kChunk = size_t{16} << 20;
  for (size_t at = 0; at<bytes_&& * budget_ns> 0; at += kChunk) {
    const Instant begun = Now();
    const size_t chunk = std::min<size_t>(kChunk, bytes_ - at);
    if (::madvise(mapping_.data() + at, chunk, MADV_POPULATE_READ) != 0) {
      return;
    }
    *budget_ns -= Now() - begun;
  }
}

const char* Slab::At(uint64_t offset, uint64_t bytes) const {
  if (state_ != State::kMapped || bytes > bytes_ || offset > bytes_ - bytes) {
    return nullptr;
  }
  return mapping_.data() + offset;
}

terrace_id128 LeaseTable::Add(LeaseRecord record) {
  const uint64_t number = next_++;
  const uint64_t bytes = record.bytes;
  leases_.emplace(number, std::move(record));
  leased_bytes_ += bytes;
  terrace_id128 id{};
  std::memcpy(id.bytes, &number, sizeof(number));
  std::memcpy(id.bytes + sizeof(number), &nonce_, sizeof(nonce_));
  return id;
}

bool LeaseTable::Remove(const terrace_id128& id, LeaseRecord* record) {
  uint64_t number = 0;
  uint64_t nonce = 0;
  std::memcpy(&number, id.bytes, sizeof(number));
  std::memcpy(&nonce, id.bytes + sizeof(number), sizeof(nonce));
  const auto found = nonce == nonce_ ? leases_.find(number) : leases_.end();
  if (found == leases_.end()) {
    return false;
  }
  *record = std::move(found->second);
  leased_bytes_ -= record->bytes;
  leases_.erase(found);
  return true;
}

}  // namespace terrace::client
