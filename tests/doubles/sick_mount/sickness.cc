#include "tests/doubles/sick_mount/sickness.h"

#include <errno.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <sstream>
#include <thread>

namespace terrace::doubles {

int Sickness::Gate(SickOp op) {
  std::unique_lock<std::mutex> lock(mutex_);
  const auto index = static_cast<size_t>(op);
  ++calls_[index];
  if (rules_[index].hangs) {
    ++hanging_;
    healed_.wait(lock, [this, index] { return !rules_[index].hangs; });
    --hanging_;
  }
  const Rule rule = rules_[index];
  if (rule.delay_ms > 0) {
    // Ends early when it is healed.
    const uint64_t heals = heals_;
    healed_.wait_for(lock, std::chrono::milliseconds(rule.delay_ms),
                     [this, heals] { return heals_ != heals; });
  }
  return -rule.error;
}

size_t Sickness::ReadAtMost(size_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  return read_at_most_ == 0 ? bytes : std::min<size_t>(bytes, read_at_most_);
}

Sickness::Claim Sickness::ClaimOf(const std::string& path, struct stat* status) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!frozen_.has_value()) {
    return Claim::kTruth;
  }
  const auto found = frozen_->find(path);
  if (found == frozen_->end()) {
    return Claim::kAbsent;
  }
  *status = found->second;
  return Claim::kThere;
}

std::optional<std::vector<std::string>> Sickness::ClaimedNames(const std::string& folder) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!frozen_.has_value()) {
    return std::nullopt;
  }
  const std::string prefix = folder == "/" ? "/" : folder + "/";
  std::vector<std::string> names;
  for (const auto& [path, status] : *frozen_) {
    if (path.size() > prefix.size() && path.starts_with(prefix) &&
        path.find('/', prefix.size()) == std::string::npos) {
      names.push_back(path.substr(prefix.size()));
    }
  }
  return names;
}

void Sickness::Changed(const std::string& path) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!frozen_.has_value()) {
    return;
  }
  struct stat status {};
  if (lstat((backing_ + path).c_str(), &status) == 0) {
    (*frozen_)[path] = status;
  } else {
    frozen_->erase(path);
  }
}

void Sickness::Freeze() {
  frozen_.emplace();
  struct stat status {};
  if (lstat(backing_.c_str(), &status) == 0) {
    (*frozen_)["/"] = status;
  }
  for (const auto& entry : std::filesystem::recursive_directory_iterator(backing_)) {
    const std::string path = entry.path();
    if (lstat(path.c_str(), &status) == 0) {
      (*frozen_)[path.substr(backing_.size())] = status;
    }
  }
}

std::optional<uint64_t> Sickness::Command(const std::string& text) {
  std::istringstream words(text);
  std::string verb;
  std::string name;
  int64_t number = 0;
  words >> verb >> name >> number;
  const auto found = std::find(kSickOpNames.begin(), kSickOpNames.end(), name);
  const std::lock_guard<std::mutex> lock(mutex_);
  if (found != kSickOpNames.end()) {
    const auto index = static_cast<size_t>(found - kSickOpNames.begin());
    if (verb == "calls") {
      return calls_[index];
    }
    if (verb == "shorten") {
      read_at_most_ = static_cast<uint64_t>(number);
      return 0;
    }
    rules_[index] = {verb == "hang", verb == "delay" ? static_cast<int>(number) : 0,
                     verb == "fail" ? static_cast<int>(number) : 0};
  } else if (verb == "hanging") {
    return hanging_;
  } else if (verb == "heal") {
    rules_.fill({});
    read_at_most_ = 0;
  } else if (verb == "freeze") {
    Freeze();
  } else if (verb == "thaw") {
    frozen_.reset();
  } else {
    return std::nullopt;
  }
  ++heals_;
  healed_.notify_all();
  return 0;
}

}  // namespace terrace::doubles
