// terraced's worker of a GPU and nothing else of terraced, so that tests of it need not build the
// daemon.
#include "daemon/gpu/gpu_worker.h"

#include <cstdio>
#include <string_view>

int main(int argc, char** argv) {
  constexpr std::string_view kRole = "--worker=gpu:";
  if (argc != 2 || !std::string_view(argv[1]).starts_with(kRole)) {
    std::fputs("usage: gpu_worker --worker=gpu:N\n", stderr);
    return 2;
  }
  return terrace::RunGpuWorker();
}
