#include "daemon/config_rules.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <limits>
#include <map>
#include <optional>
#include <utility>

#include <grp.h>

#include "daemon/concat.h"
#include "daemon/config_events.h"
#include "daemon/config_recompute.h"
#include "daemon/config_tiers.h"
#include "daemon/quoted_text.h"
#include "daemon/settings.h"

namespace terrace {
namespace {

constexpr std::string_view kNamespaceKeys[] = {"tenant", "model", "publish", "recompute"};
constexpr std::string_view kNamespaceForm = "namespace: write [[namespace]], once for each rule";
constexpr std::string_view kEventsForm = "events: write [[events]], once for each publisher";
constexpr size_t kMaxModelBytes = 256;
constexpr size_t kMaxNamespaceRules = 256;
constexpr std::string_view kTenantKeys[] = {"alias",      "uids",  "gids",
                                            "guaranteed", "limit", "publish"};
// Aliases of tenants that nobody listed.
constexpr std::string_view kUnlistedPrefix = "uid-";

absl::Status Refuse(std::string_view origin, std::string_view what) {
  return absl::InvalidArgumentError(Concat(origin, ": ", what));
}

// Levenshtein; both are short.
size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) {
    row[j] = j;
  }
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row.back();
}

// "; did you mean capacity?" when one of the names is near.
std::string Suggestion(std::string_view wrong, absl::Span<const std::string_view> names) {
  if (wrong.size() > 64) {
    return "";
  }
  std::string_view nearest;
  size_t best = 3;
  for (const std::string_view name : names) {
    const size_t distance = EditDistance(wrong, name);
    if (distance >= best || distance >= name.size()) {
      continue;
    }
    best = distance;
    nearest = name;
  }
  return nearest.empty() ? "" : Concat("; did you mean ", nearest, "?");
}

std::vector<std::string_view> SectionNames() {
  std::vector<std::string_view> names;
  for (const Setting& setting : Settings()) {
    if (names.empty() || names.back() != setting.section()) {
      names.push_back(setting.section());
    }
  }
  return names;
}

std::vector<std::string_view> KeysOf(std::string_view section) {
  std::vector<std::string_view> keys;
  for (const Setting& setting : Settings()) {
    if (setting.section() == section) {
      keys.push_back(setting.key());
    }
  }
  return keys;
}

