// The table of settings: name, kind, range, whether it can change while the daemon runs, and where
// it lies in Config. Everything else (reading, printing, comparing, the annotated example) goes
// through this table. Immutable, pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"

#include "daemon/config.h"
#include "daemon/config_toml.h"

namespace terrace {

enum class SettingKind : uint8_t {
  kFolder,        // an absolute path
  kFolderOrNone,  // the same, or ""
  kInteger,       // a TOML integer
  kSize,          // bytes: an integer, or "64MiB"
  kDuration,      // "500ms"
  kBoolean,
  kShare,   // 0 to 1
  kChoice,  // one of `choices`
  kMode,    // "0660"
  kGroup,   // name or number of a group, "" for none
  kListen,  // "127.0.0.1:9464" or "off"
};

enum class Applies : uint8_t { kAtStart, kLive };

// Where a setting lies in a Config.
using SettingField = std::variant<uint64_t*,
                                  uint32_t*,
                                  bool*,
                                  double*,
                                  std::string*,
                                  absl::Duration*,
                                  LogLevel*,
                                  LogFormat*,
                                  LocalWrites*,
                                  UnlistedPeers*,
                                  GpuUse*,
                                  KeepDram*>;

struct Setting {
  std::string_view name;  // "dram.capacity"
  SettingKind kind;
  Applies applies;
  double least;  // bytes, seconds or the number itself; both ends are allowed
  double most;
  std::vector<std::string_view> choices;  // in the order of the enum
  SettingField (*field)(Config& config);

  [[nodiscard]] std::string_view section() const { return name.substr(0, name.find('.')); }
  [[nodiscard]] std::string_view key() const { return name.substr(name.find('.') + 1); }
};

// In the order in which they are printed; settings of a section stand together.
absl::Span<const Setting> Settings();
// Index in Settings(); -1: there is no such name.
int FindSetting(std::string_view name);

// Errors: INVALID_ARGUMENT that says what is allowed, without the setting's name. *config is then
// unchanged.
absl::Status AssignSetting(const Setting& setting, const TomlValue& value, Config* config);
// The value as TOML.
std::string SettingText(const Setting& setting, const Config& config);

// "64MiB" or "67108864" to bytes. Units: B, KiB, MiB, GiB, TiB. Errors: INVALID_ARGUMENT.
absl::StatusOr<uint64_t> ParseSize(std::string_view text);
// The shortest text that ParseSize reads back as `bytes`.
std::string SizeText(uint64_t bytes);
// The absolute path in a TOML value. Errors: INVALID_ARGUMENT.
absl::StatusOr<std::string> FolderOf(const TomlValue& value, double most_bytes);
// The size in a TOML value. Errors: INVALID_ARGUMENT.
absl::StatusOr<uint64_t> SizeOf(const TomlValue& value);

}  // namespace terrace
