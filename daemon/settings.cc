#include "daemon/settings.h"

#include <charconv>
#include <limits>
#include <optional>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"

#include "daemon/concat.h"
#include "daemon/quoted_text.h"
#include "daemon/settings_table.h"

namespace terrace {
namespace {

struct Unit {
  std::string_view name;
  uint64_t bytes;
};
// The largest first; "B" ends them all and comes last.
constexpr Unit kUnits[] = {{"TiB", uint64_t{1} << 40},
                           {"GiB", uint64_t{1} << 30},
                           {"MiB", uint64_t{1} << 20},
                           {"KiB", uint64_t{1} << 10},
                           {"B", 1}};

// Nothing but digits; nullopt: something else, or more than 64 bits.
std::optional<uint64_t> DecimalNumber(std::string_view text) {
  uint64_t number = 0;
  const char* end = text.data() + text.size();
  const std::from_chars_result result = std::from_chars(text.data(), end, number);
  if (text.empty() || result.ec != std::errc() || result.ptr != end) {
    return std::nullopt;
  }
  return number;
}

std::string Choices(const Setting& setting) {
  std::string joined;
  for (const std::string_view choice : setting.choices) {
    joined.append(joined.empty() ? "" : ", ").append(choice);
  }
  return joined;
}

absl::Status Wrong(std::string_view wanted, const TomlValue& value) {
  return absl::InvalidArgumentError(Concat("must be ", wanted, ", not ", TomlKind(value)));
}

std::string RangeText(const Setting& setting) {
  switch (setting.kind) {
    case SettingKind::kSize:
      return Concat(SizeText(static_cast<uint64_t>(setting.least)), " to ",
                    SizeText(static_cast<uint64_t>(setting.most)));
    case SettingKind::kDuration:
      return Concat(absl::FormatDuration(absl::Seconds(setting.least)), " to ",
                    absl::FormatDuration(absl::Seconds(setting.most)));
    default:
      return absl::StrFormat("%.15g to %.15g", setting.least, setting.most);
  }
}

absl::Status OutOfRange(const Setting& setting, std::string_view shown) {
  return absl::InvalidArgumentError(Concat("must be ", RangeText(setting), ", not ", shown));
}

// The range of every integer setting lies within its field.
absl::Status AssignWhole(const Setting& setting,
                         uint64_t value,
                         std::string_view shown,
                         SettingField field) {
  const auto number = static_cast<double>(value);
  if (number < setting.least || number > setting.most) {
    return OutOfRange(setting, shown);
  }
  if (auto* wide = std::get_if<uint64_t*>(&field)) {
    **wide = value;
  } else {
    *std::get<uint32_t*>(field) = static_cast<uint32_t>(value);
  }
  return absl::OkStatus();
}

absl::Status AssignInteger(const Setting& setting, const TomlValue& value, SettingField field) {
  const auto* number = std::get_if<int64_t>(&value);
  if (number == nullptr) {
    return Wrong("an integer", value);
  }
  if (*number < 0) {
    return OutOfRange(setting, Concat(*number));
  }
  return AssignWhole(setting, static_cast<uint64_t>(*number), Concat(*number), field);
}

absl::Status AssignSize(const Setting& setting, const TomlValue& value, SettingField field) {
  const absl::StatusOr<uint64_t> bytes = SizeOf(value);
  if (!bytes.ok()) {
    return bytes.status();
  }
  return AssignWhole(setting, *bytes, SizeText(*bytes), field);
}

absl::Status AssignDuration(const Setting& setting, const TomlValue& value, SettingField field) {
  constexpr std::string_view kWanted = "a duration such as \"500ms\" or \"30s\"";
  const auto* text = std::get_if<std::string>(&value);
  if (text == nullptr) {
    return Wrong(kWanted, value);
  }
  absl::Duration duration;
  if (!absl::ParseDuration(*text, &duration)) {
    return absl::InvalidArgumentError(Concat("must be ", kWanted, ", not ", ShownValue(*text)));
  }
  if (duration < absl::Seconds(setting.least) || duration > absl::Seconds(setting.most)) {
    return OutOfRange(setting, absl::FormatDuration(duration));
  }
  *std::get<absl::Duration*>(field) = duration;
  return absl::OkStatus();
}

absl::Status AssignShare(const Setting& setting, const TomlValue& value, SettingField field) {
  double share = 0;
  if (const auto* number = std::get_if<double>(&value)) {
    share = *number;
  } else if (const auto* whole = std::get_if<int64_t>(&value)) {
    share = static_cast<double>(*whole);
  } else {
    return Wrong("a number from 0 to 1", value);
  }
  if (!(share >= setting.least && share <= setting.most)) {
    return OutOfRange(setting, absl::StrFormat("%g", share));
  }
  *std::get<double*>(field) = share;
  return absl::OkStatus();
}

absl::Status AssignChoice(const Setting& setting, const TomlValue& value, SettingField field) {
  const std::string wanted = Choices(setting);
  const auto* text = std::get_if<std::string>(&value);
  if (text == nullptr) {
    return Wrong(Concat("one of ", wanted), value);
  }
  for (size_t i = 0; i < setting.choices.size(); ++i) {
    if (*text != setting.choices[i]) {
      continue;
    }
    if (auto* level = std::get_if<LogLevel*>(&field)) {
      **level = static_cast<LogLevel>(i);
    } else if (auto* format = std::get_if<LogFormat*>(&field)) {
      **format = static_cast<LogFormat>(i);
    } else if (auto* unlisted = std::get_if<UnlistedPeers*>(&field)) {
      **unlisted = static_cast<UnlistedPeers>(i);
    } else if (auto* gpu = std::get_if<GpuUse*>(&field)) {
      **gpu = static_cast<GpuUse>(i);
    } else if (auto* keep = std::get_if<KeepDram*>(&field)) {
      **keep = static_cast<KeepDram>(i);
    } else if (auto* writes = std::get_if<LocalWrites*>(&field)) {
      **writes = static_cast<LocalWrites>(i);
    } else {
      *std::get<std::string*>(field) = *text;
    }
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(Concat("must be one of ", wanted, ", not ", ShownValue(*text)));
}

absl::Status AssignMode(const TomlValue& value, SettingField field) {
  constexpr std::string_view kWanted = "four octal digits in quotes, such as \"0660\"";
  const auto* text = std::get_if<std::string>(&value);
  if (text == nullptr) {
    return Wrong(kWanted, value);
  }
  uint32_t mode = 0;
  bool octal = text->size() == 4 && text->front() == '0';
  for (const char c : *text) {
    octal = octal && c >= '0' && c <= '7';
    if (octal) {
      mode = mode * 8 + static_cast<uint32_t>(c - '0');
    }
  }
  if (!octal) {
    return absl::InvalidArgumentError(Concat("must be ", kWanted, ", not ", ShownValue(*text)));
  }
  if ((mode & 0600) != 0600 || (mode & 0111) != 0) {
    return absl::InvalidArgumentError(
        Concat("must let the owner read and write and nobody execute, not ", *text));
  }
  *std::get<uint32_t*>(field) = mode;
  return absl::OkStatus();
}

absl::Status AssignFolder(const Setting& setting, const TomlValue& value, SettingField field) {
  absl::StatusOr<std::string> folder = FolderOf(value, setting.most);
  if (!folder.ok()) {
    return folder.status();
  }
  *std::get<std::string*>(field) = *std::move(folder);
  return absl::OkStatus();
}

absl::Status AssignFolderOrNone(const Setting& setting,
                                const TomlValue& value,
                                SettingField field) {
  if (const auto* text = std::get_if<std::string>(&value); text != nullptr && text->empty()) {
    std::get<std::string*>(field)->clear();
    return absl::OkStatus();
  }
  return AssignFolder(setting, value, field);
}

absl::Status AssignGroup(const TomlValue& value, SettingField field) {
  const auto* text = std::get_if<std::string>(&value);
  if (text == nullptr) {
    return Wrong("the name of a group", value);
  }
  bool named = text->size() <= 32;
  for (const char c : *text) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    named = named && (letter || std::string_view("._-$").find(c) != std::string_view::npos);
  }
  if (!named) {
    return absl::InvalidArgumentError(
        Concat("must be the name of a group, not ", ShownValue(*text)));
  }
  *std::get<std::string*>(field) = *text;
  return absl::OkStatus();
}

// 127.0.0.0/8 in numbers: a name could resolve to anything, and the distributions' civetweb knows
// no IPv6.
bool IsLoopback(std::string_view host) {
  int parts = 0;
  while (true) {
    const size_t dot = host.find('.');
    const std::string_view part = host.substr(0, dot);
    if (part.size() > 1 && part.front() == '0') {
      return false;
    }
    const std::optional<uint64_t> number = DecimalNumber(part);
    if (!number || *number > 255 || (parts == 0 && *number != 127)) {
      return false;
    }
    ++parts;
    if (dot == std::string_view::npos) {
      return parts == 4;
    }
    host.remove_prefix(dot + 1);
  }
}

absl::Status AssignListen(const TomlValue& value, SettingField field) {
  constexpr std::string_view kWanted =
      "\"off\", or a loopback address and port such as \"127.0.0.1:9464\"";
  const auto* text = std::get_if<std::string>(&value);
  if (text == nullptr) {
    return Wrong(kWanted, value);
  }
  if (*text == "off") {
    std::get<std::string*>(field)->clear();
    return absl::OkStatus();
  }
  const size_t colon = text->rfind(':');
  const std::optional<uint64_t> port =
      colon == std::string::npos ? std::nullopt
                                 : DecimalNumber(std::string_view(*text).substr(colon + 1));
  if (!port || *port > 65535 || !IsLoopback(std::string_view(*text).substr(0, colon))) {
    return absl::InvalidArgumentError(Concat("must be ", kWanted, ", not ", ShownValue(*text)));
  }
  *std::get<std::string*>(field) = *text;
  return absl::OkStatus();
}

std::string ChoiceText(const Setting& setting, SettingField field) {
  size_t index = 0;
  if (auto* level = std::get_if<LogLevel*>(&field)) {
    index = static_cast<size_t>(**level);
  } else if (auto* format = std::get_if<LogFormat*>(&field)) {
    index = static_cast<size_t>(**format);
  } else if (auto* unlisted = std::get_if<UnlistedPeers*>(&field)) {
    index = static_cast<size_t>(**unlisted);
  } else if (auto* gpu = std::get_if<GpuUse*>(&field)) {
    index = static_cast<size_t>(**gpu);
  } else if (auto* keep = std::get_if<KeepDram*>(&field)) {
    index = static_cast<size_t>(**keep);
  } else if (auto* writes = std::get_if<LocalWrites*>(&field)) {
    index = static_cast<size_t>(**writes);
  } else {
    return QuotedText(*std::get<std::string*>(field));
  }
  return QuotedText(setting.choices[index]);
}

uint64_t WholeOf(SettingField field) {
  if (auto* wide = std::get_if<uint64_t*>(&field)) {
    return **wide;
  }
  return *std::get<uint32_t*>(field);
}

// A share as TOML reads it back: the shortest of the texts that round-trip, with a decimal point.
std::string ShareText(double share) {
  std::string text = absl::StrFormat("%.6g", share);
  double back = 0;
  if (!absl::SimpleAtod(text, &back) || back != share) {
    text = absl::StrFormat("%.17g", share);
  }
  return text.find_first_of(".e") != std::string::npos ? text : text + ".0";
}

}  // namespace

absl::Span<const Setting> Settings() {
  static const std::vector<Setting>& settings = *new std::vector<Setting>(MakeSettingsTable());
  return settings;
}

int FindSetting(std::string_view name) {
  const absl::Span<const Setting> settings = Settings();
  for (size_t i = 0; i < settings.size(); ++i) {
    if (settings[i].name == name) {
      return static_cast<int>(i);
    }
  }
  return -1;
}

absl::Status AssignSetting(const Setting& setting, const TomlValue& value, Config* config) {
  const SettingField field = setting.field(*config);
  switch (setting.kind) {
    case SettingKind::kFolder:
      return AssignFolder(setting, value, field);
    case SettingKind::kFolderOrNone:
      return AssignFolderOrNone(setting, value, field);
    case SettingKind::kInteger:
      return AssignInteger(setting, value, field);
    case SettingKind::kSize:
      return AssignSize(setting, value, field);
    case SettingKind::kDuration:
      return AssignDuration(setting, value, field);
    case SettingKind::kBoolean: {
      const auto* boolean = std::get_if<bool>(&value);
      if (boolean == nullptr) {
        return Wrong("true or false", value);
      }
      *std::get<bool*>(field) = *boolean;
      return absl::OkStatus();
    }
    case SettingKind::kShare:
      return AssignShare(setting, value, field);
    case SettingKind::kChoice:
      return AssignChoice(setting, value, field);
    case SettingKind::kMode:
      return AssignMode(value, field);
    case SettingKind::kGroup:
      return AssignGroup(value, field);
    case SettingKind::kListen:
      return AssignListen(value, field);
  }
  return absl::InternalError("unknown kind of setting");
}

std::string SettingText(const Setting& setting, const Config& config) {
  Config copy = config;  // the table hands out pointers to non-const
  const SettingField field = setting.field(copy);
  switch (setting.kind) {
    case SettingKind::kFolder:
    case SettingKind::kFolderOrNone:
    case SettingKind::kGroup:
      return QuotedText(*std::get<std::string*>(field));
    case SettingKind::kListen: {
      const std::string& listen = *std::get<std::string*>(field);
      return QuotedText(listen.empty() ? "off" : listen);
    }
    case SettingKind::kInteger:
      return Concat(WholeOf(field));
    case SettingKind::kSize:
      return QuotedText(SizeText(WholeOf(field)));
    case SettingKind::kDuration:
      return QuotedText(absl::FormatDuration(*std::get<absl::Duration*>(field)));
    case SettingKind::kBoolean:
      return *std::get<bool*>(field) ? "true" : "false";
    case SettingKind::kShare:
      return ShareText(*std::get<double*>(field));
    case SettingKind::kChoice:
      return ChoiceText(setting, field);
    case SettingKind::kMode:
      return QuotedText(absl::StrFormat("%04o", *std::get<uint32_t*>(field)));
  }
  return "";
}

absl::StatusOr<uint64_t> ParseSize(std::string_view text) {
  constexpr std::string_view kWanted =
      "must be a size such as \"64MiB\" (B, KiB, MiB, GiB, TiB), not ";
  std::string_view number = text;
  uint64_t unit = 1;
  for (const Unit& candidate : kUnits) {
    if (!number.ends_with(candidate.name)) {
      continue;
    }
    number.remove_suffix(candidate.name.size());
    unit = candidate.bytes;
    break;
  }
  if (number.ends_with(' ')) {
    number.remove_suffix(1);
  }
  const std::optional<uint64_t> count = DecimalNumber(number);
  if (!count || *count > std::numeric_limits<int64_t>::max() / unit) {
    return absl::InvalidArgumentError(Concat(kWanted, ShownValue(text)));
  }
  return *count * unit;
}

std::string SizeText(uint64_t bytes) {
  for (const Unit& unit : kUnits) {
    if (bytes >= unit.bytes && bytes % unit.bytes == 0) {
      return Concat(bytes / unit.bytes, unit.name);
    }
  }
  return "0B";
}

absl::StatusOr<std::string> FolderOf(const TomlValue& value, double most_bytes) {
  const auto* text = std::get_if<std::string>(&value);
  if (text == nullptr) {
    return Wrong("an absolute path", value);
  }
  if (text->empty() || text->front() != '/') {
    return absl::InvalidArgumentError(Concat("must be an absolute path, not ", ShownValue(*text)));
  }
  if (static_cast<double>(text->size()) > most_bytes) {
    return absl::InvalidArgumentError(
        Concat("must be at most ", most_bytes, " bytes long, not ", text->size()));
  }
  for (const char c : *text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      return absl::InvalidArgumentError(
          Concat("must not hold control characters: ", ShownValue(*text)));
    }
  }
  return *text;
}

absl::StatusOr<uint64_t> SizeOf(const TomlValue& value) {
  if (const auto* number = std::get_if<int64_t>(&value)) {
    if (*number < 0) {
      return absl::InvalidArgumentError(Concat("must not be negative: ", *number));
    }
    return static_cast<uint64_t>(*number);
  }
  const auto* text = std::get_if<std::string>(&value);
  if (text == nullptr) {
    return Wrong("a size such as \"64MiB\"", value);
  }
  return ParseSize(*text);
}

}  // namespace terrace
