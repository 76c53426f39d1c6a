#include "tiers/shared/pool_files.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/synchronization/notification.h"

namespace terrace {

bool IsMountFault(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) ||
         absl::IsCancelled(status);
}

PoolReply PoolFiles::Call(PoolCall call) {
  PoolReply answer;
  absl::Notification answered;
  Submit(std::move(call), [&answer, &answered](PoolReply reply) {
    answer = std::move(reply);
    answered.Notify();
  });
  answered.WaitForNotification();
  return answer;
}

}  // namespace terrace
