// The functions of watch.h: check the arguments, call the watch. No exception leaves this file.
#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#include "terrace/watch.h"

#include "client/src/arguments.h"
#include "client/src/guarded.h"
#include "client/src/watcher.h"

struct terrace_watch {
  terrace::client::Watcher watcher;
};

using terrace::client::Guarded;
using terrace::client::Verdict;

extern "C" {

terrace_status terrace_watch_open(const terrace_watch_options* options, terrace_watch** out) {
  return Guarded([&]() -> Verdict {
    if (out == nullptr) {
      return Verdict::Invalid("out: null");
    }
    *out = nullptr;
    terrace::client::WatchOptions checked;
    Verdict verdict = terrace::client::CheckWatch(options, &checked);
    if (!verdict.ok()) {
      return verdict;
    }
    std::unique_ptr<terrace_watch> opened(
        new terrace_watch{terrace::client::Watcher(std::move(checked))});
    verdict = opened->watcher.Open();
    if (verdict.ok()) {
      *out = opened.release();
    }
    return verdict;
  });
}

void terrace_watch_close(terrace_watch* watch) {
  const std::unique_ptr<terrace_watch> owned(watch);
}

uint32_t terrace_watch_next(terrace_watch* watch,
                            const terrace_event** events,
                            uint32_t timeout_ms) {
  if (events != nullptr) {
    *events = nullptr;
  }
  return watch == nullptr || events == nullptr || !watch->watcher.SameProcess()
             ? 0
             : watch->watcher.Next(events, timeout_ms);
}

int terrace_watch_event_fd(terrace_watch* watch) {
  return watch == nullptr || !watch->watcher.SameProcess() ? -1 : watch->watcher.event_descriptor();
}

terrace_status terrace_watch_get_state(terrace_watch* watch, terrace_watch_state* out) {
  return Guarded([&]() -> Verdict {
    if (watch == nullptr || out == nullptr || out->struct_bytes < sizeof(uint32_t)) {
      return Verdict::Invalid("out: null, or struct_bytes not set");
    }
    if (!watch->watcher.SameProcess()) {
      return {TERRACE_FAILED_PRECONDITION, "a child of fork must open a watch of its own"};
    }
    const uint32_t bytes = out->struct_bytes;
    terrace_watch_state state = watch->watcher.State();
    state.struct_bytes = bytes;
    std::memcpy(out, &state, std::min<size_t>(bytes, sizeof(state)));
    return {};
  });
}

}  // extern "C"
