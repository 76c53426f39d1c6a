#include "daemon/log.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <exception>
#include <functional>
#include <map>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include <spdlog/async_logger.h>
#include <spdlog/details/null_mutex.h>
#include <spdlog/details/thread_pool.h>
#include <spdlog/sinks/base_sink.h>

#include "daemon/quoted_text.h"

namespace terrace {
namespace {

std::string WallTime() {
  return absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(), absl::UTCTimeZone());
}

// Writes whole lines to a descriptor that it shares with others, so that O_NONBLOCK is not an
// option: a line is written when poll says that it fits. Confined to the log's thread, but for
// Close and lost().
class DescriptorSink final : public spdlog::sinks::base_sink<spdlog::details::null_mutex> {
 public:
  explicit DescriptorSink(int fd) : fd_(fd) {}

  // From now on what cannot be written by `deadline` (on CLOCK_BOOTTIME) is dropped.
  void Close(absl::Duration deadline) { deadline_ns_.store(absl::ToInt64Nanoseconds(deadline)); }
  [[nodiscard]] uint64_t lost() const { return lost_.load(); }
  // Where the queue's count of overrun lines can be read; before the first line.
  void set_overruns(std::function<uint64_t()> overruns) { overruns_ = std::move(overruns); }
  void set_format(LogFormat format) { format_ = format; }

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    const uint64_t overruns = overruns_ ? overruns_() : 0;
    if (overruns > told_) {
      const std::string line = DroppedLine(overruns - told_);
      if (WriteLine(line)) {
        told_ = overruns;
      }
    }
    std::string line(message.payload.data(), message.payload.size());
    line.push_back('\n');
    if (!WriteLine(line)) {
      lost_.fetch_add(1);
    }
  }
  void flush_() override {}

 private:
  [[nodiscard]] std::string DroppedLine(uint64_t count) const {
    if (format_ == LogFormat::kJson) {
      return Concat("{\"ts\":\"", WallTime(),
                    "\",\"level\":\"warning\",\"msg\":\"log lines dropped\",\"count\":", count,
                    "}\n");
    }
    return Concat("ts=", WallTime(), " level=warning msg=\"log lines dropped\" count=", count,
                  "\n");
  }

  bool WriteLine(std::string_view line) {
    while (!line.empty()) {
      if (!WaitForRoom()) {
        return false;
      }
      // A pipe that polls as writable takes PIPE_BUF bytes without blocking (pipe(7)).
      const ssize_t put = write(fd_, line.data(), line.size());
      if (put < 0 && errno == EINTR) {
        continue;
      }
      if (put < 0 && errno == EAGAIN) {
        continue;
      }
      if (put <= 0) {
        return false;
      }
      line.remove_prefix(static_cast<size_t>(put));
    }
    return true;
  }

  // False when the log is being closed and there is none, or the reader is gone.
  bool WaitForRoom() {
    while (true) {
      const int64_t deadline = deadline_ns_.load();
      const bool over = deadline >= 0 && absl::ToInt64Nanoseconds(BootClock().Now()) >= deadline;
      pollfd poll_fd = {.fd = fd_, .events = POLLOUT, .revents = 0};
      const int ready = poll(&poll_fd, 1, over ? 0 : 50);
      if (ready > 0) {
        return (poll_fd.revents & POLLOUT) != 0 && (poll_fd.revents & (POLLERR | POLLNVAL)) == 0;
      }
      if (over || (ready < 0 && errno != EINTR)) {
        return false;
      }
    }
  }

  const int fd_;
  std::function<uint64_t()> overruns_;
  LogFormat format_ = LogFormat::kLogfmt;
  uint64_t told_ = 0;
  std::atomic<int64_t> deadline_ns_{-1};
  std::atomic<uint64_t> lost_{0};
};

// Counts repetitions of event texts. Thread-compatible.
class RepeatLimit {
 public:
  // Whether the line may be written; *suppressed: lines of this text that were left out since the
  // last one.
  bool Allow(std::string_view event, absl::Duration now, uint64_t* suppressed) {
    auto found = windows_.find(event);
    if (found == windows_.end()) {
      if (windows_.size() >= kMaxLogEvents) {
        return true;
      }
      found = windows_.emplace(std::string(event), Window{.begin = now}).first;
    }
    Window& window = found->second;
    if (now - window.begin >= kRepeatWindow) {
      window.begin = now;
      window.written = 0;
    }
    if (window.written >= kRepeatsPerWindow) {
      ++window.suppressed;
      return false;
    }
    ++window.written;
    *suppressed = std::exchange(window.suppressed, 0);
    return true;
  }

 private:
  struct Window {
    absl::Duration begin;
    uint32_t written = 0;
    uint64_t suppressed = 0;
  };
  std::map<std::string, Window, std::less<>> windows_;
};

// Logfmt leaves out the quotes of what is one plain word.
bool IsPlain(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return c > ' ' && c < 0x7f && c != '"' && c != '=' && c != '\\';
  });
}

// Text is cut before it is quoted, so that what stands in the line is well-formed.
constexpr size_t kMaxLogValueBytes = 512;

