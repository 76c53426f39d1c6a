#include "tools/bench/neighbour.h"

#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include <grp.h>

#include "tools/bench/block_set.h"
#include "tools/bench/client_session.h"
#include "tools/bench/memory.h"
#include "tools/bench/payload.h"
#include "tools/bench/progress.h"

namespace terrace::bench {
namespace {

constexpr auto kBeginLimit = std::chrono::seconds(30);
constexpr uint64_t kPutBytes = uint64_t{32} << 20;  // of one put

void Say(const std::string& begun_file) {
  std::ofstream(begun_file).put('\n');
}

absl::Status Store(const Neighbour& neighbour, const std::string& begun_file) {
  absl::StatusOr<std::unique_ptr<ClientSession>> session =
      ClientSession::Connect(neighbour.runtime_dir);
  if (!session.ok()) {
    return session.status();
  }
  const auto blocks =
      static_cast<uint32_t>(std::max<uint64_t>(1, kPutBytes / neighbour.block_bytes));
  absl::StatusOr<SharedMemory> memory = SharedMemory::Create(blocks * neighbour.block_bytes);
  absl::StatusOr<terrace_namespace> ns =
      (*session)->OpenNamespace("bench/neighbour-load", neighbour.block_bytes, kBenchBlockTokens);
  for (const absl::Status& status : {memory.status(), ns.status()}) {
    if (!status.ok()) {
      return status;
    }
  }
  absl::StatusOr<terrace_region> region =
      (*session)->RegisterRegion(memory->fd(), neighbour.block_bytes, blocks);
  if (!region.ok()) {
    return region.status();
  }
  std::vector<uint32_t> places(blocks);
  std::iota(places.begin(), places.end(), 0);
  const PayloadSource source(0);
  uint64_t stored = 0;
  for (uint64_t first = neighbour.first; neighbour.bytes == 0 || stored < neighbour.bytes;
       first += blocks) {
    std::vector<uint64_t> names(blocks);
    std::iota(names.begin(), names.end(), first);
    const std::string keys = source.Keys(names, kBenchKeyBytes);
    KeyChain chain{*ns, keys, kBenchKeyBytes, 0, *region, places};
    absl::StatusOr<Completion> put =
        (*session)->Put(chain, static_cast<uint32_t>(neighbour.block_bytes), "");
    if (!put.ok()) {
      return put.status();
    }
    if (stored == 0) {
      Say(begun_file);
    }
    stored += blocks * neighbour.block_bytes;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ChildProcess> StartNeighbour(const Neighbour& neighbour,
                                            const std::string& begun_file) {
  std::filesystem::remove(begun_file);
  absl::StatusOr<ChildProcess> child =
      ChildProcess::Start({"/proc/self/exe", kNeighbourVerb, neighbour.runtime_dir, begun_file,
                           absl::StrCat(neighbour.group), absl::StrCat(neighbour.bytes),
                           absl::StrCat(neighbour.block_bytes), absl::StrCat(neighbour.first)},
                          begun_file + ".log");
  if (!child.ok()) {
    return child.status();
  }
  const auto until = std::chrono::steady_clock::now() + kBeginLimit;
  while (!std::filesystem::exists(begun_file)) {
    if (Interrupted()) {
      return absl::CancelledError("interrupted");
    }
    if (!child->Running() || std::chrono::steady_clock::now() > until) {
      std::string why;
      std::getline(std::ifstream(begun_file + ".log"), why);
      return absl::UnavailableError("the neighbour does not store: " + why);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return child;
}

int BeNeighbour(int count, char** arguments) {
  if (count != 6) {
    return 2;
  }
  Neighbour neighbour;
  neighbour.runtime_dir = arguments[0];
  neighbour.group = static_cast<gid_t>(std::strtoul(arguments[2], nullptr, 10));
  neighbour.bytes = std::strtoull(arguments[3], nullptr, 10);
  neighbour.block_bytes = std::strtoull(arguments[4], nullptr, 10);
  neighbour.first = std::strtoull(arguments[5], nullptr, 10);
  absl::Status status;
  if (setgroups(0, nullptr) != 0 ||
      setresgid(neighbour.group, neighbour.group, neighbour.group) != 0) {
    status = absl::ErrnoToStatus(errno, "cannot become of another group");
  } else {
    status = Store(neighbour, arguments[1]);
  }
  if (!status.ok()) {
    std::fprintf(stderr, "%s\n", status.ToString().c_str());
  }
  return status.ok() ? 0 : 1;
}

}  // namespace terrace::bench
