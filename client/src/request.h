// A submit's arguments after they were checked, and their encoding as a message of cache.proto.
//
// Everything here points into the caller's memory and lives as long as the submit.
// Thread-compatible.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "terrace/terrace.h"

#include "client/src/frame.h"

namespace terrace::client {

inline constexpr uint32_t kMaxKeys = 16384;
inline constexpr uint32_t kMaxParts = 64;
inline constexpr size_t kDigestBytes = 16;
inline constexpr uint32_t kMaxReleases = 1024;
inline constexpr uint64_t kMaxInlineBytes = uint64_t{3} << 20;

using Id128 = std::array<char, kDigestBytes>;

struct PartSpec {
  terrace_part part;    // as given, missing fields zero
  const Id128* digest;  // of part.ns; nullptr: not known yet
};

struct Request {
  Method method = Method::kPing;
  uint64_t tag = 0;
  uint32_t deadline_ms = 0;  // 0: the client's default
  std::string_view request_id;

  uint32_t part_count = 0;
  uint32_t key_count = 0;                 // over all parts
  std::array<PartSpec, kMaxParts> parts;  // the first part_count

  // probe, prefetch
  uint32_t hold_ms = 0;
  bool prefetch = false;
  terrace_priority priority = TERRACE_PRIORITY_NORMAL;
  uint32_t prefetch_deadline_ms = 0;

  // get
  terrace_delivery delivery = TERRACE_DELIVER_LEASE;
  std::string_view hold;  // 16 bytes or none
  bool wait_pending = false;

  // put
  const uint32_t* payload_bytes = nullptr;
  std::string_view parent;
  std::string_view payload;
  uint32_t wait_for = 0;
  uint32_t output_tokens = 0;
  std::string_view stop_reason;
  bool session_end = false;
  uint32_t expected_return_ms = 0;
  uint64_t compute_us = 0;

  // ticket, cancel, pin, clear
  uint64_t ticket = 0;
  uint32_t wait_ms = 0;
  uint64_t target_call_id = 0;
  uint32_t ttl_s = 0;
  terrace_namespace ns = 0;
  const Id128* digest = nullptr;

  // release: 16 bytes each, end to end, as the daemon knows them
  std::string_view leases;
  std::string_view holds;
};

// Where the digest of a namespace belongs that is not known yet: sixteen zero bytes at `offset` of
// the frame.
struct DigestSlot {
  size_t offset = 0;
  terrace_namespace ns = 0;
};

// Appends the message to *frame and what has to be filled in later to *missing. Throws
// std::bad_alloc.
void EncodeRequest(const Request& request, std::string* frame, std::vector<DigestSlot>* missing);

// ---- what the library says by itself; each appends its message to *frame and throws
// std::bad_alloc.
struct Greeting {
  std::string_view client_name;
  std::string_view client_version;
  bool pidfd = false;
};
void EncodeHello(const Greeting& greeting, std::string* frame);
// The record without struct_bytes; labels in the order of their keys, so that equal records have
// equal bytes.
void EncodeOpenNamespace(const terrace_namespace_record& record, std::string* frame);
void EncodeRegisterRegion(uint32_t region_id, const terrace_region_spec& spec, std::string* frame);
void EncodeUnregisterRegion(uint32_t region_id, std::string* frame);
void EncodeMapSlab(uint32_t slab_id, std::string* frame);

}  // namespace terrace::client
