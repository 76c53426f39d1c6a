// Printing, comparing and applying of configurations that are known to be valid.
#include <algorithm>
#include <utility>

#include "absl/strings/str_format.h"

#include "daemon/concat.h"
#include "daemon/config.h"
#include "daemon/config_events.h"
#include "daemon/config_recompute.h"
#include "daemon/quoted_text.h"
#include "daemon/settings.h"

namespace terrace {
namespace {

std::string IdsText(const std::vector<uint32_t>& ids) {
  std::string text = "[";
  for (size_t i = 0; i < ids.size(); ++i) {
    text.append(i == 0 ? "" : ", ").append(Concat(ids[i]));
  }
  return text + "]";
}

// Control characters end a TOML comment or are not allowed in it.
std::string CommentText(std::string_view origin) {
  std::string text(origin);
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      c = '?';
    }
  }
  return text;
}

void AppendLine(std::string* out,
                std::string_view key,
                std::string_view value,
                std::string_view origin) {
  out->append(Concat(key, " = ", value, "  # ", CommentText(origin), "\n"));
}

void AppendTenant(std::string* out, const TenantConfig& tenant, std::string_view origin) {
  out->append("\n[[tenant]]\n");
  AppendLine(out, "alias", QuotedText(tenant.alias), origin);
  AppendLine(out, "uids", IdsText(tenant.uids), origin);
  AppendLine(out, "gids", IdsText(tenant.gids), origin);
  AppendLine(out, "guaranteed", QuotedText(SizeText(tenant.guaranteed_bytes)), origin);
  AppendLine(out, "limit", QuotedText(SizeText(tenant.limit_bytes)), origin);
  if (tenant.publish.has_value()) {
    AppendLine(out, "publish", QuotedText(PublishText(*tenant.publish)), origin);
  }
}

void AppendNamespace(std::string* out, const NamespaceConfig& rule, std::string_view origin) {
  out->append("\n[[namespace]]\n");
  if (!rule.tenant.empty()) {
    AppendLine(out, "tenant", QuotedText(rule.tenant), origin);
  }
  AppendLine(out, "model", QuotedText(rule.model), origin);
  if (rule.publish.has_value()) {
    AppendLine(out, "publish", QuotedText(PublishText(*rule.publish)), origin);
  }
  if (!rule.recompute.empty()) {
    AppendLine(out, "recompute", QuotedText(RecomputeText(rule.recompute)), origin);
  }
}

// What PrintConfig and PrintConfigJson say of a publisher: keys and values that are TOML and JSON.
std::vector<std::pair<std::string_view, std::string>> ValuesOf(
    const EventPublisherOptions& events) {
  std::vector<std::pair<std::string_view, std::string>> values = {
      {"tenant", QuotedText(events.tenant)}, {"zmq_endpoint", QuotedText(events.zmq_endpoint)}};
  if (!events.zmq_replay_endpoint.empty()) {
    values.emplace_back("zmq_replay_endpoint", QuotedText(events.zmq_replay_endpoint));
  }
  values.emplace_back("topic", QuotedText(events.topic));
  if (!events.model.empty()) {
    values.emplace_back("model", QuotedText(events.model));
  }
  values.emplace_back("dram_medium", QuotedText(events.dram_medium));
  values.emplace_back("local_medium", QuotedText(events.local_medium));
  values.emplace_back("format", QuotedText(EventFormatText(events.format)));
  values.emplace_back("hashes", QuotedText(EventHashesText(events.hashes)));
  values.emplace_back("data_parallel_rank", Concat(events.data_parallel_rank));
  values.emplace_back("buffer_steps", Concat(events.buffer_steps));
  values.emplace_back("buffer", QuotedText(SizeText(events.buffer_bytes)));
  values.emplace_back("high_water_mark", Concat(events.high_water_mark));
  values.emplace_back("socket_mode", QuotedText(absl::StrFormat("%04o", events.socket_mode)));
  return values;
}

std::string EventsJson(const EventPublisherOptions& events, std::string_view origin) {
  std::string text = "{";
  for (const auto& [key, value] : ValuesOf(events)) {
    text.append(Concat(QuotedText(key), ":", value, ","));
  }
  return text.append(Concat("\"origin\":", QuotedText(origin), "}"));
}

