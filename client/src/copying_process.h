// A process of the daemon's that copies from and to the memory of a GPU's region, by pidfd.
// Move-only, thread-compatible.
#pragma once

#include <poll.h>

#include <cstdint>
#include <utility>

#include "client/src/descriptor.h"

namespace terrace::client {

class CopyingProcess {
 public:
  // `session`: the one that it was told in, of the daemon's boot `boot_id`.
  CopyingProcess(Descriptor pidfd, uint64_t session, uint64_t boot_id)
      : pidfd_(std::move(pidfd)), session_(session), boot_id_(boot_id) {}

  [[nodiscard]] int pidfd() const { return pidfd_.get(); }  // readable: it has ended
  [[nodiscard]] uint64_t session() const { return session_; }
  [[nodiscard]] uint64_t boot_id() const { return boot_id_; }
  // What is no process counts as one that has ended: whoever sent it can promise nothing by it.
  [[nodiscard]] bool Ended() const {
    pollfd polled{pidfd_.get(), POLLIN, 0};
    return ::poll(&polled, 1, 0) != 0;
  }

 private:
  Descriptor pidfd_;
  uint64_t session_ = 0;
  uint64_t boot_id_ = 0;
};

}  // namespace terrace::client
