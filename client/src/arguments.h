// Checks of what callers hand to the ABI, before any allocation: every error is INVALID_ARGUMENT
// and names the field and its limit. Structs may be shorter (an older header) or longer (a newer
// one) than ours, as their struct_bytes says.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "terrace/terrace.h"
#include "terrace/watch.h"

#include "client/src/client.h"
#include "client/src/request.h"
#include "client/src/verdict.h"
#include "client/src/watcher.h"

namespace terrace::client {

// Copies what both sides know of a versioned struct; the rest is zero. False: struct_bytes is not
// set.
template <typename Struct>
bool CopyVersioned(const Struct* from, Struct* to) {
  *to = Struct{};
  uint32_t bytes = 0;
  std::memcpy(&bytes, from, sizeof(bytes));
  if (bytes < sizeof(bytes)) {
    return false;
  }
  std::memcpy(static_cast<void*>(to), from, bytes < sizeof(Struct) ? bytes : sizeof(Struct));
  return true;
}

// The number in an enum that a caller in C may have filled with anything; comparing the enum itself
// would be undefined.
template <typename Enum>
uint32_t NumberIn(const Enum& value) {
  static_assert(sizeof(Enum) == sizeof(uint32_t));
  uint32_t number = 0;
  std::memcpy(&number, &value, sizeof(number));
  return number;
}

Verdict CheckOptions(const terrace_options* options, ClientOptions* out);
Verdict CheckWatch(const terrace_watch_options* options, WatchOptions* out);
// The strings and arrays of *out are those of *record.
Verdict CheckRecord(const terrace_namespace_record* record, terrace_namespace_record* out);
Verdict CheckRegion(const terrace_region_spec* spec, terrace_region_spec* out);
Verdict CheckStaging(uint64_t block_bytes, uint32_t block_count);

enum class Blocks { kNone, kInRegion };
struct CallShape {
  Method method = Method::kProbe;
  uint32_t parts_most = kMaxParts;
  Blocks blocks = Blocks::kNone;
};
// Fills request->parts and what all calls have.
Verdict CheckCall(const terrace_call* call, const CallShape& shape, Request* request);
Verdict CheckGet(const terrace_call* call, const terrace_get_options* options, Request* request);
Verdict CheckPut(const terrace_call* call,
                 const terrace_put_options* options,
                 std::string_view payload,
                 Request* request);
Verdict CheckRelease(const terrace_id128* leases,
                     uint32_t lease_count,
                     const terrace_id128* holds,
                     uint32_t hold_count);

}  // namespace terrace::client
