#include "tests/doubles/sick_mount/sick_mount.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include <spawn.h>

#include "tiers/vocab/check.h"

namespace terrace::doubles {
namespace {

constexpr int kControl = 3;

}  // namespace

absl::StatusOr<std::unique_ptr<SickMount>> SickMount::Mount() {
  if (std::string_view(SICK_MOUNT_SERVER).empty()) {
    return absl::UnavailableError("built without libfuse3");
  }
  if (!Descriptor(open("/dev/fuse", O_RDWR | O_CLOEXEC)).valid()) {
    return absl::UnavailableError("/dev/fuse cannot be opened");
  }
  std::unique_ptr<SickMount> mount(new SickMount());
  std::filesystem::create_directory(mount->backing_);
  std::filesystem::create_directory(mount->point_);
  if (absl::Status started = mount->StartServer(); !started.ok()) {
    return started;
  }
  return mount;
}

SickMount::~SickMount() {
  Unmount();
}

absl::Status SickMount::StartServer() {
  int ends[2] = {-1, -1};
  TERRACE_CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
  control_ = Descriptor(ends[0]);
  const Descriptor theirs(ends[1]);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, theirs.get(), kControl);
  std::string program = SICK_MOUNT_SERVER;
  std::string backing = backing_;
  std::string point = point_;
  char* const arguments[] = {program.data(), backing.data(), point.data(), nullptr};
  const int error = posix_spawn(&server_, program.c_str(), &actions, nullptr, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) {
    server_ = 0;
    return StatusFromErrno(error, "start the server of a sick mount");
  }
  char answer[64];
  const ssize_t got = recv(control_.get(), answer, sizeof(answer), 0);
  if (got <= 0) {
    Unmount();
    return absl::UnavailableError("nothing can be mounted here");
  }
  return absl::OkStatus();
}

// Everybody who waits for the file system is told that it is gone, when its server is.
void SickMount::Unmount() {
  control_ = Descriptor();
  if (server_ == 0) {
    return;
  }
  kill(server_, SIGKILL);
  waitpid(server_, nullptr, 0);
  server_ = 0;
  if (umount2(point_.c_str(), MNT_DETACH) != 0) {
    [[maybe_unused]] const int ended =
        std::system(absl::StrCat("fusermount3 -u -z '", point_, "' >/dev/null 2>&1").c_str());
  }
}

absl::Status SickMount::Remount() {
  return StartServer();
}

uint64_t SickMount::Say(const std::string& command) {
  char answer[64];
  TERRACE_CHECK(send(control_.get(), command.data(), command.size(), MSG_NOSIGNAL) > 0);
  const ssize_t got = recv(control_.get(), answer, sizeof(answer), 0);
  uint64_t number = 0;
  TERRACE_CHECK(got > 0 &&
                absl::SimpleAtoi(absl::string_view(answer, static_cast<size_t>(got)), &number));
  return number;
}

void SickMount::Hang(SickOp op) {
  Say(absl::StrCat("hang ", std::string(NameOf(op))));
}
void SickMount::Delay(SickOp op, absl::Duration by) {
  Say(absl::StrCat("delay ", std::string(NameOf(op)), " ", absl::ToInt64Milliseconds(by)));
}
void SickMount::Fail(SickOp op, int error) {
  Say(absl::StrCat("fail ", std::string(NameOf(op)), " ", error));
}
void SickMount::ShortenReads(uint64_t bytes) {
  Say(absl::StrCat("shorten read ", bytes));
}
void SickMount::Heal() {
  Say("heal");
}
void SickMount::Freeze() {
  Say("freeze");
}
void SickMount::Thaw() {
  Say("thaw");
}
uint64_t SickMount::calls(SickOp op) {
  return Say(absl::StrCat("calls ", std::string(NameOf(op))));
}
uint64_t SickMount::hanging() {
  return Say("hanging");
}

}  // namespace terrace::doubles
