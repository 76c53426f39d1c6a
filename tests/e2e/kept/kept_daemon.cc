#include "tests/e2e/kept/kept_daemon.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <utility>

#include <gtest/gtest.h>

#include "tests/e2e/daemon/program.h"

namespace terrace {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(60);

}  // namespace

KeptDaemon::KeptDaemon() {
  std::string pattern = (std::filesystem::temp_directory_path() / "terrace-kept-XXXXXX").string();
  dir_ = mkdtemp(pattern.data());
  auto store = bench::DescriptorStore::Create(dir_);
  EXPECT_TRUE(store.ok()) << store.status();
  store_ = *std::move(store);
}

KeptDaemon::~KeptDaemon() {
  process_.Kill();
  std::error_code ignored;
  std::filesystem::remove_all(dir_, ignored);
}

bool KeptDaemon::Start(const std::vector<std::string>& arguments) {
  std::vector<std::string> command = {TERRACED_PATH, "--data", dir_ + "/data"};
  command.insert(command.end(), arguments.begin(), arguments.end());
  auto process = bench::ChildProcess::Start(command, dir_ + "/err", store_->NextStart());
  if (!process.ok()) {
    return false;
  }
  process_ = *std::move(process);
  return store_->WaitReady(kPatience);
}

int KeptDaemon::End(int signal) {
  kill(process_.pid(), signal);
  const int status = WaitForChild(process_.pid(), kPatience);
  process_ = bench::ChildProcess();
  return status;
}

bool KeptDaemon::Eventually(
    const std::function<bool(const bench::DescriptorStore::Stored&)>& condition) const {
  return store_->Wait(condition, kPatience);
}

std::string KeptDaemon::Log() const {
  std::ifstream in(dir_ + "/err");
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

}  // namespace terrace
