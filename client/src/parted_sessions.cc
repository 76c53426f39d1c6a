#include "client/src/parted_sessions.h"

#include <errno.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

namespace terrace::client {
namespace {

// Of one look; the rest stays readable.
constexpr int kMostReceives = 64;

// Whether the other end has closed. Descriptors that come along are closed by the kernel, as there
// is no room for them.
bool HasClosed(int socket) {
  std::array<char, 16384> dropped;
  for (int i = 0; i < kMostReceives; ++i) {
    const ssize_t got = ::recv(socket, dropped.data(), dropped.size(), MSG_DONTWAIT);
    if (got == 0) {
      return true;
    }
    if (got < 0 && errno != EINTR) {
      // The kernel resets what is closed before everything was read there. That it has no memory is
      // no end.
      return errno == ECONNRESET || errno == ENOTCONN;
    }
  }
  return false;
}

}  // namespace

void PartedSessions::Add(Descriptor socket, uint64_t session, Wakeup* wakeup) {
  const auto free = std::find_if(parted_.begin(), parted_.end(),
                                 [](const Parted& parted) { return !parted.socket.valid(); });
  ++total_;
  ++count_;
  wakeup->AddOther(socket.get());
  *free = Parted{std::move(socket), session, total_};
}

void PartedSessions::HearOut(Wakeup* wakeup) {
  for (Parted& parted : parted_) {
    if (parted.socket.valid() && HasClosed(parted.socket.get())) {
      wakeup->RemoveOther(parted.socket.get());
      parted.socket.Reset();
      --count_;
    }
  }
}

bool PartedSessions::MayTouch(uint64_t since, uint64_t session) const {
  return std::any_of(parted_.begin(), parted_.end(), [&](const Parted& parted) {
    return parted.socket.valid() && parted.number > since && parted.session <= session;
  });
}

}  // namespace terrace::client
