// The [[events]] sections: their keys, and what they must say together. Pure.
#pragma once

#include <string_view>

#include "absl/status/status.h"

#include "daemon/config.h"
#include "daemon/config_toml.h"

namespace terrace {

inline constexpr std::string_view kEventsKeys[] = {
    "tenant",          "zmq_endpoint",       "zmq_replay_endpoint", "topic",
    "model",           "dram_medium",        "local_medium",        "format",
    "hashes",          "data_parallel_rank", "buffer_steps",        "buffer",
    "high_water_mark", "socket_mode"};

// `key` is one of kEventsKeys. Errors: INVALID_ARGUMENT that says what is allowed, without the key.
absl::Status SetEventsKey(std::string_view key,
                          const TomlValue& value,
                          EventPublisherOptions* events);

// That each section says whom it publishes and where, of a tenant that there can be, and that no
// two share an endpoint. Errors: INVALID_ARGUMENT "ORIGIN: ...".
absl::Status CheckEvents(const LoadedConfig& loaded);

std::string_view EventFormatText(EventFormat format);
std::string_view EventHashesText(EventHashes hashes);
// Whether it is a tcp endpoint that other hosts may reach.
bool IsOffHost(std::string_view endpoint);

}  // namespace terrace
