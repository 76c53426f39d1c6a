// A daemon whose service manager the test plays: its folders, its starts and ends, its log.
// Thread-compatible.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "tools/bench/child_process.h"
#include "tools/bench/descriptor_store.h"

namespace terrace {

class KeptDaemon {
 public:
  KeptDaemon();
  // Kills what still runs and removes the folder.
  ~KeptDaemon();
  KeptDaemon(const KeptDaemon&) = delete;
  KeptDaemon& operator=(const KeptDaemon&) = delete;

  // terraced with an embedded configuration below a folder of its own and these arguments; true
  // when it says READY.
  bool Start(const std::vector<std::string>& arguments);
  // SIGKILL or SIGTERM; returns when it is gone: the exit status, or 128 + signal.
  int End(int signal);

  // Waits a minute at most.
  [[nodiscard]] bool Eventually(
      const std::function<bool(const bench::DescriptorStore::Stored&)>& condition) const;
  [[nodiscard]] bench::DescriptorStore& store() { return *store_; }
  [[nodiscard]] std::string runtime() const { return dir_ + "/data/run"; }
  [[nodiscard]] std::string Log() const;

 private:
  std::string dir_;
  std::unique_ptr<bench::DescriptorStore> store_;
  bench::ChildProcess process_;
};

}  // namespace terrace
