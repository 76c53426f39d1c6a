// The daemon's structured log: one line an event on a descriptor, as logfmt or JSON.
//
// Writing never blocks the caller: lines go through a bounded queue to a thread of the log, and
// when the reader of the descriptor is slow the oldest lines are dropped, counted, and the count is
// logged once there is room again. Lines that repeat are limited: of one event text at most
// kRepeatsPerWindow a kRepeatWindow are written, and the next one that is says how many were
// suppressed.
//
// What it does not promise: that the last lines are out when the process dies. Never give it
// payload, keys, salts or tokens.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "daemon/concat.h"
#include "tiers/vocab/clock.h"

namespace terrace {

enum class LogLevel : uint8_t { kDebug = 0, kInfo = 1, kWarning = 2, kError = 3 };
enum class LogFormat : uint8_t { kLogfmt = 0, kJson = 1 };
std::string_view LogLevelName(LogLevel level);

inline constexpr size_t kLogQueueLines = 4096;
inline constexpr size_t kMaxLogLineBytes =
    4000;  // below PIPE_BUF, so that a line is written whole or not at all
inline constexpr size_t kMaxLogEvents =
    256;  // texts whose repetitions are counted; further ones are unlimited
inline constexpr uint32_t kRepeatsPerWindow = 10;
inline constexpr absl::Duration kRepeatWindow = absl::Seconds(10);

// A name and a value of a log line. Names are identifiers written in the source.
struct LogField {
  LogField(std::string_view field_name, std::string_view text)
      : name(field_name), value(text), quoted(true) {}
  LogField(std::string_view field_name, const char* text)
      : name(field_name), value(text), quoted(true) {}
  LogField(std::string_view field_name, std::string text)
      : name(field_name), value(std::move(text)), quoted(true) {}
  LogField(std::string_view field_name, const absl::Status& status)
      : name(field_name), value(status.ToString()), quoted(true) {}
  LogField(std::string_view field_name, absl::Duration duration)
      : name(field_name), value(absl::FormatDuration(duration)), quoted(true) {}
  template <typename Number, typename = std::enable_if_t<std::is_arithmetic_v<Number>>>
  LogField(std::string_view field_name, Number number) : name(field_name), quoted(false) {
    if constexpr (std::is_same_v<Number, bool>) {
      value = number ? "true" : "false";
    } else {
      value = Concat(number);
    }
  }

  std::string_view name;
  std::string value;
  bool quoted;  // JSON: a string, else a number or true/false
};

// Thread-safe; no call blocks.
class Log {
 public:
  virtual ~Log() = default;

  // `event`: a fixed text of the source, which is also what repetitions are counted by.
  virtual void Write(LogLevel level,
                     std::string_view event,
                     std::initializer_list<LogField> fields) = 0;
  virtual void SetLevel(LogLevel level) = 0;
  // Lines that were lost because the reader was slow.
  [[nodiscard]] virtual uint64_t dropped() const = 0;
  // Lines that were left out as repetitions.
  [[nodiscard]] virtual uint64_t suppressed() const = 0;

  void Debug(std::string_view event, std::initializer_list<LogField> fields = {}) {
    Write(LogLevel::kDebug, event, fields);
  }
  void Info(std::string_view event, std::initializer_list<LogField> fields = {}) {
    Write(LogLevel::kInfo, event, fields);
  }
  void Warning(std::string_view event, std::initializer_list<LogField> fields = {}) {
    Write(LogLevel::kWarning, event, fields);
  }
  void Error(std::string_view event, std::initializer_list<LogField> fields = {}) {
    Write(LogLevel::kError, event, fields);
  }
};

struct LogOptions {
  LogLevel level = LogLevel::kInfo;
  LogFormat format = LogFormat::kLogfmt;
  int fd = 2;  // borrowed
  size_t queue_lines = kLogQueueLines;
  absl::Duration flush_limit =
      absl::Milliseconds(500);  // how long the destructor waits for a slow reader
};

// The destructor writes what is queued, for at most flush_limit.
// Errors: RESOURCE_EXHAUSTED (no thread), INVALID_ARGUMENT (queue_lines of 0).
absl::StatusOr<std::unique_ptr<Log>> MakeLog(const LogOptions& options, const Clock& clock);

}  // namespace terrace
