// Sessions that this side has given up while the daemon may still copy for them: nothing more is
// said in them, and the daemon closes its end when nothing that it copies can touch this process's
// memory any more (Session::End), or dies.
//
// Thread-compatible. At most kMost at a time: while there are so many, the client begins no other,
// so that there is always room for the one that it has. Needs no memory.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "client/src/descriptor.h"
#include "client/src/wakeup.h"

namespace terrace::client {

class PartedSessions {
 public:
  static constexpr size_t kMost = 4;

  [[nodiscard]] bool Any() const { return count_ > 0; }
  [[nodiscard]] bool Full() const { return count_ == kMost; }
  // How many there have been: a region that is made now is none of theirs.
  [[nodiscard]] uint64_t total() const { return total_; }

  // Not while Full.
  //   socket   of the session, shut down for sending
  //   session  its number; several may have the same
  void Add(Descriptor socket, uint64_t session, Wakeup* wakeup);
  // Drops what the daemon still says, and sessions that it has closed. Never blocks.
  void HearOut(Wakeup* wakeup);
  // Whether one of them, up to number `session`, may touch a region that was made after `since` of
  // them.
  [[nodiscard]] bool MayTouch(uint64_t since, uint64_t session) const;

 private:
  struct Parted {
    Descriptor socket;  // invalid: the place is free
    uint64_t session = 0;
    uint64_t number = 0;
  };
  std::array<Parted, kMost> parted_;
  size_t count_ = 0;
  uint64_t total_ = 0;
};

}  // namespace terrace::client
