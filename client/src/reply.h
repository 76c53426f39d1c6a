// Replies and pushes as views into the received bytes, and their transfer into completions.
//
// Decoders trust nothing: false means that the message is malformed or does not fit the call, and
// that the connection has to end. Unknown values of per-key enums read as a miss or as not stored.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>

#include "client/src/completion.h"
#include "client/src/frame.h"

namespace terrace::client {

// Numbers of fixed width end to end, as a packed field has them.
template <typename Number>
class PackedNumbers {
 public:
  PackedNumbers() = default;
  explicit PackedNumbers(std::string_view bytes) : bytes_(bytes) {}
  [[nodiscard]] size_t size() const { return bytes_.size() / sizeof(Number); }
  [[nodiscard]] Number operator[](size_t i) const {
    uint64_t value = 0;
    for (size_t k = 0; k < sizeof(Number); ++k) {
      value |= uint64_t{static_cast<uint8_t>(bytes_[i * sizeof(Number) + k])} << (8 * k);
    }
    return static_cast<Number>(value);
  }

 private:
  std::string_view bytes_;
};

struct HelloReply {
  uint64_t boot_id = 0;
  uint64_t features = 0;  // bit n: Feature n; those above 63 are left out
  bool leases = false;
  uint64_t lease_limit_bytes = 0;
  uint32_t max_keys = 0;
  uint32_t max_message_bytes = 0;
  uint32_t max_calls_in_flight = 0;
};
bool DecodeHello(std::string_view message, HelloReply* reply);

// *digest: 16 bytes.
bool DecodeOpenNamespace(std::string_view message, std::string_view* digest);
bool DecodeMapSlab(std::string_view message, uint64_t* slab_bytes);
bool DecodeSlabRetired(std::string_view message, uint32_t* slab_id);
bool DecodeGpuWorker(std::string_view message, uint32_t* region_id);
bool DecodeBackPressure(std::string_view message, uint32_t* retry_after_ms);

struct ErrorDetail {
  std::string_view message;
  std::string_view field;
  uint32_t retry_after_ms = 0;
};
bool DecodeError(std::string_view message, ErrorDetail* detail);

struct GetReply {
  std::string_view outcomes;
  PackedNumbers<uint32_t> payload_bytes;
  std::string_view lease_id;  // 16 bytes or empty
  PackedNumbers<uint32_t> slab_ids;
  PackedNumbers<uint64_t> slab_offsets;
};
// Checks that the arrays have key_count elements (those of a lease only where there is one).
bool DecodeGet(std::string_view message, uint32_t key_count, GetReply* reply);
// Of any GetReply that can be read at all; empty: no lease.
std::string_view LeaseOf(std::string_view message);

// Takes the reply to any other verb into its completion.
bool DecodeInto(std::string_view message, Completion* completion);

// The closest terrace_status; codes that the ABI does not have are TERRACE_INTERNAL.
terrace_status StatusOfWire(uint32_t code);
// An outcome of a get as the ABI has it.
uint8_t KnownGetOutcome(char wire);

}  // namespace terrace::client
