// What the operator typed, checked as far as that goes without a daemon. CLI11 stays inside
// command_line.cc.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "terrace/v1/cache.pb.h"

namespace terrace::ctl {

inline constexpr int kExitOk = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitConfiguration = 78;

// One namespace, by digest or by its record; the record is opened (idempotent) before the verb's
// own call.
struct NamespaceChoice {
  std::string digest;       // 16 bytes; empty: by record
  std::string record_file;  // JSON as `namespaces --json` prints it under "record"; empty: `record`
  terrace::v1::NamespaceRecord record;
};

// Some blocks of one namespace.
struct BlockChoice {
  NamespaceChoice ns;
  std::vector<std::string> keys;  // raw bytes, all of one length from 16 to 64
  std::string salt;
  terrace::v1::Rule rule = terrace::v1::RULE_PREFIX;
  uint64_t first_token = 0;
  uint32_t window_tokens = 0;
};

struct PutOptions {
  std::vector<std::string>
      files;           // one a key, "-" is standard input; none: standard input for the only key
  std::string parent;  // raw bytes; empty: a chain begins
  terrace::v1::Level wait_for = terrace::v1::LEVEL_DRAM;
};

struct GetOptions {
  std::string out;   // file; empty: standard output
  std::string hold;  // 16 bytes; empty: none
  absl::Duration wait;
};

struct ProbeOptions {
  absl::Duration hold;
  enum class Prefetch : uint8_t { kNo, kYes } prefetch = Prefetch::kNo;
};

struct PrefetchOptions {
  terrace::v1::Priority priority = terrace::v1::PRIORITY_NORMAL;
  absl::Duration deadline;
  absl::Duration hold;
  absl::Duration wait;  // for the ticket's end; zero: answer at once
};

struct QuotaOptions {
  std::string tenant;
  std::optional<uint64_t> guaranteed_bytes;
  std::optional<uint64_t> limit_bytes;
};

struct TopOptions {
  enum class Repeat : uint8_t { kOnce, kUntilQuit } repeat = Repeat::kUntilQuit;
  absl::Duration interval = absl::Seconds(1);
};

struct SegmentOptions {
  std::string path;  // a segment's file, or a tier's folder
  enum class Verify : uint8_t { kHeaders, kPayloads } verify = Verify::kHeaders;
  enum class List : uint8_t { kDamaged, kRecords } list = List::kDamaged;
};

struct EventsOptions {
  enum class From : uint8_t { kNow, kSnapshot } from = From::kNow;
  std::string ns;      // 16 bytes; empty: all namespaces
  uint64_t count = 0;  // events until it ends; 0: until interrupted
};

struct CommandLine {
  std::string verb;
  std::string runtime_dir;
  enum class Output : uint8_t { kText, kJson } output = Output::kText;
  std::optional<absl::Duration> timeout;  // none: the verb's own

  BlockChoice blocks;  // probe, put, get, prefetch, delete, pin, unpin, explain
  PutOptions put;
  GetOptions get;
  ProbeOptions probe;
  PrefetchOptions prefetch;
  absl::Duration pin_ttl;
  std::string tenant;  // explain, evict
  std::string tier;    // evict, verify, scrub
  uint64_t evict_target_bytes = 0;
  uint64_t pool_reclaim_bytes = 0;  // 0: not asked for
  bool drain_resume = false;
  QuotaOptions quota;
  TopOptions top;
  std::vector<std::string> doctor_dirs;
  SegmentOptions segment;
  EventsOptions events;
};

// The run ends here: text for help and version, else a complaint.
struct EarlyEnd {
  int exit_code = kExitUsage;  // kExitOk: `text` answers what was asked
  std::string text;            // without "terracectl: " and without a newline at its end
  std::string topic;           // "help", "version" or "usage": how it is called in JSON
  CommandLine::Output output = CommandLine::Output::kText;
};

// args without the program's name. `runtime_from_environment` is $TERRACE_RUNTIME or "".
std::variant<CommandLine, EarlyEnd> ParseCommandLine(absl::Span<const std::string> args,
                                                     absl::string_view runtime_from_environment);

// SHA-256 of a text: 32 bytes, a key to play with by hand.
std::string KeyOfText(absl::string_view text);

absl::string_view Version();

}  // namespace terrace::ctl
