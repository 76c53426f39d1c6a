// The record of a namespace as a watch tells it: what its struct points to is kept with it.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "terrace/terrace.h"

namespace terrace::client {

// Immovable, because the struct points into it; immutable after Decode.
class WatchedRecord {
 public:
  WatchedRecord() = default;
  WatchedRecord(const WatchedRecord&) = delete;
  WatchedRecord& operator=(const WatchedRecord&) = delete;

  // `message`: NamespaceRecord of cache.proto, which is not needed afterwards. False: malformed.
  // Throws std::bad_alloc.
  bool Decode(std::string_view message);
  [[nodiscard]] const terrace_namespace_record& record() const { return record_; }

 private:
  const char* Keep(std::string_view text);
  bool DecodeLabel(std::string_view message);
  // Where the text of a field of NamespaceRecord goes; nullptr: it is none.
  const char** TextOf(uint32_t number);

  terrace_namespace_record record_{};
  std::deque<std::string> texts_;
  std::vector<terrace_label> labels_;
};

}  // namespace terrace::client
