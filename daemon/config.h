// What the operator decides: the settings of terraced, where each came from, and the rules that
// they must obey.
//
// Sources, strongest first: command line, environment (TERRACE_CONFIG names the file,
// TERRACE_RUNTIME the runtime folder), file, default. The file is TOML and read strictly: a key
// that is unknown, set twice, of a wrong type or out of range is an error that names file, line,
// key and limit. Pure apart from reading the file and the group database; settings.h in this room
// has the table of settings.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "daemon/block_store.h"
#include "daemon/events/event_publisher.h"
#include "daemon/front.h"
#include "daemon/log.h"

namespace terrace {

inline constexpr size_t kMaxConfigBytes = size_t{1} << 20;
inline constexpr size_t kMaxAliasBytes = 64;
inline constexpr size_t kMaxIdsPerTenant = 1024;

enum class UnlistedPeers : uint8_t { kDeny = 0, kPerUid = 1 };

struct TenantConfig {
  std::string alias;
  std::vector<uint32_t> uids = {};
  std::vector<uint32_t> gids = {};  // the primary group of the peer's process
  uint64_t guaranteed_bytes = 0;
  uint64_t limit_bytes = 0;  // 0: none
  std::optional<PublishWhen> publish = std::nullopt;  // nullopt: as each shared tier says
  friend bool operator==(const TenantConfig&, const TenantConfig&) = default;
};

// A [[namespace]] section: a rule for those that match; of each thing, the first of them that says
// it counts.
struct NamespaceConfig {
  std::string tenant = {};                            // alias; "": of every tenant
  std::string model = {};                             // pattern
  std::optional<PublishWhen> publish = std::nullopt;  // this or `recompute` is required
  std::vector<PrefillTime> recompute = {};            // none: it is learnt
  friend bool operator==(const NamespaceConfig&, const NamespaceConfig&) = default;
};

inline constexpr std::string_view kLocalKind = "local";
inline constexpr std::string_view kSharedKind = "shared";

// A [[tier]] section. Those of kind local are the drives of one tier; each of kind shared is a
// tier.
struct TierConfig {
  std::string name;
  std::string kind;
  std::string path;
  uint64_t capacity_bytes = 0;
  // Of a shared tier.
  uint64_t node_share_bytes = 0;  // 0: what the nodes share out
  PublishWhen publish = PublishWhen::kOnCommit;
  uint64_t segment_bytes = uint64_t{256} << 20;
  uint64_t free_reserve_bytes = uint64_t{1} << 30;
  absl::Duration grace = absl::Minutes(1);
  absl::Duration dead_after = absl::Minutes(10);
  PoolAuth auth = PoolAuth::kNone;
  std::string key_file;        // with another auth, one of the two
  std::string key_credential;  // a name among the service manager's credentials
  friend bool operator==(const TierConfig&, const TierConfig&) = default;
};

// Whether regions of GPUs are served. kAuto: where there is a driver of them.
enum class GpuUse : uint8_t { kAuto = 0, kOn = 1, kOff = 2 };

// Whether DRAM outlives the process. kAuto: where the service manager keeps descriptors.
enum class KeepDram : uint8_t { kAuto = 0, kOff = 1 };

struct Config {
  // [daemon]
  std::string runtime_dir = "/run/terrace";
  std::string data_dir = "/var/lib/terrace";
  uint32_t io_threads = 2;
  uint32_t io_poll_us = 50;
  uint32_t copy_threads = 0;  // 0: one a core
  LogLevel log_level = LogLevel::kInfo;
  LogFormat log_format = LogFormat::kLogfmt;
  bool core_dumps = false;
  // [dram], and the maxima of [limits]
  BlockStoreOptions store;
  bool huge_pages = true;
  uint32_t touch_threads = 0;  // 0: one a core
  KeepDram keep = KeepDram::kAuto;
  // [local], beside what `store` has of it
  uint64_t local_bytes = uint64_t{4} << 30;  // 0: no local tier; not read where there are `tiers`
  std::string local_dir;                     // "": below data_dir; likewise
  uint64_t local_free_reserve = uint64_t{1} << 30;
  uint64_t local_scrub_bytes_per_second = uint64_t{16} << 20;  // 0: no scrubs by itself
  // [gpu]
  GpuUse gpu = GpuUse::kAuto;
  uint64_t gpu_staging_bytes = uint64_t{256} << 20;  // of puts on their way; a GPU
  // [limits]
  FrontLimits front;
  // [sockets]
  mode_t socket_mode = 0660;
  std::string socket_group;                   // "": unchanged
  gid_t socket_gid = static_cast<gid_t>(-1);  // what socket_group names
  UnlistedPeers unlisted = UnlistedPeers::kPerUid;
  // [metrics]
  std::string metrics_listen = "127.0.0.1:9464";  // "": off
  // [[events]]
  std::vector<EventPublisherOptions> events;
  // [[tier]]
  std::vector<TierConfig> tiers;
  // [[tenant]]
  std::vector<TenantConfig> tenants;
  // [[namespace]]
  std::vector<NamespaceConfig> namespaces;
};

// The drives of the local tier: as listed, else the one that [local] describes. None: there is no
// such tier.
std::vector<TierConfig> LocalDrivesOf(const Config& config);
// Nearest first, as listed.
std::vector<TierConfig> SharedTiersOf(const Config& config);
std::vector<NamespaceRule> NamespaceRulesOf(const Config& config);
// "commit", "reuse", "eviction", "never"
std::string_view PublishText(PublishWhen publish);

// What the command line and the environment say; nullopt: nothing.
struct ConfigRequest {
  std::optional<std::string> config_file = std::nullopt;          // --config
  std::optional<std::string> data_dir = std::nullopt;             // --data
  std::optional<std::string> runtime_dir = std::nullopt;          // --runtime
  std::vector<std::string> overrides = {};                        // --set SECTION.KEY=VALUE
  std::optional<std::string> environment_config = std::nullopt;   // TERRACE_CONFIG
  std::optional<std::string> environment_runtime = std::nullopt;  // TERRACE_RUNTIME
};

struct LoadedConfig {
  Config config;
  std::string file;  // "": none was named
  std::vector<std::string>
      origins;  // one a setting of Settings(): "default", "FILE:LINE", "--data", ...
  std::vector<std::string> tier_origins;    // one a tier: "FILE:LINE"
  std::vector<std::string> tenant_origins;  // one a tenant, likewise
  std::vector<std::string> namespace_origins;  // likewise
  std::vector<std::string> events_origins;     // likewise
};

// Without a file the daemon is embedded: the folders default to DIR/run and DIR/data below
// whichever of the two the command line names, and metrics take any free port. Errors:
// INVALID_ARGUMENT, NOT_FOUND, PERMISSION_DENIED; each with one line that begins with FILE:LINE: or
// the option.
absl::StatusOr<LoadedConfig> LoadConfig(const ConfigRequest& request);

// The same for a file's text, with no look at the file system; `file` is its name in messages and
// origins.
absl::StatusOr<LoadedConfig> ParseConfig(std::string_view text, std::string_view file);

// A TOML file that ParseConfig accepts and that says everything, each line with its origin as a
// comment.
std::string PrintConfig(const LoadedConfig& loaded);
// {"file", "settings": [{"name", "value", "origin"}], "tiers": [...], "tenants": [...], ...}, one
// line. Both leave out what [local] says of the one drive where there are tiers.
std::string PrintConfigJson(const LoadedConfig& loaded);

// What a reload would do.
struct ConfigDifference {
  std::vector<std::string> live;           // names that can change while the daemon runs
  std::vector<std::string> needs_restart;  // names that differ and cannot
};
ConfigDifference CompareConfigs(const Config& running, const Config& wanted);
// `running` with every live setting of `wanted`.
Config WithLiveSettings(const Config& running, const Config& wanted);

// The alias of the tenant that a peer belongs to: the first tenant that lists the uid, else the
// first that lists the gid, else "uid-N" or PERMISSION_DENIED as `unlisted` says.
absl::StatusOr<std::string> TenantOf(const Config& config, const PeerCredentials& peer);
// Whether some peer may belong to the tenant of this alias.
bool IsTenant(const Config& config, std::string_view alias);

}  // namespace terrace
