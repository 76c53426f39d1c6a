#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <utility>

#include "absl/status/status.h"
#include <gtest/gtest.h>

#include "tests/unit/os/memfd.h"
#include "tiers/os/descriptor.h"

namespace terrace {
namespace {

// A child that lives until it is killed.
class IdleChild {
 public:
  IdleChild() : pid_(fork()) {
    if (pid_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      while (true) {
        pause();
      }
    }
  }
  IdleChild(const IdleChild&) = delete;
  IdleChild& operator=(const IdleChild&) = delete;
  ~IdleChild() { EndAndReap(); }

  [[nodiscard]] pid_t pid() const { return pid_; }
  void End() const { kill(pid_, SIGKILL); }
  void EndAndReap() {
    if (pid_ > 0) {
      End();
      waitpid(pid_, nullptr, 0);
      pid_ = -1;
    }
  }

 private:
  pid_t pid_;
};

// Waits as long as it takes; the test's own limit ends a wait that never will.
void AwaitEnd(const PidDescriptor& process) {
  pollfd end{process.get(), POLLIN, 0};
  ASSERT_EQ(poll(&end, 1, -1), 1);
}

TEST(PidDescriptor, KnowsThePidWhileTheProcessLives) {
  const IdleChild child;
  const absl::StatusOr<PidDescriptor> process = PidDescriptor::Open(child.pid());
  ASSERT_TRUE(process.ok());
  EXPECT_TRUE(process->valid());
  EXPECT_EQ(process->Pid(), child.pid());
  EXPECT_FALSE(process->Exited());
}

TEST(PidDescriptor, SeesTheEndBeforeAndAfterTheProcessIsReaped) {
  IdleChild child;
  const absl::StatusOr<PidDescriptor> process = PidDescriptor::Open(child.pid());
  ASSERT_TRUE(process.ok());
  child.End();
  AwaitEnd(*process);
  EXPECT_TRUE(process->Exited());
  child.EndAndReap();
  EXPECT_TRUE(process->Exited());
  EXPECT_EQ(process->Pid(), 0);
}

TEST(PidDescriptor, ClosesOnExec) {
  const absl::StatusOr<PidDescriptor> self = PidDescriptor::Open(getpid());
  ASSERT_TRUE(self.ok());
  EXPECT_EQ(fcntl(self->get(), F_GETFD), FD_CLOEXEC);
}

TEST(PidDescriptor, OpenOfNoProcessFails) {
  IdleChild child;
  const int pid = child.pid();
  child.EndAndReap();
  EXPECT_EQ(PidDescriptor::Open(pid).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(PidDescriptor::Open(-5).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(PidDescriptor, TakesOverAPassedPidfd) {
  const IdleChild child;
  absl::StatusOr<PidDescriptor> opened = PidDescriptor::Open(child.pid());
  ASSERT_TRUE(opened.ok());
  Descriptor passed(fcntl(opened->get(), F_DUPFD_CLOEXEC, 0));
  const absl::StatusOr<PidDescriptor> process = PidDescriptor::FromPassed(std::move(passed));
  ASSERT_TRUE(process.ok());
  EXPECT_EQ(process->Pid(), child.pid());
}

TEST(PidDescriptor, TakesOverThePidfdOfAProcessThatIsGone) {
  IdleChild child;
  absl::StatusOr<PidDescriptor> opened = PidDescriptor::Open(child.pid());
  ASSERT_TRUE(opened.ok());
  child.EndAndReap();
  const absl::StatusOr<PidDescriptor> process =
      PidDescriptor::FromPassed(Descriptor(fcntl(opened->get(), F_DUPFD_CLOEXEC, 0)));
  ASSERT_TRUE(process.ok());
  EXPECT_TRUE(process->Exited());
}

TEST(PidDescriptor, RefusesWhatIsNoPidfdAndClosesIt) {
  for (const int fd :
       {MakeMemfd(1).Release(), eventfd(0, EFD_CLOEXEC), open("/proc/self", O_RDONLY | O_CLOEXEC),
        open("/dev/null", O_RDONLY | O_CLOEXEC)}) {
    ASSERT_GE(fd, 0);
    EXPECT_EQ(PidDescriptor::FromPassed(Descriptor(fd)).status().code(),
              absl::StatusCode::kInvalidArgument);
    EXPECT_LT(fcntl(fd, F_GETFD), 0);
  }
  EXPECT_EQ(PidDescriptor::FromPassed(Descriptor()).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(PidDescriptor, NoneHasNoPidAndHasNotExited) {
  const PidDescriptor none;
  EXPECT_FALSE(none.valid());
  EXPECT_EQ(none.Pid(), -1);
  EXPECT_FALSE(none.Exited());
}

}  // namespace
}  // namespace terrace
