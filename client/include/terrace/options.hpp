// What a client and its calls may be told; part of terrace.hpp. Zero, empty or null: the default.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "terrace/terrace.h"

namespace terrace {
inline namespace client_api_0 {

using Milliseconds = std::chrono::duration<uint32_t, std::milli>;

struct Options {
  std::string runtime_dir;   // "": $TERRACE_RUNTIME, else /run/terrace
  std::string client_name;   // "": libterrace
  Milliseconds deadline{0};  // of calls that name none; 0: one second
  Milliseconds reconnect{
      0};                // least time between attempts to reach an absent daemon; 0: one second
  uint32_t spin_us = 0;  // as terrace_options has it
  terrace_slab_watch slabs{};  // likewise
};

struct ProbeOptions {
  Milliseconds deadline{0};
  Milliseconds hold{0};
  bool prefetch = false;
};
struct GetOptions {
  Milliseconds deadline{0};
  terrace_id128 hold{};
  bool wait_pending = false;
};
struct PutOptions {
  Milliseconds deadline{0};
  const uint32_t* payload_bytes = nullptr;  // one a key; nullptr: block_bytes of the namespace
  std::string_view parent;
  terrace_level wait_for = TERRACE_LEVEL_DRAM;
  std::chrono::microseconds compute_time{0};  // of the blocks; 0: not told
};

}  // namespace client_api_0
}  // namespace terrace
