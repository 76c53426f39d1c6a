// What the server of a sick mount was told: which operations hang, wait, fail, and which names and
// sizes it goes on claiming.
#pragma once

#include <sys/stat.h>

#include <array>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "tests/doubles/sick_mount/sick_operations.h"

namespace terrace::doubles {

// Thread-safe.
class Sickness {
 public:
  explicit Sickness(std::string backing) : backing_(std::move(backing)) {}

  // Lets an operation of this kind happen, perhaps later; else the negative errno.
  int Gate(SickOp op);
  [[nodiscard]] size_t ReadAtMost(size_t bytes);

  // While frozen: what is claimed of a path, none for one that is not there; and the names of a
  // folder. nullopt: the truth is told.
  enum class Claim : uint8_t { kTruth, kAbsent, kThere };
  Claim ClaimOf(const std::string& path, struct stat* status);
  std::optional<std::vector<std::string>> ClaimedNames(const std::string& folder);
  // A path was changed through the mount.
  void Changed(const std::string& path);

  // A command of the control socket; what to answer. nullopt: it is none.
  std::optional<uint64_t> Command(const std::string& text);

 private:
  struct Rule {
    bool hangs = false;
    int delay_ms = 0;
    int error = 0;
  };
  void Freeze();

  const std::string backing_;
  std::mutex mutex_;
  std::condition_variable healed_;
  std::array<Rule, kSickOpNames.size()> rules_;
  std::array<uint64_t, kSickOpNames.size()> calls_ = {};
  uint64_t hanging_ = 0;
  uint64_t heals_ = 0;
  uint64_t read_at_most_ = 0;
  std::optional<std::map<std::string, struct stat>> frozen_;
};

}  // namespace terrace::doubles
