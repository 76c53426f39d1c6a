// terraced's worker of a shared tier and nothing else of terraced, so that tests of it need not
// build the daemon. One that is called "rude" does not keep the rules: it says something that is no
// message, and waits.
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <string>
#include <string_view>

#include "daemon/worker/worker_process.h"
#include "daemon/worker/worker_setup.h"

int main(int argc, char** argv) {
  constexpr std::string_view kRole = "--worker=shared:";
  const std::string_view role = argc == 2 ? argv[1] : "";
  if (!role.starts_with(kRole)) {
    std::fputs("usage: pool_worker --worker=shared:NAME\n", stderr);
    return 2;
  }
  if (role.substr(kRole.size()) == "rude") {
    send(terrace::kWorkerSocket, "nonsense", 8, MSG_NOSIGNAL);
    char last = 0;
    while (recv(terrace::kWorkerSocket, &last, 1, 0) > 0) {
    }
    return 0;
  }
  return terrace::RunSharedWorker(std::string(role.substr(kRole.size())));
}
