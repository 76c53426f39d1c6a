// Replies of service Admin as text for people. Pure.
#pragma once

#include <string>

#include "terrace/v1/admin.pb.h"

#include "tools/ctl/format.h"

namespace terrace::ctl {

// All end with a newline.
std::string StatusText(const v1::StatusReply& reply, const Style& style);
std::string TiersText(const v1::TiersReply& reply, const Style& style);
std::string TenantsText(const v1::TenantsReply& reply, const Style& style);
// One block of lines a namespace: its digest first, whole, so that it can be copied.
std::string NamespacesText(const v1::NamespacesReply& reply, const Style& style);
std::string ExplainText(const v1::ExplainReply& reply, const Style& style);
std::string VerifyText(const v1::VerifyReply& reply, const Style& style);
std::string EvictText(const v1::EvictReply& reply);
std::string ReloadText(const v1::ReloadReply& reply, const Style& style);

}  // namespace terrace::ctl