void AppendTier(std::string* out, const TierConfig& tier, std::string_view origin) {
  out->append("\n[[tier]]\n");
  AppendLine(out, "name", QuotedText(tier.name), origin);
  AppendLine(out, "kind", QuotedText(tier.kind), origin);
  AppendLine(out, "path", QuotedText(tier.path), origin);
  AppendLine(out, "capacity", QuotedText(SizeText(tier.capacity_bytes)), origin);
  if (tier.kind != kSharedKind) {
    return;
  }
  AppendLine(out, "node_share", QuotedText(SizeText(tier.node_share_bytes)), origin);
  AppendLine(out, "publish", QuotedText(PublishText(tier.publish)), origin);
  AppendLine(out, "segment_size", QuotedText(SizeText(tier.segment_bytes)), origin);
  AppendLine(out, "free_reserve", QuotedText(SizeText(tier.free_reserve_bytes)), origin);
  AppendLine(out, "grace", QuotedText(absl::FormatDuration(tier.grace)), origin);
  AppendLine(out, "dead_after", QuotedText(absl::FormatDuration(tier.dead_after)), origin);
  AppendLine(out, "auth", QuotedText(AuthText(tier.auth)), origin);
  if (!tier.key_file.empty()) {
    AppendLine(out, "key_file", QuotedText(tier.key_file), origin);
  }
  if (!tier.key_credential.empty()) {
    AppendLine(out, "key_credential", QuotedText(tier.key_credential), origin);
  }
}

// Where the key is, and never the key.
std::string KeyJson(const TierConfig& tier) {
  std::string text = Concat(",\"auth\":", QuotedText(AuthText(tier.auth)));
  if (!tier.key_file.empty()) {
    text.append(Concat(",\"key_file\":", QuotedText(tier.key_file)));
  }
  if (!tier.key_credential.empty()) {
    text.append(Concat(",\"key_credential\":", QuotedText(tier.key_credential)));
  }
  return text;
}

// What only a shared tier has, from a comma on.
std::string SharedJson(const TierConfig& tier) {
  if (tier.kind != kSharedKind) {
    return "";
  }
  return Concat(",\"node_share_bytes\":", tier.node_share_bytes,
                ",\"publish\":", QuotedText(PublishText(tier.publish)),
                ",\"segment_bytes\":", tier.segment_bytes,
                ",\"free_reserve_bytes\":", tier.free_reserve_bytes,
                ",\"grace_ms\":", absl::ToInt64Milliseconds(tier.grace),
                ",\"dead_after_ms\":", absl::ToInt64Milliseconds(tier.dead_after), KeyJson(tier));
}

std::string PublishJson(std::optional<PublishWhen> publish) {
  return publish.has_value() ? Concat(",\"publish\":", QuotedText(PublishText(*publish))) : "";
}

std::string RecomputeJson(const NamespaceConfig& rule) {
  return rule.recompute.empty()
             ? ""
             : Concat(",\"recompute\":", QuotedText(RecomputeText(rule.recompute)));
}

// Whether a setting of [local] is said by [[tier]] sections instead.
bool SaidByTiers(const Setting& setting, const Config& config) {
  const bool listed = std::any_of(config.tiers.begin(), config.tiers.end(),
                                  [](const TierConfig& tier) { return tier.kind == kLocalKind; });
  return listed && (setting.name == "local.dir" || setting.name == "local.capacity");
}

// Names of the elements of `from` that are not in `to` as they are.
template <typename Element>
void Compare(std::string_view subject,
             std::string Element::*name_of,
             const std::vector<Element>& from,
             const std::vector<Element>& to,
             std::vector<std::string>* out) {
  for (const Element& element : from) {
    const bool same = std::find(to.begin(), to.end(), element) != to.end();
    const std::string name = Concat(subject, ".", element.*name_of);
    if (!same && std::find(out->begin(), out->end(), name) == out->end()) {
      out->push_back(name);
    }
  }
}

}  // namespace

std::string PrintConfig(const LoadedConfig& loaded) {
  std::string out;
  std::string_view section;
  const absl::Span<const Setting> settings = Settings();
  for (size_t i = 0; i < settings.size(); ++i) {
    const Setting& setting = settings[i];
    if (SaidByTiers(setting, loaded.config)) {
      continue;
    }
    if (setting.section() != section) {
      out.append(Concat(section.empty() ? "[" : "\n[", setting.section(), "]\n"));
      section = setting.section();
    }
    AppendLine(&out, setting.key(), SettingText(setting, loaded.config), loaded.origins[i]);
  }
  for (size_t i = 0; i < loaded.config.tiers.size(); ++i) {
    AppendTier(&out, loaded.config.tiers[i], loaded.tier_origins[i]);
  }
  for (size_t i = 0; i < loaded.config.tenants.size(); ++i) {
    AppendTenant(&out, loaded.config.tenants[i], loaded.tenant_origins[i]);
  }
  for (size_t i = 0; i < loaded.config.namespaces.size(); ++i) {
    AppendNamespace(&out, loaded.config.namespaces[i], loaded.namespace_origins[i]);
  }
  for (size_t i = 0; i < loaded.config.events.size(); ++i) {
    out.append("\n[[events]]\n");
    for (const auto& [key, value] : ValuesOf(loaded.config.events[i])) {
      AppendLine(&out, key, value, loaded.events_origins[i]);
    }
  }
  return out;
}

