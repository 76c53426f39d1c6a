#include "daemon/config_tiers.h"

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "daemon/concat.h"
#include "daemon/quoted_text.h"
#include "daemon/settings.h"
#include "tiers/segment/tier_set.h"

namespace terrace {
namespace {

constexpr std::string_view kLocalKind = "local";
constexpr std::string_view kSharedKind = "shared";
constexpr std::string_view kDramName = "g2";
constexpr double kMaxTierFolderBytes = 1024;

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
  if (kind == kSharedKind) {
    return absl::InvalidArgumentError(
        "shared tiers are not there yet; this version has local ones");
  }
  if (kind != kLocalKind) {
    return absl::InvalidArgumentError(
        Concat("must be ", kLocalKind, ", not ", ShownValue(kind),
               kind == "dram" ? "; DRAM is configured in [dram]" : ""));
  }
  tier->kind = kind;
  return absl::OkStatus();
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
  if (loaded.config.tiers.empty()) {
    return {OriginOf(loaded, "local.capacity"), "local.capacity", OriginOf(loaded, "local.dir"),
            "local.dir", "0B, which means no local tier, or "};
  }
  const std::string& origin = loaded.tier_origins[drive];
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

absl::Status CheckTiersTogether(const LoadedConfig& loaded) {
  const std::vector<TierConfig>& tiers = loaded.config.tiers;
  for (const std::string_view name : {"local.dir", "local.capacity"}) {
    if (const std::string& origin = OriginOf(loaded, name); origin != "default") {
      return Refuse(origin, Concat(name, ": cannot be set beside [[tier]], which says it"));
    }
  }
  if (tiers.size() > kMaxDrives) {
    return Refuse(loaded.tier_origins[kMaxDrives],
                  Concat("tier: at most ", kMaxDrives, " local drives"));
  }
  for (size_t i = 1; i < tiers.size(); ++i) {
    if (tiers[i].name != tiers.front().name) {
      return Refuse(loaded.tier_origins[i],
                    Concat("tier.name: local drives are one tier, and this one is ", tiers[i].name,
                           " where the first is ", tiers.front().name));
    }
    for (size_t j = 0; j < i; ++j) {
      if (tiers[i].path == tiers[j].path) {
        return Refuse(loaded.tier_origins[i],
                      Concat("tier.path: ", ShownValue(tiers[i].path), " is there twice"));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace

std::vector<TierConfig> LocalDrivesOf(const Config& config) {
  if (!config.tiers.empty()) {
    return config.tiers;
  }
  if (config.local_bytes == 0) {
    return {};
  }
  TierConfig drive;
  drive.kind = kLocalKind;
  drive.path = config.local_dir.empty() ? Concat(config.data_dir, "/local") : config.local_dir;
  drive.capacity_bytes = config.local_bytes;
  return {drive};
}

absl::Status SetTierKey(std::string_view key, const TomlValue& value, TierConfig* tier) {
  if (key == "capacity") {
    const absl::StatusOr<uint64_t> bytes = SizeOf(value);
    tier->capacity_bytes = bytes.ok() ? *bytes : 0;
    return bytes.status();
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

absl::Status CheckTiersAreComplete(const LoadedConfig& loaded) {
  for (size_t i = 0; i < loaded.config.tiers.size(); ++i) {
    const TierConfig& tier = loaded.config.tiers[i];
    const std::string_view missing = tier.kind.empty()          ? "kind"
                                     : tier.path.empty()        ? "path"
                                     : tier.capacity_bytes == 0 ? "capacity"
                                                                : "";
    if (!missing.empty()) {
      return Refuse(loaded.tier_origins[i], Concat("tier: ", missing, " is missing"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckLocalDrives(const LoadedConfig& loaded) {
  if (!loaded.config.tiers.empty()) {
    if (absl::Status status = CheckTiersTogether(loaded); !status.ok()) {
      return status;
    }
  }
  const std::vector<TierConfig> drives = LocalDrivesOf(loaded.config);
  for (size_t i = 0; i < drives.size(); ++i) {
    if (absl::Status status = CheckDrive(loaded, drives[i], i); !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

}  // namespace terrace