bool Contains(absl::Span<const std::string_view> names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// Applies the entries of one file, in the order of its lines.
class FileReader {
 public:
  FileReader(std::string_view file, LoadedConfig* loaded)
      : file_(file), loaded_(*loaded), sections_(SectionNames()) {}

  absl::Status Apply(const TomlEntry& entry) {
    if (entry.section.empty()) {
      return ApplyTop(entry);
    }
    if (entry.section == "tenant") {
      return ApplyTenant(entry);
    }
    if (entry.section == "tier") {
      return ApplyTier(entry);
    }
    if (entry.section == "namespace") {
      return ApplyNamespace(entry);
    }
    if (entry.section == "events") {
      return ApplyEvents(entry);
    }
    if (!Contains(sections_, entry.section)) {
      std::vector<std::string_view> known = sections_;
      known.emplace_back("tenant");
      known.emplace_back("tier");
      known.emplace_back("namespace");
      known.emplace_back("events");
      return RefuseAt(entry, Concat("unknown section [", Shown(entry.section), "]",
                                    Suggestion(entry.section, known)));
    }
    if (entry.element >= 0) {
      return RefuseAt(entry, Concat("write [", entry.section, "], not [[", entry.section, "]]"));
    }
    if (entry.opens_section) {
      return absl::OkStatus();
    }
    return ApplySetting(entry);
  }

  // Likewise.
  absl::Status FinishNamespaces() {
    for (size_t i = 0; i < loaded_.config.namespaces.size(); ++i) {
      const NamespaceConfig& rule = loaded_.config.namespaces[i];
      const std::string& origin = loaded_.namespace_origins[i];
      if (i >= kMaxNamespaceRules) {
        return Refuse(origin, Concat("namespace: at most ", kMaxNamespaceRules, " rules"));
      }
      const bool says = rule.publish.has_value() || !rule.recompute.empty();
      if (rule.model.empty() || !says) {
        return Refuse(origin,
                      Concat("namespace: ", rule.model.empty() ? "model" : "publish or recompute",
                             " is missing"));
      }
    }
    return absl::OkStatus();
  }

  // Tenants can only be judged when all of their lines are known.
  absl::Status FinishTenants() {
    for (size_t i = 0; i < loaded_.config.tenants.size(); ++i) {
      const TenantConfig& tenant = loaded_.config.tenants[i];
      const std::string& origin = loaded_.tenant_origins[i];
      if (tenant.alias.empty()) {
        return Refuse(origin, "tenant: alias is missing");
      }
      if (tenant.uids.empty() && tenant.gids.empty()) {
        return Refuse(origin, Concat("tenant ", tenant.alias,
                                     ": names neither uids nor gids, so nobody belongs to it"));
      }
    }
    return absl::OkStatus();
  }

  // Likewise tiers.
  absl::Status FinishTiers() {
    if (absl::Status status = CompleteTiers(&loaded_); !status.ok()) {
      return status;
    }
    for (size_t i = 0; i < shared_keys_.size(); ++i) {
      const auto& [key, origin] = shared_keys_[i];
      if (!key.empty() && loaded_.config.tiers[i].kind != kSharedKind) {
        return Refuse(origin, Concat("tier.", key, ": only a shared tier has it"));
      }
    }
    return absl::OkStatus();
  }

 private:
  [[nodiscard]] std::string OriginOf(const TomlEntry& entry) const {
    return Concat(file_, ":", entry.line);
  }
  [[nodiscard]] absl::Status RefuseAt(const TomlEntry& entry, std::string_view what) const {
    return Refuse(OriginOf(entry), what);
  }
  // A name as it stands in the file, kept short and printable.
  static std::string Shown(std::string_view name) {
    const std::string shown = ShownValue(name);
    return shown.substr(1, shown.size() - 2);
  }

  absl::Status ApplyTop(const TomlEntry& entry) {
    if (entry.key == "tenant") {
      return RefuseAt(entry, "tenant: write [[tenant]], once for each tenant");
    }
    if (entry.key == "tier") {
      return RefuseAt(entry, "tier: write [[tier]], once for each drive or shared folder");
    }
    if (entry.key == "namespace") {
      return RefuseAt(entry, kNamespaceForm);
    }
    if (entry.key == "events") {
      return RefuseAt(entry, kEventsForm);
    }
    if (Contains(sections_, entry.key)) {
      return RefuseAt(entry, Concat(entry.key, ": must be a section, not ", TomlKind(entry.value)));
    }
    return RefuseAt(entry, Concat("unknown key ", ShownValue(entry.key), " outside of a section"));
  }

  absl::Status ApplySetting(const TomlEntry& entry) {
    const int index = FindSetting(Concat(entry.section, ".", entry.key));
    if (index < 0) {
      return RefuseAt(entry, Concat("unknown key ", ShownValue(entry.key), " in [", entry.section,
                                    "]", Suggestion(entry.key, KeysOf(entry.section))));
    }
    const Setting& setting = Settings()[static_cast<size_t>(index)];
    if (absl::Status status = AssignSetting(setting, entry.value, &loaded_.config); !status.ok()) {
      return RefuseAt(entry, Concat(setting.name, ": ", std::string(status.message())));
    }
    loaded_.origins[static_cast<size_t>(index)] = OriginOf(entry);
    return absl::OkStatus();
  }

  absl::Status ApplyTier(const TomlEntry& entry) {
    if (entry.element < 0) {
      return RefuseAt(entry, "tier: write [[tier]], once for each drive or shared folder");
    }
    const auto element = static_cast<size_t>(entry.element);
    if (element >= loaded_.config.tiers.size()) {
      loaded_.config.tiers.resize(element + 1);
      loaded_.tier_origins.resize(element + 1, OriginOf(entry));
      shared_keys_.resize(element + 1);
    }
    if (entry.opens_section) {
      return absl::OkStatus();
    }
    if (!Contains(kTierKeys, entry.key)) {
      return RefuseAt(entry, Concat("unknown key ", ShownValue(entry.key), " in [[tier]]",
                                    Suggestion(entry.key, kTierKeys)));
    }
    absl::Status status = SetTierKey(entry.key, entry.value, &loaded_.config.tiers[element]);
    if (status.ok()) {
      if (IsSharedTierKey(entry.key) && shared_keys_[element].first.empty()) {
        shared_keys_[element] = {entry.key, OriginOf(entry)};
      }
      return status;
    }
    return RefuseAt(entry, Concat("tier.", entry.key, ": ", std::string(status.message())));
  }

  absl::Status ApplyTenant(const TomlEntry& entry) {
    if (entry.element < 0) {
      return RefuseAt(entry, "tenant: write [[tenant]], once for each tenant");
    }
    const auto element = static_cast<size_t>(entry.element);
    if (element >= loaded_.config.tenants.size()) {
      loaded_.config.tenants.resize(element + 1);
      loaded_.tenant_origins.resize(element + 1, OriginOf(entry));
    }
    if (entry.opens_section) {
      return absl::OkStatus();
    }
    TenantConfig& tenant = loaded_.config.tenants[element];
    absl::Status status;
    if (entry.key == "alias") {
      status = SetAlias(entry, &tenant);
    } else if (entry.key == "uids") {
      status = SetIds(entry.value, &tenant.uids);
    } else if (entry.key == "gids") {
      status = SetIds(entry.value, &tenant.gids);
    } else if (entry.key == "guaranteed") {
      status = SetBytes(entry.value, &tenant.guaranteed_bytes);
    } else if (entry.key == "limit") {
      status = SetBytes(entry.value, &tenant.limit_bytes);
    } else if (entry.key == "publish") {
      PublishWhen publish = PublishWhen::kOnCommit;
      status = SetPublish(entry.value, &publish);
      tenant.publish = publish;
    } else {
      return RefuseAt(entry, Concat("unknown key ", ShownValue(entry.key), " in [[tenant]]",
                                    Suggestion(entry.key, kTenantKeys)));
    }
    if (status.ok()) {
      return status;
    }
    return RefuseAt(entry, Concat("tenant.", entry.key, ": ", std::string(status.message())));
  }

  absl::Status ApplyNamespace(const TomlEntry& entry) {
    if (entry.element < 0) {
      return RefuseAt(entry, kNamespaceForm);
    }
    const auto element = static_cast<size_t>(entry.element);
    if (element >= loaded_.config.namespaces.size()) {
      loaded_.config.namespaces.resize(element + 1);
      loaded_.namespace_origins.resize(element + 1, OriginOf(entry));
    }
    if (entry.opens_section) {
      return absl::OkStatus();
    }
    NamespaceConfig& rule = loaded_.config.namespaces[element];
    absl::Status status;
    if (entry.key == "tenant") {
      status = SetPlainText(entry.value, kMaxAliasBytes, &rule.tenant);
    } else if (entry.key == "model") {
      status = SetPlainText(entry.value, kMaxModelBytes, &rule.model);
    } else if (entry.key == "publish") {
      PublishWhen publish = PublishWhen::kOnCommit;
      status = SetPublish(entry.value, &publish);
      rule.publish = publish;
    } else if (entry.key == "recompute") {
      status = SetRecompute(entry.value, &rule.recompute);
    } else {
      return RefuseAt(entry, Concat("unknown key ", ShownValue(entry.key), " in [[namespace]]",
                                    Suggestion(entry.key, kNamespaceKeys)));
    }
    return status.ok() ? status
                       : RefuseAt(entry, Concat("namespace.", entry.key, ": ",
                                                std::string(status.message())));
  }

  absl::Status ApplyEvents(const TomlEntry& entry) {
    if (entry.element < 0) {
      return RefuseAt(entry, kEventsForm);
    }
    const auto element = static_cast<size_t>(entry.element);
    if (element >= loaded_.config.events.size()) {
      loaded_.config.events.resize(element + 1);
      loaded_.events_origins.resize(element + 1, OriginOf(entry));
    }
    if (entry.opens_section) {
      return absl::OkStatus();
    }
    if (!Contains(kEventsKeys, entry.key)) {
      return RefuseAt(entry, Concat("unknown key ", ShownValue(entry.key), " in [[events]]",
                                    Suggestion(entry.key, kEventsKeys)));
    }
    const absl::Status status =
        SetEventsKey(entry.key, entry.value, &loaded_.config.events[element]);
    return status.ok()
               ? status
               : RefuseAt(entry, Concat("events.", entry.key, ": ", std::string(status.message())));
  }

  static absl::Status SetPlainText(const TomlValue& value, size_t most, std::string* out) {
    const auto* text = std::get_if<std::string>(&value);
    if (text == nullptr) {
      return absl::InvalidArgumentError(Concat("must be a string, not ", TomlKind(value)));
    }
    if (text->empty() || text->size() > most) {
      return absl::InvalidArgumentError(
          Concat("must have 1 to ", most, " characters, not ", text->size()));
    }
    *out = *text;
    return absl::OkStatus();
  }

  static absl::Status SetAlias(const TomlEntry& entry, TenantConfig* tenant) {
    const auto* alias = std::get_if<std::string>(&entry.value);
    if (alias == nullptr) {
      return absl::InvalidArgumentError(Concat("must be a string, not ", TomlKind(entry.value)));
    }
    bool allowed = !alias->empty() && alias->size() <= kMaxAliasBytes;
    for (size_t i = 0; i < alias->size(); ++i) {
      const char c = (*alias)[i];
      const bool plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
      const bool inner = c == '.' || c == '_' || c == '-';
      allowed = allowed && (plain || (inner && i > 0));
    }
    if (!allowed) {
      return absl::InvalidArgumentError(
          Concat("must be 1 to ", kMaxAliasBytes,
                 " of a-z, 0-9, '.', '_', '-', beginning with a letter or digit, not ",
                 ShownValue(*alias)));
    }
    if (alias->starts_with(kUnlistedPrefix)) {
      return absl::InvalidArgumentError(
          Concat("must not begin with ", kUnlistedPrefix,
                 ", which names the tenants of unlisted users: ", ShownValue(*alias)));
    }
    tenant->alias = *alias;
    return absl::OkStatus();
  }

  static absl::Status SetIds(const TomlValue& value, std::vector<uint32_t>* out) {
    const auto* ids = std::get_if<std::vector<int64_t>>(&value);
    if (ids == nullptr) {
      return absl::InvalidArgumentError(
          Concat("must be an array of integers such as [1000, 1001], not ", TomlKind(value)));
    }
    if (ids->size() > kMaxIdsPerTenant) {
      return absl::InvalidArgumentError(
          Concat("must have at most ", kMaxIdsPerTenant, " entries, not ", ids->size()));
    }
    // The largest value of an id means "unchanged" to the kernel.
    constexpr int64_t kMostId = std::numeric_limits<uint32_t>::max() - int64_t{1};
    out->clear();
    for (const int64_t id : *ids) {
      if (id < 0 || id > kMostId) {
        return absl::InvalidArgumentError(Concat("must be 0 to ", kMostId, ", not ", id));
      }
      const auto number = static_cast<uint32_t>(id);
      if (std::find(out->begin(), out->end(), number) != out->end()) {
        return absl::InvalidArgumentError(Concat("has ", id, " twice"));
      }
      out->push_back(number);
    }
    return absl::OkStatus();
  }

  static absl::Status SetBytes(const TomlValue& value, uint64_t* out) {
    const absl::StatusOr<uint64_t> bytes = SizeOf(value);
    if (!bytes.ok()) {
      return bytes.status();
    }
    *out = *bytes;
    return absl::OkStatus();
  }

  const std::string_view file_;
  LoadedConfig& loaded_;
  const std::vector<std::string_view> sections_;
  // One a tier: its first key that only a shared one has, and where; "": none.
  std::vector<std::pair<std::string, std::string>> shared_keys_;
};

// The first number that an earlier tenant has listed too; nullopt: none.
std::optional<uint32_t> FirstTaken(const std::vector<uint32_t>& ids,
                                   std::map<uint32_t, std::string>* owners,
                                   const std::string& alias) {
  for (const uint32_t id : ids) {
    if (!owners->emplace(id, alias).second) {
      return id;
    }
  }
  return std::nullopt;
}

absl::Status CheckTenants(const LoadedConfig& loaded) {
  const Config& config = loaded.config;
  std::map<uint32_t, std::string> uid_owners;
  std::map<uint32_t, std::string> gid_owners;
  std::vector<std::string_view> aliases;
  uint64_t guaranteed = 0;
  for (size_t i = 0; i < config.tenants.size(); ++i) {
    const TenantConfig& tenant = config.tenants[i];
    const std::string& origin = loaded.tenant_origins[i];
    const std::string subject = Concat("tenant ", tenant.alias, ": ");
    if (Contains(aliases, tenant.alias)) {
      return Refuse(origin, Concat(subject, "there are two of this alias"));
    }
    aliases.push_back(tenant.alias);
    if (const auto uid = FirstTaken(tenant.uids, &uid_owners, tenant.alias)) {
      return Refuse(origin, Concat(subject, "uid ", *uid, " belongs to tenant ", uid_owners[*uid],
                                   " already"));
    }
    if (const auto gid = FirstTaken(tenant.gids, &gid_owners, tenant.alias)) {
      return Refuse(origin, Concat(subject, "gid ", *gid, " belongs to tenant ", gid_owners[*gid],
                                   " already"));
    }
    if (tenant.limit_bytes > 0 && tenant.limit_bytes < tenant.guaranteed_bytes) {
      return Refuse(origin, Concat(subject, "limit ", SizeText(tenant.limit_bytes),
                                   " is below guaranteed ", SizeText(tenant.guaranteed_bytes)));
    }
    if (tenant.guaranteed_bytes > config.store.dram_bytes - guaranteed) {
      return Refuse(origin,
                    Concat(subject, "the guarantees up to this tenant exceed dram.capacity of ",
                           SizeText(config.store.dram_bytes)));
    }
    guaranteed += tenant.guaranteed_bytes;
  }
  if (config.tenants.size() > config.store.max_tenants) {
    return Refuse(loaded.tenant_origins[config.store.max_tenants],
                  Concat("more tenants than limits.tenants, which is ", config.store.max_tenants));
  }
  return absl::OkStatus();
}

absl::StatusOr<gid_t> GroupOf(const std::string& name) {
  uint32_t number = 0;
  const std::from_chars_result parsed =
      std::from_chars(name.data(), name.data() + name.size(), number);
  if (parsed.ec == std::errc() && parsed.ptr == name.data() + name.size()) {
    return static_cast<gid_t>(number);
  }
  std::vector<char> buffer(size_t{64} << 10);
  struct group entry = {};
  struct group* found = nullptr;
  const int error = getgrnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found);
  if (found == nullptr) {
    return absl::InvalidArgumentError(error == 0 ? "there is no group " + ShownValue(name)
                                                 : "cannot look up group " + ShownValue(name));
  }
  return found->gr_gid;
}

