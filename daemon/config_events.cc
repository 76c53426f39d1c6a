#include "daemon/config_events.h"

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <optional>
#include <string>

#include "daemon/concat.h"
#include "daemon/quoted_text.h"
#include "daemon/settings.h"

namespace terrace {
namespace {

constexpr std::string_view kTcp = "tcp://";
constexpr std::string_view kIpc = "ipc://";
constexpr std::string_view kUnlistedPrefix = "uid-";
constexpr size_t kMaxSocketPathBytes = 107;  // sun_path
constexpr size_t kMaxMediumBytes = 32;
constexpr size_t kMaxModelBytes = 256;
constexpr std::array<std::string_view, 2> kFormats = {"map", "array"};
constexpr std::array<std::string_view, 2> kHashes = {"int", "bytes"};

bool IsPlain(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) >= 0x20 && c != 0x7f; });
}

absl::Status SetText(const TomlValue& value, size_t least, size_t most, std::string* out) {
  const auto* text = std::get_if<std::string>(&value);
  if (text == nullptr) {
    return absl::InvalidArgumentError(Concat("must be a string, not ", TomlKind(value)));
  }
  if (text->size() < least || text->size() > most) {
    return absl::InvalidArgumentError(
        Concat("must have ", least, " to ", most, " characters, not ", text->size()));
  }
  if (!IsPlain(*text)) {
    return absl::InvalidArgumentError(
        Concat("must not hold control characters: ", ShownValue(*text)));
  }
  *out = *text;
  return absl::OkStatus();
}

absl::Status SetNumber(const TomlValue& value, uint32_t least, uint32_t most, uint32_t* out) {
  const auto* number = std::get_if<int64_t>(&value);
  if (number == nullptr) {
    return absl::InvalidArgumentError(Concat("must be an integer, not ", TomlKind(value)));
  }
  if (*number < least || *number > most) {
    return absl::InvalidArgumentError(Concat("must be ", least, " to ", most, ", not ", *number));
  }
  *out = static_cast<uint32_t>(*number);
  return absl::OkStatus();
}

template <typename Enum>
absl::Status SetChoice(const TomlValue& value,
                       const std::array<std::string_view, 2>& choices,
                       Enum* out) {
  const auto* text = std::get_if<std::string>(&value);
  for (size_t i = 0; text != nullptr && i < choices.size(); ++i) {
    if (*text == choices[i]) {
      *out = static_cast<Enum>(i);
      return absl::OkStatus();
    }
  }
  return absl::InvalidArgumentError(
      Concat("must be ", choices[0], " or ", choices[1], ", not ",
             text == nullptr ? std::string(TomlKind(value)) : ShownValue(*text)));
}

absl::Status SetBuffer(const TomlValue& value, uint64_t* out) {
  constexpr uint64_t kLeast = uint64_t{1} << 20;
  constexpr uint64_t kMost = uint64_t{64} << 30;
  const absl::StatusOr<uint64_t> bytes = SizeOf(value);
  if (!bytes.ok()) {
    return bytes.status();
  }
  if (*bytes < kLeast || *bytes > kMost) {
    return absl::InvalidArgumentError(
        Concat("must be ", SizeText(kLeast), " to ", SizeText(kMost), ", not ", SizeText(*bytes)));
  }
  *out = *bytes;
  return absl::OkStatus();
}

absl::Status SetMode(const TomlValue& value, uint32_t* out) {
  const auto* text = std::get_if<std::string>(&value);
  bool is_mode = text != nullptr && text->size() == 4 && text->front() == '0';
  uint32_t mode = 0;
  for (size_t i = 0; is_mode && i < text->size(); ++i) {
    is_mode = (*text)[i] >= '0' && (*text)[i] <= '7';
    mode = mode * 8 + static_cast<uint32_t>((*text)[i] - '0');
  }
  if (!is_mode || (mode & 0600) != 0600 || (mode & 0111) != 0) {
    return absl::InvalidArgumentError(
        Concat("must be four octal digits in quotes with which the owner reads and writes and "
               "nobody executes, such as \"0660\", not ",
               text == nullptr ? std::string(TomlKind(value)) : ShownValue(*text)));
  }
  *out = mode;
  return absl::OkStatus();
}

// ADDRESS of "ADDRESS:PORT", without the brackets of IPv6; nullopt: no such text.
std::optional<std::string> AddressOf(std::string_view rest) {
  const size_t colon = rest.rfind(':');
  if (colon == std::string_view::npos) {
    return std::nullopt;
  }
  const std::string_view digits = rest.substr(colon + 1);
  uint32_t port = 0;
  const std::from_chars_result parsed =
      std::from_chars(digits.data(), digits.data() + digits.size(), port);
  if (digits.empty() || digits.size() > 5 || parsed.ec != std::errc() ||
      parsed.ptr != digits.data() + digits.size() || port > 65535) {
    return std::nullopt;
  }
  std::string address(rest.substr(0, colon));
  in6_addr parsed_address = {};
  if (address.starts_with('[') && address.ends_with(']')) {
    address = address.substr(1, address.size() - 2);
    return inet_pton(AF_INET6, address.c_str(), &parsed_address) == 1
               ? std::optional<std::string>(address)
               : std::nullopt;
  }
  return inet_pton(AF_INET, address.c_str(), &parsed_address) == 1
             ? std::optional<std::string>(address)
             : std::nullopt;
}

