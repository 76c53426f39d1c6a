#include "daemon/config_tiers.h"

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <string>
#include <vector>

#include "daemon/concat.h"
#include "daemon/quoted_text.h"
#include "daemon/settings.h"
#include "tiers/segment/tier_set.h"

namespace terrace {
namespace {

constexpr std::string_view kDramName = "g2";
constexpr std::string_view kLocalName = "g3";
constexpr double kMaxTierFolderBytes = 1024;
constexpr size_t kMaxCredentialBytes = 255;
constexpr std::string_view kPublishTexts[] = {"commit", "reuse", "eviction", "never"};
constexpr uint64_t kLeastSegmentBytes = uint64_t{16} << 20;
constexpr uint64_t kMostSegmentBytes = uint64_t{16} << 30;
constexpr uint64_t kSegmentUnit = 4096;
constexpr uint64_t kMaxPayload = uint64_t{64} << 20;
constexpr absl::Duration kLeastGrace = absl::Seconds(1);
constexpr absl::Duration kMostGrace = absl::Hours(24);
constexpr absl::Duration kLeastDeadAfter = absl::Seconds(10);
constexpr absl::Duration kMostDeadAfter = absl::Hours(24 * 30);

absl::Status Refuse(std::string_view origin, std::string_view what) {
  return absl::InvalidArgumentError(Concat(origin, ": ", what));
}

const std::string& OriginOf(const LoadedConfig& loaded, std::string_view name) {
  return loaded.origins[static_cast<size_t>(FindSetting(name))];
}

absl::Status SetName(const std::string& name, TierConfig* tier) {
  bool allowed = !name.empty() && name.size() <= kMaxTierNameBytes;
  for (const char c : name) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    allowed = allowed && (letter || c == '.' || c == '-');
  }
  if (!allowed) {
    return absl::InvalidArgumentError(Concat("must be 1 to ", kMaxTierNameBytes,
                                             " letters, digits, '.' and '-', not ",
                                             ShownValue(name)));
  }
  if (name == kDramName) {
    return absl::InvalidArgumentError("must not be g2, which is DRAM");
  }
  tier->name = name;
  return absl::OkStatus();
}

absl::Status SetKind(const std::string& kind, TierConfig* tier) {
  if (kind != kLocalKind && kind != kSharedKind) {
    return absl::InvalidArgumentError(
        Concat("must be ", kLocalKind, " or ", kSharedKind, ", not ", ShownValue(kind),
               kind == "dram" ? "; DRAM is configured in [dram]" : ""));
  }
  tier->kind = kind;
  return absl::OkStatus();
}

absl::Status SetAuth(const TomlValue& value, PoolAuth* out) {
  const auto* text = std::get_if<std::string>(&value);
  for (const PoolAuth auth : {PoolAuth::kNone, PoolAuth::kMac, PoolAuth::kEncrypt}) {
    if (text != nullptr && *text == AuthText(auth)) {
      *out = auth;
      return absl::OkStatus();
    }
  }
  return absl::InvalidArgumentError(Concat("must be none, mac or encrypt, not ",
                                           text == nullptr ? TomlKind(value) : ShownValue(*text)));
}

absl::Status SetKeyFile(const TomlValue& value, std::string* out) {
  const absl::StatusOr<std::string> file = FolderOf(value, kMaxTierFolderBytes);
  *out = file.ok() ? std::filesystem::path(*file).lexically_normal().string() : "";
  return file.status();
}

absl::Status SetCredential(const TomlValue& value, std::string* out) {
  const auto* text = std::get_if<std::string>(&value);
  if (text == nullptr) {
    return absl::InvalidArgumentError(Concat("must be a string, not ", TomlKind(value)));
  }
  bool allowed =
      !text->empty() && text->size() <= kMaxCredentialBytes && *text != "." && *text != "..";
  for (const char c : *text) {
    allowed = allowed && ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                          (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_');
  }
  if (!allowed) {
    return absl::InvalidArgumentError(
        Concat("must be the name of a credential, 1 to ", kMaxCredentialBytes,
               " letters, digits, '.', '-' and '_', not ", ShownValue(*text)));
  }
  *out = *text;
  return absl::OkStatus();
}

absl::Status SetSize(const TomlValue& value, uint64_t* out) {
  const absl::StatusOr<uint64_t> bytes = SizeOf(value);
  *out = bytes.ok() ? *bytes : 0;
  return bytes.status();
}

absl::Status SetTime(const TomlValue& value,
                     absl::Duration least,
                     absl::Duration most,
                     absl::Duration* out) {
  const auto* text = std::get_if<std::string>(&value);
  absl::Duration time;
  if (text == nullptr || !absl::ParseDuration(*text, &time)) {
    return absl::InvalidArgumentError(
        Concat("must be a time such as \"90s\", not ",
               text == nullptr ? TomlKind(value) : ShownValue(*text)));
  }
  if (time < least || time > most) {
    return absl::InvalidArgumentError(Concat("must be ", absl::FormatDuration(least), " to ",
                                             absl::FormatDuration(most), ", not ",
                                             absl::FormatDuration(time)));
  }
  *out = time;
  return absl::OkStatus();
}

// Positions in `tiers`.
std::vector<size_t> TiersOfKind(const Config& config, std::string_view kind) {
  std::vector<size_t> found;
  for (size_t i = 0; i < config.tiers.size(); ++i) {
    if (config.tiers[i].kind == kind) {
      found.push_back(i);
    }
  }
  return found;
}

// What Refuse says of a drive's capacity or folder comes after this.
struct DriveOrigin {
  std::string capacity_origin;
  std::string capacity;
  std::string folder_origin;
  std::string folder;
  std::string_view none;  // what may stand instead of the least capacity
};

DriveOrigin OriginOfDrive(const LoadedConfig& loaded, size_t drive) {
  const std::vector<size_t> listed = TiersOfKind(loaded.config, kLocalKind);
  if (listed.empty()) {
    return {OriginOf(loaded, "local.capacity"), "local.capacity", OriginOf(loaded, "local.dir"),
            "local.dir", "0B, which means no local tier, or "};
  }
  const std::string& origin = loaded.tier_origins[listed[drive]];
  return {origin, "tier.capacity", origin, "tier.path", ""};
}

absl::Status CheckDrive(const LoadedConfig& loaded, const TierConfig& drive, size_t number) {
  const Config& config = loaded.config;
  const DriveOrigin origin = OriginOfDrive(loaded, number);
  SegmentTierOptions tier;
  tier.max_payload_bytes = config.store.local_max_payload_bytes;
  const uint64_t least = LeastTierCapacity(tier);
  if (drive.capacity_bytes < least) {
    return Refuse(origin.capacity_origin,
                  Concat(origin.capacity, ": must be ", origin.none, "at least ", SizeText(least),
                         " for blocks of ", SizeText(config.store.local_max_payload_bytes),
                         ", not ", SizeText(drive.capacity_bytes)));
  }
  if (drive.path == config.data_dir || drive.path == config.runtime_dir) {
    return Refuse(origin.folder_origin,
                  Concat(origin.folder,
                         ": must be a folder of its own, not daemon.data_dir or "
                         "daemon.runtime_dir"));
  }
  return absl::OkStatus();
}

absl::Status CheckDrivesTogether(const LoadedConfig& loaded, const std::vector<size_t>& drives) {
  const std::vector<TierConfig>& tiers = loaded.config.tiers;
  for (const std::string_view name : {"local.dir", "local.capacity"}) {
    if (const std::string& origin = OriginOf(loaded, name); origin != "default") {
      return Refuse(origin, Concat(name, ": cannot be set beside [[tier]], which says it"));
    }
  }
  if (drives.size() > kMaxDrives) {
    return Refuse(loaded.tier_origins[drives[kMaxDrives]],
                  Concat("tier: at most ", kMaxDrives, " local drives"));
  }
  const std::string& first = tiers[drives.front()].name;
  for (const size_t i : drives) {
    if (tiers[i].name != first) {
      return Refuse(loaded.tier_origins[i],
                    Concat("tier.name: local drives are one tier, and this one is ", tiers[i].name,
                           " where the first is ", first));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckPathsDiffer(const LoadedConfig& loaded) {
  const std::vector<TierConfig>& tiers = loaded.config.tiers;
  for (size_t i = 1; i < tiers.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      if (tiers[i].path == tiers[j].path) {
        return Refuse(loaded.tier_origins[i],
                      Concat("tier.path: ", ShownValue(tiers[i].path), " is there twice"));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status CheckProtection(const Config& config,
                             const TierConfig& tier,
                             const std::string& origin) {
  const bool has_file = !tier.key_file.empty();
  const bool has_credential = !tier.key_credential.empty();
  if (tier.auth == PoolAuth::kNone) {
    return has_file || has_credential
               ? Refuse(origin, Concat("tier.", has_file ? "key_file" : "key_credential",
                                       ": protects nothing where tier.auth is none"))
               : absl::OkStatus();
  }
  if (has_file == has_credential) {
    return Refuse(origin,
                  Concat("tier.auth: ", AuthText(tier.auth), " needs key_file or key_credential, ",
                         has_file ? "and not both" : "and has neither"));
  }
  const std::string below = Concat(tier.path, "/");
  if (tier.key_file.compare(0, below.size(), below) == 0) {
    return Refuse(origin, "tier.key_file: must not lie in the pool that it protects");
  }
  if (config.core_dumps) {
    return Refuse(origin, Concat("tier.auth: cannot be ", AuthText(tier.auth),
                                 " while daemon.core_dumps is true: keys would be in the dump"));
  }
  return absl::OkStatus();
}

absl::Status CheckShared(const LoadedConfig& loaded, size_t number) {
  const Config& config = loaded.config;
  const TierConfig& tier = config.tiers[number];
  const std::string& origin = loaded.tier_origins[number];
  for (size_t i = 0; i < config.tiers.size(); ++i) {
    if (i != number && config.tiers[i].name == tier.name) {
      return Refuse(origin, Concat("tier.name: ", tier.name, " is the name of another tier"));
    }
  }
  if (TiersOfKind(config, kLocalKind).empty() && config.local_bytes > 0 &&
      tier.name == kLocalName) {
    return Refuse(origin, Concat("tier.name: ", tier.name, " is the name of the local tier"));
  }
  if (tier.path == config.data_dir || tier.path == config.runtime_dir) {
    return Refuse(origin,
                  "tier.path: must be a folder of its own, not daemon.data_dir or "
                  "daemon.runtime_dir");
  }
  const uint64_t block = config.store.local_max_payload_bytes == 0
                             ? kMaxPayload
                             : config.store.local_max_payload_bytes;
  const uint64_t least = std::max(kLeastSegmentBytes, 2 * block);
  if (tier.segment_bytes < least || tier.segment_bytes > kMostSegmentBytes ||
      tier.segment_bytes % kSegmentUnit != 0) {
    return Refuse(origin,
                  Concat("tier.segment_size: must be a multiple of 4KiB from ", SizeText(least),
                         " (for blocks of ", SizeText(block), ") to ", SizeText(kMostSegmentBytes),
                         ", not ", SizeText(tier.segment_bytes)));
  }
  if (tier.capacity_bytes < 2 * tier.segment_bytes) {
    return Refuse(
        origin, Concat("tier.capacity: must be at least two segments, ",
                       SizeText(2 * tier.segment_bytes), ", not ", SizeText(tier.capacity_bytes)));
  }
  if (tier.node_share_bytes > tier.capacity_bytes) {
    return Refuse(origin,
                  Concat("tier.node_share: must be at most the capacity, ",
                         SizeText(tier.capacity_bytes), ", not ", SizeText(tier.node_share_bytes)));
  }
  return CheckProtection(config, tier, origin);
}

}  // namespace

std::vector<TierConfig> LocalDrivesOf(const Config& config) {
  std::vector<TierConfig> drives;
  for (const size_t i : TiersOfKind(config, kLocalKind)) {
    drives.push_back(config.tiers[i]);
  }
  if (drives.empty() && config.local_bytes > 0) {
    TierConfig drive;
    drive.name = kLocalName;
    drive.kind = kLocalKind;
    drive.path = config.local_dir.empty() ? Concat(config.data_dir, "/local") : config.local_dir;
    drive.capacity_bytes = config.local_bytes;
    drives.push_back(drive);
  }
  return drives;
}

std::vector<TierConfig> SharedTiersOf(const Config& config) {
  std::vector<TierConfig> tiers;
  for (const size_t i : TiersOfKind(config, kSharedKind)) {
    tiers.push_back(config.tiers[i]);
  }
  return tiers;
}

std::vector<NamespaceRule> NamespaceRulesOf(const Config& config) {
  std::vector<NamespaceRule> rules;
  rules.reserve(config.namespaces.size());
  for (const NamespaceConfig& rule : config.namespaces) {
    std::optional<RecomputeModel> recompute;
    if (const auto model = ModelThrough(rule.recompute); model.ok()) {
      recompute = *model;
    }
    rules.push_back({rule.tenant, rule.model, rule.publish, recompute});
  }
  return rules;
}

std::string_view PublishText(PublishWhen publish) {
  return kPublishTexts[static_cast<size_t>(publish)];
}

absl::Status SetPublish(const TomlValue& value, PublishWhen* publish) {
  const auto* text = std::get_if<std::string>(&value);
  for (size_t i = 0; text != nullptr && i < std::size(kPublishTexts); ++i) {
    if (*text == kPublishTexts[i]) {
      *publish = static_cast<PublishWhen>(i);
      return absl::OkStatus();
    }
  }
  return absl::InvalidArgumentError(Concat("must be commit, reuse, eviction or never, not ",
                                           text == nullptr ? TomlKind(value) : ShownValue(*text)));
}

bool IsSharedTierKey(std::string_view key) {
  return key != "name" && key != "kind" && key != "path" && key != "capacity";
}

absl::Status SetTierKey(std::string_view key, const TomlValue& value, TierConfig* tier) {
  if (key == "capacity") {
    return SetSize(value, &tier->capacity_bytes);
  }
  if (key == "node_share") {
    return SetSize(value, &tier->node_share_bytes);
  }
  if (key == "segment_size") {
    return SetSize(value, &tier->segment_bytes);
  }
  if (key == "free_reserve") {
    return SetSize(value, &tier->free_reserve_bytes);
  }
  if (key == "publish") {
    return SetPublish(value, &tier->publish);
  }
  if (key == "grace") {
    return SetTime(value, kLeastGrace, kMostGrace, &tier->grace);
  }
  if (key == "dead_after") {
    return SetTime(value, kLeastDeadAfter, kMostDeadAfter, &tier->dead_after);
  }
  if (key == "auth") {
    return SetAuth(value, &tier->auth);
  }
  if (key == "key_file") {
    return SetKeyFile(value, &tier->key_file);
  }
  if (key == "key_credential") {
    return SetCredential(value, &tier->key_credential);
  }
  if (key == "path") {
    const absl::StatusOr<std::string> folder = FolderOf(value, kMaxTierFolderBytes);
    if (!folder.ok()) {
      return folder.status();
    }
    // One folder has one spelling, so that none is there twice.
    tier->path = std::filesystem::path(*folder).lexically_normal().string();
    while (tier->path.size() > 1 && tier->path.back() == '/') {
      tier->path.pop_back();
    }
    return absl::OkStatus();
  }
  const auto* text = std::get_if<std::string>(&value);
  if (text == nullptr) {
    return absl::InvalidArgumentError(Concat("must be a string, not ", TomlKind(value)));
  }
  return key == "name" ? SetName(*text, tier) : SetKind(*text, tier);
}

absl::Status CompleteTiers(LoadedConfig* loaded) {
  for (size_t i = 0; i < loaded->config.tiers.size(); ++i) {
    TierConfig& tier = loaded->config.tiers[i];
    const bool nameless = tier.kind == kSharedKind && tier.name.empty();
    const std::string_view missing = tier.kind.empty()          ? "kind"
                                     : tier.path.empty()        ? "path"
                                     : tier.capacity_bytes == 0 ? "capacity"
                                     : nameless                 ? "name"
                                                                : "";
    if (!missing.empty()) {
      return Refuse(loaded->tier_origins[i], Concat("tier: ", missing, " is missing"));
    }
    tier.name = tier.name.empty() ? kLocalName : tier.name;
  }
  return absl::OkStatus();
}

absl::Status CheckTiers(const LoadedConfig& loaded) {
  if (absl::Status status = CheckPathsDiffer(loaded); !status.ok()) {
    return status;
  }
  if (const std::vector<size_t> listed = TiersOfKind(loaded.config, kLocalKind); !listed.empty()) {
    if (absl::Status status = CheckDrivesTogether(loaded, listed); !status.ok()) {
      return status;
    }
  }
  const std::vector<TierConfig> drives = LocalDrivesOf(loaded.config);
  for (size_t i = 0; i < drives.size(); ++i) {
    if (absl::Status status = CheckDrive(loaded, drives[i], i); !status.ok()) {
      return status;
    }
  }
  const std::vector<size_t> shared = TiersOfKind(loaded.config, kSharedKind);
  if (shared.size() > kMaxSharedTiers) {
    return Refuse(loaded.tier_origins[shared[kMaxSharedTiers]],
                  Concat("tier: at most ", kMaxSharedTiers, " shared tiers"));
  }
  for (const size_t i : shared) {
    if (absl::Status status = CheckShared(loaded, i); !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

}  // namespace terrace
