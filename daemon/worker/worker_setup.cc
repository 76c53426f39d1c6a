#include "daemon/worker/worker_setup.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>

#include "tiers/os/descriptor.h"

namespace terrace {

bool IsWorkerSocket() {
  int type = 0;
  socklen_t bytes = sizeof(type);
  return getsockopt(kWorkerSocket, SOL_SOCKET, SO_TYPE, &type, &bytes) == 0 &&
         type == SOCK_SEQPACKET;
}

int SayWorkersAreStartedByTerraced() {
  std::fputs("terraced: a worker is started by terraced itself\n", stderr);
  return kWorkerWrongUsage;
}

void SetUpWorker(const std::string& name) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  closefrom(kWorkerSocket + 1);
  umask(0077);
  if (chdir("/") != 0) {
    LeaveWorker(kWorkerBroken);
  }
  const rlimit none = {0, 0};
  setrlimit(RLIMIT_CORE, &none);
  prctl(PR_SET_DUMPABLE, 0);
  prctl(PR_SET_NAME, name.c_str());
  // Whoever stops the daemon signals all of its processes; the core may still want to write.
  for (const int number : {SIGTERM, SIGINT, SIGHUP, SIGPIPE}) {
    std::signal(number, SIG_IGN);
  }
}

void LetGoOfWorkersLog() {
  const Descriptor nothing(open("/dev/null", O_RDWR | O_CLOEXEC));
  for (const int standard : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    dup2(nothing.get(), standard);
  }
}

void LeaveWorker(int status) {
  _exit(status);
}

}  // namespace terrace
