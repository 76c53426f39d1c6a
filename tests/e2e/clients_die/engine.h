// An inference engine in small: one client of libterrace's C ABI, one namespace, one staging
// region, one call at a time. Confined to one thread. A call ends with its completion, or as a hung
// one (status kNever) after a generous bound.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "terrace/terrace.h"

#include "tests/e2e/clients_die/payload.h"

namespace terrace {

class Engine {
 public:
  // The status of a call whose completion never came: the library broke its promise.
  static constexpr int kNever = -1;
  static constexpr uint32_t kStagingBlocks = 16;

  struct Reply {
    int status = kNever;
    std::string error;
    std::vector<uint8_t> states;    // probe
    std::vector<uint8_t> outcomes;  // get, put
    std::vector<uint8_t> reasons;   // put
    std::vector<uint32_t> payload_bytes;
    std::vector<const void*> payload;  // by lease
    terrace_id128 lease{};
    terrace_id128 hold{};
  };

  // nullptr when the library refuses. Does not wait for the daemon.
  static std::unique_ptr<Engine> Open(const std::string& runtime_dir,
                                      const std::string& name,
                                      uint32_t deadline_ms);
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;
  ~Engine();

  bool WaitConnected(uint32_t timeout_ms) {
    return terrace_wait_connected(client_, timeout_ms) == TERRACE_OK;
  }
  // At most kStagingBlocks ids a call. Puts and loads go through the staging region.
  Reply Put(const std::vector<uint32_t>& ids);
  Reply Load(const std::vector<uint32_t>& ids);
  // Whether block k of the staging region has what Load(ids) should have brought there.
  bool Loaded(uint32_t k, uint32_t id, uint32_t payload_bytes) const;
  Reply Probe(const std::vector<uint32_t>& ids, uint32_t hold_ms);
  Reply Lease(const std::vector<uint32_t>& ids);
  Reply Release(const std::vector<terrace_id128>& leases, const std::vector<terrace_id128>& holds);
  // A put or get of given blocks of a region of the caller's.
  Reply PutFrom(terrace_region region, const std::vector<uint32_t>& ids, uint32_t payload_bytes);
  Reply LoadInto(terrace_region region, const std::vector<uint32_t>& ids);

  terrace_client_state State() const;
  [[nodiscard]] terrace_client* client() { return client_; }

 private:
  Engine() = default;
  struct Batch;  // what a terrace_call points at
  Reply Wait(terrace_status submitted);
  Reply Put(terrace_region region,
            const std::vector<uint32_t>& ids,
            const std::vector<uint32_t>& payload_bytes);

  terrace_client* client_ = nullptr;
  terrace_namespace ns_ = 0;
  terrace_region staging_ = 0;
  char* staging_memory_ = nullptr;
  uint64_t stride_ = 0;
  uint32_t deadline_ms_ = 0;
  uint64_t tag_ = 0;
};

bool IsZero(const terrace_id128& id);

}  // namespace terrace