const std::string& OriginOf(const LoadedConfig& loaded, std::string_view name) {
  return loaded.origins[static_cast<size_t>(FindSetting(name))];
}

}  // namespace

absl::Status ApplyEntries(const std::vector<TomlEntry>& entries,
                          std::string_view file,
                          LoadedConfig* loaded) {
  FileReader reader(file, loaded);
  for (const TomlEntry& entry : entries) {
    if (absl::Status status = reader.Apply(entry); !status.ok()) {
      return status;
    }
  }
  if (absl::Status status = reader.FinishTiers(); !status.ok()) {
    return status;
  }
  if (absl::Status status = reader.FinishNamespaces(); !status.ok()) {
    return status;
  }
  return reader.FinishTenants();
}

absl::Status CheckTogether(LoadedConfig* loaded) {
  Config& config = loaded->config;
  if (config.front.connections_per_uid > config.front.connections_total) {
    const std::string& total = OriginOf(*loaded, "limits.connections_total");
    const std::string& per_uid = OriginOf(*loaded, "limits.connections_per_uid");
    return Refuse(per_uid == "default" ? total : per_uid,
                  Concat("limits.connections_per_uid: ", config.front.connections_per_uid,
                         " is more than limits.connections_total, which is ",
                         config.front.connections_total));
  }
  if (config.runtime_dir == config.data_dir) {
    return Refuse(
        OriginOf(*loaded, "daemon.data_dir"),
        "daemon.data_dir: must not be daemon.runtime_dir: the former is closed to clients");
  }
  if (absl::Status status = CheckTiers(*loaded); !status.ok()) {
    return status;
  }
  config.socket_gid = static_cast<gid_t>(-1);
  if (!config.socket_group.empty()) {
    const absl::StatusOr<gid_t> gid = GroupOf(config.socket_group);
    if (!gid.ok()) {
      return Refuse(OriginOf(*loaded, "sockets.group"),
                    Concat("sockets.group: ", std::string(gid.status().message())));
    }
    config.socket_gid = *gid;
  }
  if (absl::Status status = CheckTenants(*loaded); !status.ok()) {
    return status;
  }
  return CheckEvents(*loaded);
}

}  // namespace terrace
