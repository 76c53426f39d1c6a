#include "daemon/settings_table.h"

#include <string_view>
#include <utility>

#include "tiers/placement/eviction_policy.h"

namespace terrace {
namespace {

using Field = SettingField (*)(Config&);
using Rows = std::vector<Setting>;

constexpr double kKiB = 1024;
constexpr double kMiB = 1024 * kKiB;
constexpr double kGiB = 1024 * kMiB;
constexpr double kTiB = 1024 * kGiB;
constexpr double kMillion = 1e6;
// sun_path takes 107 bytes; the longest name below the folder is "/terrace.sock" or
// "/session.sock".
constexpr double kMaxRuntimeBytes = 94;
constexpr double kMaxFolderBytes = 1024;

// One kind of row each; what they leave out is at start, and without choices.
Setting Folder(std::string_view name, double most_bytes, Field field) {
  return {name, SettingKind::kFolder, Applies::kAtStart, 1, most_bytes, {}, field};
}
Setting FolderOrNone(std::string_view name, double most_bytes, Field field) {
  return {name, SettingKind::kFolderOrNone, Applies::kAtStart, 1, most_bytes, {}, field};
}
Setting Number(std::string_view name, double least, double most, Field field) {
  return {name, SettingKind::kInteger, Applies::kAtStart, least, most, {}, field};
}
Setting Size(std::string_view name, double least, double most, Field field) {
  return {name, SettingKind::kSize, Applies::kAtStart, least, most, {}, field};
}
Setting Time(std::string_view name, double least_s, double most_s, Field field) {
  return {name, SettingKind::kDuration, Applies::kAtStart, least_s, most_s, {}, field};
}
Setting Switch(std::string_view name, Field field) {
  return {name, SettingKind::kBoolean, Applies::kAtStart, 0, 0, {}, field};
}
Setting Share(std::string_view name, Field field) {
  return {name, SettingKind::kShare, Applies::kAtStart, 0, 1, {}, field};
}
Setting Choice(std::string_view name,
               Applies applies,
               std::vector<std::string_view> choices,
               Field field) {
  return {name, SettingKind::kChoice, applies, 0, 0, std::move(choices), field};
}
Setting Special(std::string_view name, SettingKind kind, Field field) {
  return {name, kind, Applies::kAtStart, 0, 0, {}, field};
}

#define TERRACE_FIELD(member) [](Config& c) -> SettingField { return &c.member; }

Rows DaemonRows() {
  return {
      Folder("daemon.runtime_dir", kMaxRuntimeBytes, TERRACE_FIELD(runtime_dir)),
      Folder("daemon.data_dir", kMaxFolderBytes, TERRACE_FIELD(data_dir)),
      Number("daemon.io_threads", 1, 64, TERRACE_FIELD(io_threads)),
      Number("daemon.io_poll_us", 0, 1000, TERRACE_FIELD(io_poll_us)),
      Number("daemon.copy_threads", 0, 256, TERRACE_FIELD(copy_threads)),
      Choice("daemon.log_level", Applies::kLive, {"debug", "info", "warning", "error"},
             TERRACE_FIELD(log_level)),
      Choice("daemon.log_format", Applies::kAtStart, {"logfmt", "json"}, TERRACE_FIELD(log_format)),
      Switch("daemon.core_dumps", TERRACE_FIELD(core_dumps)),
  };
}

Rows DramRows() {
  return {
      Size("dram.capacity", 64 * kMiB, 64 * kTiB, TERRACE_FIELD(store.dram_bytes)),
      Switch("dram.huge_pages", TERRACE_FIELD(huge_pages)),
      Number("dram.touch_threads", 0, 256, TERRACE_FIELD(touch_threads)),
      Number("dram.verify_one_in", 0, kMillion, TERRACE_FIELD(store.verify_one_in)),
      Choice("dram.policy", Applies::kAtStart, EvictionPolicyNames(), TERRACE_FIELD(store.policy)),
      Switch("dram.fetch_returns", TERRACE_FIELD(store.fetch_returns)),
      Choice("dram.keep", Applies::kAtStart, {"auto", "off"}, TERRACE_FIELD(keep)),
      Share("dram.lease_share", TERRACE_FIELD(store.lease_share)),
      Share("dram.pin_share", TERRACE_FIELD(store.pin_share)),
  };
}

Rows LocalRows() {
  return {
      Size("local.capacity", 0, 1024 * kTiB, TERRACE_FIELD(local_bytes)),
      FolderOrNone("local.dir", kMaxFolderBytes, TERRACE_FIELD(local_dir)),
      Choice("local.writes", Applies::kAtStart, {"eviction", "commit"},
             TERRACE_FIELD(store.local_writes)),
      Size("local.max_block", 4 * kKiB, 64 * kMiB, TERRACE_FIELD(store.local_max_payload_bytes)),
      Size("local.free_reserve", 0, 1024 * kTiB, TERRACE_FIELD(local_free_reserve)),
      Time("local.max_wait", 0, 60, TERRACE_FIELD(store.max_wait_for_room)),
      Size("local.endurance_per_day", 0, 1024 * kTiB, TERRACE_FIELD(store.local_endurance_per_day)),
      Time("local.endurance_burst", 60, 30 * 86'400.0, TERRACE_FIELD(store.local_endurance_burst)),
      Size("local.scrub_per_second", 0, kTiB, TERRACE_FIELD(local_scrub_bytes_per_second)),
  };
}

Rows GpuRows() {
  return {
      Choice("gpu.serve", Applies::kAtStart, {"auto", "on", "off"}, TERRACE_FIELD(gpu)),
      Size("gpu.staging", 64 * kMiB, 64 * kGiB, TERRACE_FIELD(gpu_staging_bytes)),
  };
}

Rows FrontLimitRows() {
  return {
      Number("limits.connections_per_uid", 1, 65536, TERRACE_FIELD(front.connections_per_uid)),
      Number("limits.connections_total", 1, 65536, TERRACE_FIELD(front.connections_total)),
      Number("limits.calls_in_flight_per_uid", 1, 65536,
             TERRACE_FIELD(front.calls_in_flight_per_uid)),
      Size("limits.message_bytes", 64 * kKiB, 4 * kMiB, TERRACE_FIELD(front.message_bytes)),
      Time("limits.hello_timeout", 0.1, 60, TERRACE_FIELD(front.hello_timeout)),
      Time("limits.write_stall_timeout", 0.1, 600, TERRACE_FIELD(front.write_stall_timeout)),
      Size("limits.reply_backlog", 4 * kMiB, 16 * kGiB, TERRACE_FIELD(front.reply_backlog_bytes)),
      Time("limits.probe_cap", 0.001, 600, TERRACE_FIELD(front.probe_cap)),
      Time("limits.get_cap", 0.001, 600, TERRACE_FIELD(front.get_cap)),
      Time("limits.put_cap", 0.001, 600, TERRACE_FIELD(front.put_cap)),
      Time("limits.other_cap", 0.001, 600, TERRACE_FIELD(front.other_cap)),
  };
}

Rows StoreLimitRows() {
  return {
      Number("limits.tenants", 1, 4096, TERRACE_FIELD(store.max_tenants)),
      Number("limits.namespaces_per_tenant", 1, 65536,
             TERRACE_FIELD(store.max_namespaces_per_tenant)),
      Number("limits.scopes_per_tenant", 1, 16 * kMillion,
             TERRACE_FIELD(store.max_scopes_per_tenant)),
      Number("limits.holds_per_tenant", 1, kMillion, TERRACE_FIELD(store.max_holds_per_tenant)),
      Number("limits.regions_per_session", 1, 4096, TERRACE_FIELD(store.max_regions_per_session)),
      Number("limits.tickets_per_tenant", 1, kMillion, TERRACE_FIELD(store.max_tickets_per_tenant)),
  };
}

Rows SocketAndMetricsRows() {
  return {
      Special("sockets.mode", SettingKind::kMode, TERRACE_FIELD(socket_mode)),
      Special("sockets.group", SettingKind::kGroup, TERRACE_FIELD(socket_group)),
      Choice("sockets.unlisted", Applies::kLive, {"deny", "per-uid"}, TERRACE_FIELD(unlisted)),
      Special("metrics.listen", SettingKind::kListen, TERRACE_FIELD(metrics_listen)),
  };
}
#undef TERRACE_FIELD

}  // namespace

std::vector<Setting> MakeSettingsTable() {
  Rows all;
  for (Rows rows : {DaemonRows(), DramRows(), LocalRows(), GpuRows(), FrontLimitRows(),
                    StoreLimitRows(), SocketAndMetricsRows()}) {
    all.insert(all.end(), rows.begin(), rows.end());
  }
  return all;
}

}  // namespace terrace
