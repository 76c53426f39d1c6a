// The event descriptor: an epoll descriptor over the session's socket, an eventfd for completions
// that are ready already, and a timerfd for deadlines.
//
// Thread-compatible, but Wait may be called by any thread at the same time as anything else. It
// counts on few system calls: the caller arms timer and signal only when somebody looks at the
// descriptor.
#pragma once

#include "client/src/descriptor.h"
#include "client/src/instant.h"
#include "client/src/patience.h"

namespace terrace::client {

class Wakeup {
 public:
  // False: the process is out of descriptors or memory.
  bool Open();
  [[nodiscard]] int fd() const { return epoll_.get(); }

  void Add(int socket);
  void Remove(int socket);
  // Beside the session's socket: a pidfd, or the socket of a session that is over for this side.
  void AddOther(int fd);
  void RemoveOther(int fd);
  // Whether Wait also returns when the socket takes bytes again.
  void WatchWritable(int socket, bool writable);

  void SetSignal(bool on);
  // Arms the timer if it is not armed for an earlier time already.
  void ArmTimer(Instant when);
  // Stops a timer that has run out from waking anybody.
  void ClearTimer(Instant now);

  // Until the descriptor is readable or `ms` have passed. May run without the client's lock.
  void Wait(int ms) const;
  // The same for a time too short to sleep: polls, until somebody else wants this core. kPaid: the
  // descriptor is readable. kContended: the core was lost for a time slice, and the descriptor may
  // be readable. May also run without the lock.
  [[nodiscard]] Patience::End Poll(Instant until) const;

 private:
  Descriptor epoll_;
  Descriptor event_;
  Descriptor timer_;
  bool signalled_ = false;
  bool watches_writable_ = false;
  Instant timer_at_ = kNever;
};

}  // namespace terrace::client
