// Descriptors, event descriptors, randomness and the translation of errno.
#include "tiers/os/descriptor.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"

#include "tiers/vocab/check.h"

namespace terrace {
namespace {

absl::StatusCode CodeFromErrno(int error) {
  switch (error) {
    case EINVAL:
    case ENODEV:
    case ENOTDIR:
    case EOVERFLOW:
      return absl::StatusCode::kInvalidArgument;
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::StatusCode::kPermissionDenied;
    case ENOMEM:
    case EMFILE:
    case ENFILE:
    case ENOSPC:
    case EDQUOT:
      return absl::StatusCode::kResourceExhausted;
    case ENOENT:
    case ESRCH:
      return absl::StatusCode::kNotFound;
    case EEXIST:
      return absl::StatusCode::kAlreadyExists;
    case ENOSYS:
    case EOPNOTSUPP:
      return absl::StatusCode::kUnimplemented;
    case EAGAIN:
    case EBUSY:
    case ECONNREFUSED:
    case ECONNRESET:
    case EPIPE:
      return absl::StatusCode::kUnavailable;
    case ETIMEDOUT:
      return absl::StatusCode::kDeadlineExceeded;
    default:
      return absl::StatusCode::kInternal;
  }
}

}  // namespace

absl::Status StatusFromErrno(int error, std::string_view what) {
  char text[128];
  // The GNU variant, which may return a constant instead of filling `text`.
  return {CodeFromErrno(error),
          absl::StrCat(std::string(what), ": ", strerror_r(error, text, sizeof(text)))};
}

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  Descriptor taken(std::move(other));
  std::swap(fd_, taken.fd_);
  return *this;
}

Descriptor::~Descriptor() {
  if (valid()) {
    close(fd_);
  }
}

absl::StatusOr<Descriptor> Descriptor::Duplicate() const {
  Descriptor copy(fcntl(fd_, F_DUPFD_CLOEXEC, 0));
  if (!copy.valid()) {
    return StatusFromErrno(errno, "duplicate descriptor");
  }
  return copy;
}

absl::StatusOr<EventDescriptor> EventDescriptor::Create() {
  EventDescriptor event;
  event.fd_ = Descriptor(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!event.fd_.valid()) {
    return StatusFromErrno(errno, "eventfd");
  }
  return event;
}

void EventDescriptor::Notify() const {
  const uint64_t one = 1;
  // EAGAIN: the counter is full, so the reader has a notification to see anyway.
  [[maybe_unused]] const ssize_t written = write(fd_.get(), &one, sizeof(one));
}

void EventDescriptor::Clear() const {
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t got = read(fd_.get(), &count, sizeof(count));
}

void FillRandom(absl::Span<char> out) {
  while (!out.empty()) {
    const ssize_t got = getrandom(out.data(), out.size(), 0);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    TERRACE_CHECK(got > 0);
    out.remove_prefix(static_cast<size_t>(got));
  }
}

}  // namespace terrace