std::string LogfmtLine(LogLevel level,
                       std::string_view event,
                       std::initializer_list<LogField> fields,
                       uint64_t suppressed) {
  std::string line =
      Concat("ts=", WallTime(), " level=", LogLevelName(level), " msg=", QuotedText(event));
  for (const LogField& field : fields) {
    const std::string_view value = std::string_view(field.value).substr(0, kMaxLogValueBytes);
    const std::string piece =
        Concat(" ", field.name, "=", IsPlain(value) ? std::string(value) : QuotedText(value));
    if (line.size() + piece.size() <= kMaxLogLineBytes) {
      line.append(piece);
    }
  }
  if (suppressed > 0) {
    line.append(Concat(" suppressed=", suppressed));
  }
  return line;
}

std::string JsonLine(LogLevel level,
                     std::string_view event,
                     std::initializer_list<LogField> fields,
                     uint64_t suppressed) {
  std::string line = Concat("{\"ts\":\"", WallTime(), "\",\"level\":\"", LogLevelName(level),
                            "\",\"msg\":", QuotedText(event));
  for (const LogField& field : fields) {
    const std::string_view value = std::string_view(field.value).substr(0, kMaxLogValueBytes);
    const std::string piece = Concat(",", QuotedText(field.name), ":",
                                     field.quoted ? QuotedText(value) : std::string(value));
    if (line.size() + piece.size() <= kMaxLogLineBytes) {
      line.append(piece);
    }
  }
  if (suppressed > 0) {
    line.append(Concat(",\"suppressed\":", suppressed));
  }
  return line + "}";
}

spdlog::level::level_enum SpdlogLevel(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

class SpdlogLog final : public Log {
 public:
  SpdlogLog(const LogOptions& options, const Clock& clock)
      : clock_(clock),
        format_(options.format),
        flush_limit_(options.flush_limit),
        level_(options.level),
        sink_(std::make_shared<DescriptorSink>(options.fd)) {}
  SpdlogLog(const SpdlogLog&) = delete;
  SpdlogLog& operator=(const SpdlogLog&) = delete;

  ~SpdlogLog() override {
    sink_->Close(BootClock().Now() + flush_limit_);
    logger_.reset();
    pool_.reset();  // joins, after the queue is written or dropped
  }

  absl::Status Open(size_t queue_lines) {
    sink_->set_format(format_);
    try {
      pool_ = std::make_shared<spdlog::details::thread_pool>(queue_lines, 1);
      sink_->set_overruns([pool = pool_.get()] { return pool->overrun_counter(); });
      logger_ = std::make_shared<spdlog::async_logger>(
          "terraced", sink_, pool_, spdlog::async_overflow_policy::overrun_oldest);
      logger_->set_level(spdlog::level::trace);  // the level is looked at before a line is made
      logger_->set_error_handler([](const std::string&) {});
    } catch (const std::exception& error) {
      return absl::ResourceExhaustedError(Concat("cannot start the log: ", error.what()));
    }
    return absl::OkStatus();
  }

  void Write(LogLevel level,
             std::string_view event,
             std::initializer_list<LogField> fields) override {
    if (level < level_.load()) {
      return;
    }
    uint64_t repeated = 0;
    {
      absl::MutexLock lock(&mutex_);
      if (!repeats_.Allow(event, clock_.Now(), &repeated)) {
        ++suppressed_;
        return;
      }
    }
    const std::string line = format_ == LogFormat::kJson
                                 ? JsonLine(level, event, fields, repeated)
                                 : LogfmtLine(level, event, fields, repeated);
    // spdlog ends its exceptions in its error handler.
    logger_->log(SpdlogLevel(level), spdlog::string_view_t(line.data(), line.size()));
  }

  void SetLevel(LogLevel level) override { level_.store(level); }
  [[nodiscard]] uint64_t dropped() const override {
    return pool_->overrun_counter() + sink_->lost();
  }
  [[nodiscard]] uint64_t suppressed() const override {
    absl::MutexLock lock(&mutex_);
    return suppressed_;
  }

 private:
  const Clock& clock_;
  const LogFormat format_;
  const absl::Duration flush_limit_;
  std::atomic<LogLevel> level_;
  mutable absl::Mutex mutex_;
  RepeatLimit repeats_ ABSL_GUARDED_BY(mutex_);
  uint64_t suppressed_ ABSL_GUARDED_BY(mutex_) = 0;
  // Shared with the logger that spdlog's API makes us share it with; all three end in the
  // destructor.
  std::shared_ptr<DescriptorSink> sink_;
  std::shared_ptr<spdlog::details::thread_pool> pool_;
  std::shared_ptr<spdlog::async_logger> logger_;
};

}  // namespace

std::string_view LogLevelName(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kError:
      return "error";
  }
  return "info";
}

absl::StatusOr<std::unique_ptr<Log>> MakeLog(const LogOptions& options, const Clock& clock) {
  if (options.queue_lines == 0) {
    return absl::InvalidArgumentError("queue_lines must be at least 1");
  }
  auto log = std::make_unique<SpdlogLog>(options, clock);
  if (absl::Status status = log->Open(options.queue_lines); !status.ok()) {
    return status;
  }
  return log;
}

}  // namespace terrace
