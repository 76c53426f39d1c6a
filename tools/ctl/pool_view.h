// A PoolReply as text for people. Pure.
#pragma once

#include <string>

#include "terrace/v1/admin.pb.h"

#include "tools/ctl/format.h"

namespace terrace::ctl {

// Ends with a newline.
std::string PoolText(const v1::PoolReply& reply, const Style& style);

}  // namespace terrace::ctl