std::string PrintConfigJson(const LoadedConfig& loaded) {
  std::string out = Concat("{\"file\":", QuotedText(loaded.file), ",\"settings\":[");
  const absl::Span<const Setting> settings = Settings();
  for (size_t i = 0; i < settings.size(); ++i) {
    if (SaidByTiers(settings[i], loaded.config)) {
      continue;
    }
    // What SettingText writes as TOML is JSON as well.
    out.append(Concat(i == 0 ? "" : ",", "{\"name\":", QuotedText(settings[i].name),
                      ",\"value\":", SettingText(settings[i], loaded.config),
                      ",\"origin\":", QuotedText(loaded.origins[i]), "}"));
  }
  out.append("],\"tiers\":[");
  for (size_t i = 0; i < loaded.config.tiers.size(); ++i) {
    const TierConfig& tier = loaded.config.tiers[i];
    out.append(Concat(i == 0 ? "" : ",", "{\"name\":", QuotedText(tier.name),
                      ",\"kind\":", QuotedText(tier.kind), ",\"path\":", QuotedText(tier.path),
                      ",\"capacity_bytes\":", tier.capacity_bytes, SharedJson(tier),
                      ",\"origin\":", QuotedText(loaded.tier_origins[i]), "}"));
  }
  out.append("],\"tenants\":[");
  for (size_t i = 0; i < loaded.config.tenants.size(); ++i) {
    const TenantConfig& tenant = loaded.config.tenants[i];
    out.append(Concat(i == 0 ? "" : ",", "{\"alias\":", QuotedText(tenant.alias),
                      ",\"uids\":", IdsText(tenant.uids), ",\"gids\":", IdsText(tenant.gids),
                      ",\"guaranteed_bytes\":", tenant.guaranteed_bytes,
                      ",\"limit_bytes\":", tenant.limit_bytes, PublishJson(tenant.publish),
                      ",\"origin\":", QuotedText(loaded.tenant_origins[i]), "}"));
  }
  out.append("],\"namespaces\":[");
  for (size_t i = 0; i < loaded.config.namespaces.size(); ++i) {
    const NamespaceConfig& rule = loaded.config.namespaces[i];
    out.append(Concat(i == 0 ? "" : ",", "{\"tenant\":", QuotedText(rule.tenant), ",\"model\":",
                      QuotedText(rule.model), PublishJson(rule.publish), RecomputeJson(rule),
                      ",\"origin\":", QuotedText(loaded.namespace_origins[i]), "}"));
  }
  out.append("],\"events\":[");
  for (size_t i = 0; i < loaded.config.events.size(); ++i) {
    out.append(
        Concat(i == 0 ? "" : ",", EventsJson(loaded.config.events[i], loaded.events_origins[i])));
  }
  return out + "]}";
}

ConfigDifference CompareConfigs(const Config& running, const Config& wanted) {
  ConfigDifference difference;
  for (const Setting& setting : Settings()) {
    if (SettingText(setting, running) == SettingText(setting, wanted)) {
      continue;
    }
    auto& list = setting.applies == Applies::kLive ? difference.live : difference.needs_restart;
    list.emplace_back(setting.name);
  }
  Compare("tier", &TierConfig::path, running.tiers, wanted.tiers, &difference.needs_restart);
  Compare("tier", &TierConfig::path, wanted.tiers, running.tiers, &difference.needs_restart);
  Compare("tenant", &TenantConfig::alias, running.tenants, wanted.tenants, &difference.live);
  Compare("tenant", &TenantConfig::alias, wanted.tenants, running.tenants, &difference.live);
  if (running.events != wanted.events) {
    difference.needs_restart.emplace_back("events");
  }
  if (running.namespaces != wanted.namespaces) {  // their order counts too
    difference.live.emplace_back("namespace");
  }
  return difference;
}

Config WithLiveSettings(const Config& running, const Config& wanted) {
  Config result = running;
  result.log_level = wanted.log_level;
  result.unlisted = wanted.unlisted;
  result.tenants = wanted.tenants;
  result.namespaces = wanted.namespaces;
  return result;
}

absl::StatusOr<std::string> TenantOf(const Config& config, const PeerCredentials& peer) {
  const auto lists = [](const std::vector<uint32_t>& ids, uint32_t id) {
    return std::find(ids.begin(), ids.end(), id) != ids.end();
  };
  for (const TenantConfig& tenant : config.tenants) {
    if (lists(tenant.uids, peer.uid)) {
      return tenant.alias;
    }
  }
  for (const TenantConfig& tenant : config.tenants) {
    if (lists(tenant.gids, peer.gid)) {
      return tenant.alias;
    }
  }
  if (config.unlisted == UnlistedPeers::kPerUid) {
    return Concat("uid-", peer.uid);
  }
  return absl::PermissionDeniedError("no tenant lists this user, and sockets.unlisted is \"deny\"");
}

bool IsTenant(const Config& config, std::string_view alias) {
  const bool listed =
      std::any_of(config.tenants.begin(), config.tenants.end(),
                  [alias](const TenantConfig& tenant) { return tenant.alias == alias; });
  return listed || (config.unlisted == UnlistedPeers::kPerUid && alias.starts_with("uid-"));
}

}  // namespace terrace
