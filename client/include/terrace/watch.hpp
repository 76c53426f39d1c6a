// C++ over watch.h: a watch that ends with its object. Header-only, C++17, standard library alone.
//
//   terrace::Watch watch = terrace::Watch::Open();
//   for (const terrace_event& event : watch.Next(terrace::Milliseconds(1000))) { ... }
//
// Nothing throws but for memory of options. A watch whose making failed is false in a boolean
// context, status() says why, and it has no events. Thread-compatible.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "terrace/options.hpp"
#include "terrace/watch.h"

namespace terrace {
inline namespace client_api_0 {

struct WatchOptions {
  std::string runtime_dir;    // as in Options, as are the next two
  std::string client_name;
  Milliseconds reconnect{0};
  bool snapshots = true;      // first, and after each gap
  uint64_t publisher_id = 0;  // of an earlier watch's state: goes on from there
  uint64_t after_sequence = 0;
  std::vector<terrace_id128> namespaces;  // none: all of the tenant's
  Milliseconds heartbeat{0};
};

// Events that came together; valid until the next call of Next.
class Events {
 public:
  Events() = default;
  Events(const terrace_event* first, uint32_t count) : first_(first), count_(count) {}
  [[nodiscard]] const terrace_event* begin() const { return first_; }
  [[nodiscard]] const terrace_event* end() const { return first_ + count_; }
  [[nodiscard]] size_t size() const { return count_; }
  [[nodiscard]] bool empty() const { return count_ == 0; }

 private:
  const terrace_event* first_ = nullptr;
  uint32_t count_ = 0;
};

// A key of an event; `index` below event.key_count.
inline std::string_view KeyOf(const terrace_event& event, uint32_t index) {
  return {static_cast<const char*>(event.keys) + size_t{event.key_bytes} * index, event.key_bytes};
}

class Watch {
 public:
  // Never waits for the daemon, which may be absent.
  static Watch Open(const WatchOptions& options = {}) {
    terrace_watch_options given{};
    given.struct_bytes = sizeof(given);
    given.runtime_dir = options.runtime_dir.empty() ? nullptr : options.runtime_dir.c_str();
    given.client_name = options.client_name.empty() ? nullptr : options.client_name.c_str();
    given.reconnect_ms = options.reconnect.count();
    given.snapshots = options.snapshots ? 1 : 0;
    given.publisher_id = options.publisher_id;
    given.after_sequence = options.after_sequence;
    given.namespaces = options.namespaces.empty() ? nullptr : options.namespaces.front().bytes;
    given.namespace_count = static_cast<uint32_t>(options.namespaces.size());
    given.heartbeat_ms = options.heartbeat.count();
    Watch watch;
    terrace_watch* opened = nullptr;
    watch.status_ = terrace_watch_open(&given, &opened);
    watch.watch_.reset(opened);
    if (watch.status_ != TERRACE_OK) {
      std::strncpy(watch.error_.data(), terrace_last_error(), watch.error_.size() - 1);
    }
    return watch;
  }

  explicit operator bool() const { return watch_ != nullptr; }
  [[nodiscard]] terrace_status status() const { return status_; }
  // "" when it was opened; names the field and the limit.
  [[nodiscard]] const char* error() const { return error_.data(); }

  // Waits at most so long for some.
  Events Next(Milliseconds limit = Milliseconds(0)) noexcept {
    const terrace_event* first = nullptr;
    const uint32_t count = terrace_watch_next(watch_.get(), &first, limit.count());
    return {first, count};
  }
  // Readable when Next has something to do.
  [[nodiscard]] int event_fd() const { return terrace_watch_event_fd(watch_.get()); }
  [[nodiscard]] terrace_watch_state State() const {
    terrace_watch_state state{};
    state.struct_bytes = sizeof(state);
    if (terrace_watch_get_state(watch_.get(), &state) != TERRACE_OK) {
      state = {};
    }
    return state;
  }

 private:
  struct Close {
    void operator()(terrace_watch* watch) const { terrace_watch_close(watch); }
  };
  Watch() = default;

  std::unique_ptr<terrace_watch, Close> watch_;
  terrace_status status_ = TERRACE_UNAVAILABLE;
  std::array<char, 160> error_{};
};

}  // namespace client_api_0
}  // namespace terrace