absl::Status SetEndpoint(const TomlValue& value, std::string* out) {
  const auto* text = std::get_if<std::string>(&value);
  bool is_endpoint = text != nullptr && IsPlain(*text);
  if (is_endpoint && text->starts_with(kIpc)) {
    const std::string_view path = std::string_view(*text).substr(kIpc.size());
    is_endpoint = path.starts_with('/') && path.size() <= kMaxSocketPathBytes;
  } else if (is_endpoint) {
    is_endpoint = text->starts_with(kTcp) &&
                  AddressOf(std::string_view(*text).substr(kTcp.size())).has_value();
  }
  if (!is_endpoint) {
    return absl::InvalidArgumentError(
        Concat("must be \"tcp://ADDRESS:PORT\" with an address in numbers (0.0.0.0 for every host "
               "that reaches this one) or \"ipc:///PATH\" of at most ",
               kMaxSocketPathBytes, " bytes, not ",
               text == nullptr ? std::string(TomlKind(value)) : ShownValue(*text)));
  }
  *out = *text;
  return absl::OkStatus();
}

absl::Status Refuse(std::string_view origin, std::string_view what) {
  return absl::InvalidArgumentError(Concat(origin, ": events.", what));
}

bool MayBeTenant(const Config& config, const std::string& alias) {
  const bool is_listed =
      std::any_of(config.tenants.begin(), config.tenants.end(),
                  [&](const TenantConfig& tenant) { return tenant.alias == alias; });
  const bool is_user = alias.size() > kUnlistedPrefix.size() &&
                       alias.starts_with(kUnlistedPrefix) &&
                       std::all_of(alias.begin() + kUnlistedPrefix.size(), alias.end(),
                                   [](char c) { return c >= '0' && c <= '9'; });
  return is_listed || (is_user && config.unlisted == UnlistedPeers::kPerUid);
}

bool IsOurs(const Config& config, std::string_view endpoint) {
  const std::string folder = Concat(kIpc, config.runtime_dir, "/");
  if (!endpoint.starts_with(folder)) {
    return false;
  }
  endpoint.remove_prefix(folder.size());
  return endpoint == "terrace.sock" || endpoint == "session.sock" || endpoint == "admin.sock";
}

}  // namespace

absl::Status SetEventsKey(std::string_view key,
                          const TomlValue& value,
                          EventPublisherOptions* events) {
  constexpr uint32_t kMillion = 1'000'000;
  if (key == "tenant") {
    return SetText(value, 1, kMaxAliasBytes, &events->tenant);
  }
  if (key == "zmq_endpoint") {
    return SetEndpoint(value, &events->zmq_endpoint);
  }
  if (key == "zmq_replay_endpoint") {
    return SetEndpoint(value, &events->zmq_replay_endpoint);
  }
  if (key == "topic") {
    return SetText(value, 0, kMaxTopicBytes, &events->topic);
  }
  if (key == "model") {
    return SetText(value, 1, kMaxModelBytes, &events->model);
  }
  if (key == "dram_medium") {
    return SetText(value, 1, kMaxMediumBytes, &events->dram_medium);
  }
  if (key == "local_medium") {
    return SetText(value, 1, kMaxMediumBytes, &events->local_medium);
  }
  if (key == "format") {
    return SetChoice(value, kFormats, &events->format);
  }
  if (key == "hashes") {
    return SetChoice(value, kHashes, &events->hashes);
  }
  if (key == "data_parallel_rank") {
    return SetNumber(value, 0, 65535, &events->data_parallel_rank);
  }
  if (key == "buffer_steps") {
    return SetNumber(value, 0, kMillion, &events->buffer_steps);
  }
  if (key == "buffer") {
    return SetBuffer(value, &events->buffer_bytes);
  }
  if (key == "high_water_mark") {
    return SetNumber(value, 1, kMillion, &events->high_water_mark);
  }
  return SetMode(value, &events->socket_mode);
}

absl::Status CheckEvents(const LoadedConfig& loaded) {
  const Config& config = loaded.config;
  std::map<std::string, std::string> owners;  // by endpoint: the tenant
  for (size_t i = 0; i < config.events.size(); ++i) {
    const EventPublisherOptions& events = config.events[i];
    const std::string& origin = loaded.events_origins[i];
    if (i >= kMaxEventPublishers) {
      return absl::InvalidArgumentError(
          Concat(origin, ": events: at most ", kMaxEventPublishers, " sections"));
    }
    if (events.tenant.empty()) {
      return Refuse(origin, "tenant: is missing");
    }
    if (events.zmq_endpoint.empty()) {
      return Refuse(origin, "zmq_endpoint: is missing");
    }
    if (!MayBeTenant(config, events.tenant)) {
      return Refuse(origin, Concat("tenant: there is no tenant ", ShownValue(events.tenant)));
    }
    for (const std::string& endpoint : {events.zmq_endpoint, events.zmq_replay_endpoint}) {
      if (endpoint.empty() || endpoint.ends_with(":0")) {
        continue;
      }
      if (IsOurs(config, endpoint)) {
        return Refuse(origin, Concat("zmq_endpoint: is a socket of the daemon: ", endpoint));
      }
      const auto [taken, is_new] = owners.emplace(endpoint, events.tenant);
      if (!is_new) {
        return Refuse(origin,
                      Concat("zmq_endpoint: ", endpoint, " is taken by an endpoint of tenant ",
                             taken->second, "; each publisher has endpoints of its own"));
      }
    }
  }
  return absl::OkStatus();
}

std::string_view EventFormatText(EventFormat format) {
  return kFormats[static_cast<size_t>(format)];
}

std::string_view EventHashesText(EventHashes hashes) {
  return kHashes[static_cast<size_t>(hashes)];
}

bool IsOffHost(std::string_view endpoint) {
  if (!endpoint.starts_with(kTcp)) {
    return false;
  }
  const std::optional<std::string> address = AddressOf(endpoint.substr(kTcp.size()));
  return !address.has_value() || !(address->starts_with("127.") || *address == "::1");
}

}  // namespace terrace
