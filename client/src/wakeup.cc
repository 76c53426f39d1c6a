#include "client/src/wakeup.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>

#include <array>
#include <cstdint>
#include <utility>

#include <sched.h>

namespace terrace::client {
namespace {

// With nobody else on the core a turn of polling takes a microsecond; a long one means that
// somebody wants it.
constexpr int64_t kLongestYieldNs = 10 * kNsPerUs;
// Another thread had the core: hypervisors, too, take it away, but rarely for so long.
constexpr int64_t kTimeSliceNs = 500 * kNsPerUs;

bool Control(int epoll, int operation, int fd, uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  return ::epoll_ctl(epoll, operation, fd, &event) == 0;
}

}  // namespace

bool Wakeup::Open() {
  epoll_ = Descriptor(::epoll_create1(EPOLL_CLOEXEC));
  event_ = Descriptor(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  timer_ = Descriptor(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  return epoll_.valid() && event_.valid() && timer_.valid() &&
         Control(epoll_.get(), EPOLL_CTL_ADD, event_.get(), EPOLLIN) &&
         Control(epoll_.get(), EPOLL_CTL_ADD, timer_.get(), EPOLLIN);
}

void Wakeup::Add(int socket) {
  watches_writable_ = false;
  Control(epoll_.get(), EPOLL_CTL_ADD, socket, EPOLLIN);
}

void Wakeup::Remove(int socket) {
  Control(epoll_.get(), EPOLL_CTL_DEL, socket, 0);
}

void Wakeup::AddOther(int fd) {
  Control(epoll_.get(), EPOLL_CTL_ADD, fd, EPOLLIN);
}

void Wakeup::RemoveOther(int fd) {
  Control(epoll_.get(), EPOLL_CTL_DEL, fd, 0);
}

void Wakeup::WatchWritable(int socket, bool writable) {
  if (writable != watches_writable_) {
    watches_writable_ = writable;
    Control(epoll_.get(), EPOLL_CTL_MOD, socket, EPOLLIN | (writable ? uint32_t{EPOLLOUT} : 0U));
  }
}

void Wakeup::SetSignal(bool on) {
  if (on == signalled_) {
    return;
  }
  signalled_ = on;
  if (on) {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t put = ::write(event_.get(), &one, sizeof(one));
  } else {
    uint64_t count = 0;
    [[maybe_unused]] const ssize_t got = ::read(event_.get(), &count, sizeof(count));
  }
}

void Wakeup::ArmTimer(Instant when) {
  if (when >= timer_at_) {
    return;
  }
  timer_at_ = when;
  itimerspec spec{};
  spec.it_value.tv_sec = when / 1'000'000'000;
  spec.it_value.tv_nsec = when % 1'000'000'000;
  ::timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &spec, nullptr);
}

void Wakeup::ClearTimer(Instant now) {
  if (timer_at_ <= now) {
    timer_at_ = kNever;
    // Disarming also takes back an expiry; reading would miss one that comes a moment later.
    const itimerspec never{};
    ::timerfd_settime(timer_.get(), 0, &never, nullptr);
  }
}

void Wakeup::Wait(int ms) const {
  std::array<epoll_event, 4> events;
  ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), ms);
}

Patience::End Wakeup::Poll(Instant until) const {
  for (Instant now = Now(), before = now;; before = std::exchange(now, Now())) {
    epoll_event event;
    if (::epoll_wait(epoll_.get(), &event, 1, 0) > 0) {
      return now - before > kTimeSliceNs ? Patience::End::kContended : Patience::End::kPaid;
    }
    if (now - before > kTimeSliceNs) {
      return Patience::End::kContended;
    }
    if (now >= until || now - before > kLongestYieldNs) {
      return Patience::End::kWasted;
    }
    ::sched_yield();
  }
}

}  // namespace terrace::client
