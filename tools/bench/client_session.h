// A session with the daemon through libterrace, one call at a time: what every scenario measures
// with.
//
// Each call submits and waits for its completion; what takes time in between is the library's and
// the daemon's. Confined to one thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "terrace/terrace.h"

namespace terrace::bench {

inline constexpr uint32_t kMaxKeysAGet = 16'384;

struct FreeCompletion {
  void operator()(terrace_completion* completion) const { terrace_completion_free(completion); }
};
using Completion = std::unique_ptr<terrace_completion, FreeCompletion>;

// A chain of keys, end to end, borrowed for a call; where they lie in a region, if they do.
struct KeyChain {
  terrace_namespace ns = 0;
  std::string_view keys;
  uint32_t key_bytes = 0;
  uint64_t first_token = 0;
  terrace_region region = 0;
  absl::Span<const uint32_t> block_indexes = {};
  terrace_rule rule = TERRACE_RULE_PREFIX;

  [[nodiscard]] uint32_t count() const { return static_cast<uint32_t>(keys.size() / key_bytes); }
  // The keys from `begin` on, at most `count` of them; block_tokens moves first_token.
  [[nodiscard]] KeyChain Slice(uint32_t begin, uint32_t count, uint32_t block_tokens) const;
  [[nodiscard]] std::string_view Key(uint32_t i) const {
    return keys.substr(size_t{i} * key_bytes, key_bytes);
  }
};

class ClientSession {
 public:
  // runtime_dir: folder of session.sock. Does not wait for the daemon.
  static absl::StatusOr<std::unique_ptr<ClientSession>> Open(const std::string& runtime_dir);
  // The same, and waits for the connection. Errors: UNAVAILABLE.
  static absl::StatusOr<std::unique_ptr<ClientSession>> Connect(const std::string& runtime_dir);
  ~ClientSession();
  ClientSession(const ClientSession&) = delete;
  ClientSession& operator=(const ClientSession&) = delete;
  ClientSession(ClientSession&&) = delete;
  ClientSession& operator=(ClientSession&&) = delete;

  bool WaitConnected(std::chrono::milliseconds limit);
  // Leased bytes that this session may have at a time.
  [[nodiscard]] uint64_t LeaseLimitBytes();

  // A namespace of this name with blocks of up to block_bytes.
  absl::StatusOr<terrace_namespace> OpenNamespace(const std::string& model,
                                                  uint64_t block_bytes,
                                                  uint32_t block_tokens);
  // block_count blocks of block_bytes end to end at the beginning of `fd`.
  absl::StatusOr<terrace_region> RegisterRegion(int fd, uint64_t block_bytes, uint32_t block_count);
  absl::StatusOr<terrace_region> RegisterRegion(const terrace_region_spec& spec);
  absl::Status UnregisterRegion(terrace_region region);

  // Each: the completion, its status OK; else the error that it carries.
  absl::StatusOr<Completion> Probe(const KeyChain& chain, std::chrono::milliseconds hold);
  // Zero hold: none.
  // Waits for what is on its way or on a lower tier where kWait.
  enum class Pending : uint8_t { kMiss, kWait };
  absl::StatusOr<Completion> GetLease(const KeyChain& chain,
                                      const terrace_id128& hold,
                                      Pending pending = Pending::kMiss);
  // The same in two halves, with no other call but Release between them.
  absl::Status BeginGetLease(const KeyChain& chain);
  absl::StatusOr<Completion> AwaitLease();
  // Begins to move blocks of lower tiers up; does not wait for them.
  absl::Status Prefetch(const KeyChain& chain);
  absl::StatusOr<Completion> GetIntoRegion(const KeyChain& chain,
                                           const terrace_id128& hold,
                                           Pending pending = Pending::kMiss);
  // parent "": the chain begins here.
  absl::StatusOr<Completion> Put(const KeyChain& chain,
                                 uint32_t payload_bytes,
                                 std::string_view parent,
                                 terrace_level wait_for = TERRACE_LEVEL_DRAM);
  // What is known of the request that the blocks belong to.
  struct Hints {
    uint32_t output_tokens = 0;  // 0: unknown
    std::string stop_reason;     // "": likewise
    uint32_t return_ms = 0;      // until the next turn; 0: likewise
    uint64_t compute_us = 0;     // of the blocks; 0: likewise
  };
  // The same with blocks of these sizes, one a key.
  absl::StatusOr<Completion> Put(const KeyChain& chain,
                                 absl::Span<const uint32_t> payload_bytes,
                                 std::string_view parent,
                                 terrace_level wait_for,
                                 const Hints& hints);
  absl::StatusOr<Completion> Put(const KeyChain& chain,
                                 absl::Span<const uint32_t> payload_bytes,
                                 std::string_view parent,
                                 terrace_level wait_for) {
    return Put(chain, payload_bytes, parent, wait_for, Hints{});
  }
  absl::Status Delete(const KeyChain& chain);
  absl::Status ClearNamespace(terrace_namespace ns);
  // Does not wait. Zero ids are passed over.
  absl::Status Release(const terrace_id128& lease, const terrace_id128& hold);

 private:
  explicit ClientSession(terrace_client* client) : client_(client) {}
  absl::StatusOr<Completion> Await(terrace_status submitted, const char* verb);
  terrace_status SubmitGet(const KeyChain& chain,
                           const terrace_id128& hold,
                           terrace_delivery delivery,
                           Pending pending);
  terrace_call CallOf(const terrace_part& part);

  terrace_client* client_;
  uint64_t tag_ = 0;
};

// Keys of a completion with this outcome.
uint32_t CountOutcomes(const terrace_completion& completion, uint8_t outcome);
// OK, or what the first key with another outcome got.
absl::Status AllOutcomes(const terrace_completion& completion, uint8_t outcome, const char* verb);
// Leading keys of a get that were delivered.
uint32_t DeliveredPrefix(const terrace_completion& completion);

}  // namespace terrace::bench
