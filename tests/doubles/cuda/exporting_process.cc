#include "tests/doubles/cuda/exporting_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>

#include <spawn.h>

#include "tiers/vocab/check.h"

extern char** environ;

namespace terrace::stand_in {
namespace {

// Elsewhere than it was built, where the tests have been carried to another machine.
std::string ExporterProgram() {
  const char* named = std::getenv("TERRACE_CUDA_EXPORTER");
  return named != nullptr && *named != '\0' ? named : TERRACE_CUDA_EXPORTER;
}

}  // namespace

ExportingProcess::ExportingProcess(Driver driver) {
  int ends[2] = {-1, -1};
  TERRACE_CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
  socket_ = Descriptor(ends[0]);
  const Descriptor theirs(ends[1]);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, theirs.get(), kExporterSocket);
  std::string program = ExporterProgram();
  std::string library = driver == Driver::kStandIn ? TERRACE_STAND_IN_CUDA : "";
  char* arguments[] = {program.data(), library.data(), nullptr};
  TERRACE_CHECK(posix_spawn(&pid_, program.c_str(), &actions, nullptr, arguments, environ) == 0);
  posix_spawn_file_actions_destroy(&actions);
}

ExporterAnswer ExportingProcess::Ask(const ExporterCommand& command, Descriptor* passed) {
  TERRACE_CHECK(send(socket_.get(), &command, sizeof command, MSG_NOSIGNAL) == sizeof command);
  ExporterAnswer answer;
  iovec piece{&answer, sizeof answer};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  TERRACE_CHECK(recvmsg(socket_.get(), &message, MSG_CMSG_CLOEXEC) == sizeof answer);
  if (const cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr) {
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(header), sizeof fd);
    Descriptor received(fd);
    if (passed != nullptr) {
      *passed = std::move(received);
    }
  }
  TERRACE_CHECK(answer.result == cuda::kSuccess);
  return answer;
}

cuda::IpcMemHandle ExportingProcess::Allocate(uint64_t bytes) {
  return Ask({ExporterVerb::kAllocate, 0, 0, bytes}).memory;
}

Descriptor ExportingProcess::AllocateShared(uint64_t bytes) {
  Descriptor passed;
  Ask({ExporterVerb::kAllocateShared, 0, 0, bytes}, &passed);
  return passed;
}

void ExportingProcess::Free() {
  Ask({ExporterVerb::kFree, 0, 0, 0});
}

void ExportingProcess::HoldBack(bool hold) {
  Ask({ExporterVerb::kHoldBack, hold ? 1U : 0U, 0, 0});
}

void ExportingProcess::Fill(uint64_t offset, uint64_t bytes, unsigned char value) {
  Ask({ExporterVerb::kFill, value, offset, bytes});
}

cuda::IpcEventHandle ExportingProcess::event() {
  return Ask({ExporterVerb::kEvent, 0, 0, 0}).event;
}

cuda::IpcEventHandle ExportingProcess::NewEvent() {
  return Ask({ExporterVerb::kNewEvent, 0, 0, 0}).event;
}

void ExportingProcess::Kill() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
}

}  // namespace terrace::stand_in
