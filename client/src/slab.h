// Slabs of the daemon's arena as this client maps them, and the leases that keep them mapped.
//
// Thread-compatible, but for Slab::Populate. What is promised: bytes under a lease stay mapped
// until the lease is released, also when the slab was retired or the daemon is gone; a slab that
// could shrink under a reader, and so kill it with SIGBUS, is never mapped.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "terrace/terrace.h"

#include "client/src/descriptor.h"
#include "client/src/request.h"

namespace terrace::client {

// What all slabs of a client share. Outlives them.
struct SlabsOfClient {
  std::atomic<uint64_t> mapped_bytes{0};  // of all of them
  std::mutex watching;                    // held while somebody is told
  terrace_slab_watch watch{};
};

class Slab {
 public:
  enum class State { kAsked, kMapped, kFailed };

  Slab(uint32_t id, SlabsOfClient* all) : id_(id), all_(all) {}
  Slab(const Slab&) = delete;
  Slab& operator=(const Slab&) = delete;
  ~Slab();

  // Maps it read-only. False, and kFailed: not a sealed memfd of at least `bytes`, or no memory.
  bool Map(const Descriptor& fd, uint64_t bytes);
  void SetFailed() { state_ = State::kFailed; }

  // Makes the kernel map its pages until *budget_ns is used up; the rest comes one fault at a time.
  // Any thread, also without the client's lock: what it reads does not change once the slab is
  // mapped.
  void Populate(int64_t* budget_ns) const;

  [[nodiscard]] uint32_t id() const { return id_; }
  [[nodiscard]] State state() const { return state_; }
  // The payload at [offset, offset + bytes); nullptr when it is not inside a mapped slab.
  [[nodiscard]] const char* At(uint64_t offset, uint64_t bytes) const;

 private:
  const uint32_t id_;
  SlabsOfClient* const all_;
  State state_ = State::kAsked;
  Mapping mapping_;
  uint64_t bytes_ = 0;  // usable; the mapping may be longer
};

// Owners: the table below while it may be leased again, leases, gets that wait for it, and a drain
// that populates it.
using SlabPtr = std::shared_ptr<Slab>;

struct LeaseRecord {
  Id128 daemon_id{};
  uint64_t boot_id = 0;
  uint64_t bytes = 0;
  std::vector<SlabPtr> slabs;
};

// Leases of this client. The ids that callers see are its own, so that an id of an earlier daemon
// never names a lease of the present one.
class LeaseTable {
 public:
  explicit LeaseTable(uint64_t nonce) : nonce_(nonce) {}
  // Throws std::bad_alloc, then nothing was added.
  terrace_id128 Add(LeaseRecord record);
  // Takes a lease out; false: unknown or released already.
  bool Remove(const terrace_id128& id, LeaseRecord* record);
  [[nodiscard]] uint64_t leased_bytes() const { return leased_bytes_; }
  [[nodiscard]] const std::unordered_map<uint64_t, LeaseRecord>& all() const { return leases_; }

 private:
  const uint64_t nonce_;
  uint64_t next_ = 1;
  uint64_t leased_bytes_ = 0;
  std::unordered_map<uint64_t, LeaseRecord> leases_;
};

}  // namespace terrace::client
