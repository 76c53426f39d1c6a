#include "tools/bench/call_counter.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

namespace terrace::bench {
namespace {

constexpr std::chrono::seconds kAttachLimit{10};

constexpr std::array<std::string_view, 36> kMetadata = {
    "open",      "openat",    "openat2",   "creat",     "close",      "stat",
    "fstat",     "lstat",     "statx",     "access",    "newfstatat", "rename",
    "renameat",  "renameat2", "link",      "linkat",    "unlink",     "unlinkat",
    "mkdir",     "mkdirat",   "rmdir",     "getdents",  "statfs",     "getdents64",
    "fstatfs",   "fsync",     "fdatasync", "fallocate", "ftruncate",  "truncate",
    "fadvise64", "chmod",     "fchmod",    "fchmodat",  "faccessat",  "utimensat"};
constexpr std::array<std::string_view, 8> kTransfers = {"read",   "write",   "pread64", "pwrite64",
                                                        "preadv", "pwritev", "preadv2", "pwritev2"};

// 0: nobody.
pid_t TracerOf(pid_t thread) {
  std::ifstream status("/proc/" + std::to_string(thread) + "/status");
  std::string line;
  while (std::getline(status, line)) {
    if (line.rfind("TracerPid:", 0) == 0) {
      return static_cast<pid_t>(std::stol(line.substr(10)));
    }
  }
  return 0;
}

template <size_t n>
bool Contains(const std::array<std::string_view, n>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

CountedCalls ParseCallSummary(const std::string& text) {
  CountedCalls counted;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    // "% time, seconds, usecs/call, calls, [errors,] syscall"
    std::istringstream columns(line);
    std::vector<std::string> words;
    for (std::string word; columns >> word;) {
      words.push_back(word);
    }
    if (words.size() < 5 || words[3].find_first_not_of("0123456789") != std::string::npos) {
      continue;
    }
    const uint64_t calls = std::stoull(words[3]);
    counted.metadata += Contains(kMetadata, words.back()) ? calls : 0;
    counted.transfers += Contains(kTransfers, words.back()) ? calls : 0;
  }
  return counted;
}

absl::StatusOr<std::unique_ptr<CallCounter>> CallCounter::Start(const std::vector<pid_t>& targets,
                                                                Follow follow,
                                                                const std::string& folder) {
  const std::string output = folder + "/calls-" + std::to_string(targets.front());
  std::vector<std::string> args = {"strace", "-c", "-o", output};
  if (follow == Follow::kProcess) {
    args.push_back("-f");
  }
  for (const pid_t target : targets) {
    args.insert(args.end(), {"-p", std::to_string(target)});
  }
  absl::StatusOr<ChildProcess> strace = ChildProcess::Start(args, folder + "/strace.log");
  if (!strace.ok()) {
    return strace.status();
  }
  const auto until = std::chrono::steady_clock::now() + kAttachLimit;
  while (!std::all_of(targets.begin(), targets.end(),
                      [](pid_t target) { return TracerOf(target) != 0; })) {
    if (!strace->Running()) {
      std::ifstream log(folder + "/strace.log");
      std::string line;
      std::getline(log, line);
      return absl::PermissionDeniedError("strace: " + line);
    }
    if (std::chrono::steady_clock::now() >= until) {
      return absl::UnavailableError("strace: it cannot attach");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return std::unique_ptr<CallCounter>(new CallCounter(*std::move(strace), output));
}

absl::StatusOr<CountedCalls> CallCounter::Stop() {
  strace_.Stop();
  std::ifstream file(output_);
  std::stringstream text;
  text << file.rdbuf();
  if (text.str().empty()) {
    return absl::UnavailableError("strace: it left no summary");
  }
  return ParseCallSummary(text.str());
}

}  // namespace terrace::bench
