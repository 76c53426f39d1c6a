// Forked children that report by their exit status: for what a test cannot do to its own process.
#pragma once

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>

namespace terrace {

// Runs `body` in a child and returns what it returned; -1 when the child ended in any other way.
inline int InChild(const std::function<int()>& body) {
  const pid_t pid = fork();
  if (pid == 0) {
    _exit(body());
  }
  int status = 0;
  return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// InChild, as nobody where this process is root: the kernel refuses root nothing.
inline int InPlainChild(const std::function<int()>& body) {
  return InChild([&body] {
    constexpr uid_t kNobody = 65534;
    return geteuid() == 0 && setuid(kNobody) != 0 ? -1 : body();
  });
}

// In a child for which the system has no more threads.
inline int InChildWithoutThreads(const std::function<int()>& body) {
  return InPlainChild([&body] {
    const rlimit none{0, 0};
    return setrlimit(RLIMIT_NPROC, &none) != 0 ? -1 : body();
  });
}

}  // namespace terrace
