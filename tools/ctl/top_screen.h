// The screen of `terracectl top`, from two looks at the daemon. Pure.
#pragma once

#include <optional>
#include <string>

#include "absl/time/time.h"
#include "terrace/v1/admin.pb.h"

#include "tools/ctl/format.h"
#include "tools/ctl/proto_json.h"

namespace terrace::ctl {

struct Look {
  v1::StatusReply status;
  v1::TiersReply tiers;
  v1::TenantsReply tenants;
};

// Events a second between two looks.
struct TopRates {
  double hits = 0;
  double misses = 0;
  double puts = 0;
  double evictions = 0;
  double bytes_in = 0;
  double bytes_out = 0;
  enum class Over : uint8_t { kInterval, kUptime } over = Over::kInterval;
};

// Without `before`, or when the daemon restarted in between (boot id): averages over its uptime.
// `elapsed` is from `before` to `now` and positive.
TopRates RatesOf(const Look* before, const Look& now, absl::Duration elapsed);

// Lines ended by newlines, at most `rows` of them when rows > 0, each at most `columns` wide when
// columns > 0 (with colours: uncoloured width).
struct ScreenSize {
  size_t columns = 0;
  size_t rows = 0;
};
std::string TopScreen(const Look* before,
                      const Look& now,
                      absl::Duration elapsed,
                      const Style& style,
                      ScreenSize size);
Json TopJson(const Look& now);

}  // namespace terrace::ctl
