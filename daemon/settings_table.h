// The rows of Settings(): one a setting.
#pragma once

#include <vector>

#include "daemon/settings.h"

namespace terrace {

std::vector<Setting> MakeSettingsTable();

}  // namespace terrace
