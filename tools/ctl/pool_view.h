// A PoolReply as text for people. Pure.
#pragma once

#include <cstdint>
#include <string>

#include "terrace/v1/admin.pb.h"

#include "tools/ctl/format.h"

namespace terrace::ctl {

// Whether it was asked which files would go.
enum class Reclaim : uint8_t { kNotAskedFor, kAskedFor };
// Ends with a newline.
std::string PoolText(const v1::PoolReply& reply, Reclaim reclaim, const Style& style);

}  // namespace terrace::ctl
