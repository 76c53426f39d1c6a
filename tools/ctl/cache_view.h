// Per-key answers of service Cache as JSON and as text. Pure. An answer whose arrays don't fit the
// keys that were asked for is an error (INTERNAL), never read beyond its end.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "terrace/v1/cache.pb.h"

#include "tools/ctl/answer.h"
#include "tools/ctl/format.h"

namespace terrace::ctl {

// Exit 0 whatever is hit or missed: a miss is an answer.
absl::StatusOr<Answer> ProbeAnswer(const std::vector<std::string>& keys,
                                   const v1::ProbeReply& reply,
                                   const Style& style);
// Exit 1 when a key was declined or failed; a duplicate is fine.
absl::StatusOr<Answer> PutAnswer(const std::vector<std::string>& keys,
                                 const v1::PutReply& reply,
                                 const Style& style);
// Exit 1 unless every key was delivered. The payload is not part of it.
absl::StatusOr<Answer> GetAnswer(const std::vector<std::string>& keys,
                                 const v1::GetReply& reply,
                                 const Style& style);
// Exit 1 when a key was not pinned.
absl::StatusOr<Answer> PinAnswer(const std::vector<std::string>& keys,
                                 const v1::PinReply& reply,
                                 const Style& style);
// `ticket` is nullptr when it was not waited for. Exit 1 when keys failed or the ticket was
// cancelled or expired.
Answer PrefetchAnswer(const v1::PrefetchReply& reply,
                      const v1::TicketReply* ticket,
                      const Style& style);

}  // namespace terrace::ctl
