#include "tiers/gpu/host_copier.h"

#include <system_error>

#include <cstring>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include <pthread.h>

namespace terrace {

absl::StatusOr<std::unique_ptr<HostCopier>> HostCopier::Start(const std::string& name) {
  std::unique_ptr<HostCopier> copier(new HostCopier());
  try {
    copier->thread_ = std::thread([raw = copier.get()] { raw->Loop(); });
  } catch (const std::system_error& error) {
    return absl::ResourceExhaustedError(absl::StrCat("cannot start ", name, ": ", error.what()));
  }
  pthread_setname_np(copier->thread_.native_handle(), name.substr(0, 15).c_str());
  return copier;
}

HostCopier::~HostCopier() {
  {
    const absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  if (thread_.joinable()) {
    thread_.join();
  }
}

void HostCopier::Copy(std::vector<HostCopy> copies, std::function<void()> done) {
  const absl::MutexLock lock(&mutex_);
  queue_.push_back({std::move(copies), std::move(done)});
}

void HostCopier::Loop() {
  const auto wanted = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return !queue_.empty() || stopping_;
  };
  while (true) {
    Work work;
    {
      const absl::MutexLock lock(&mutex_, absl::Condition(&wanted));
      if (queue_.empty()) {
        return;
      }
      work = std::move(queue_.front());
      queue_.pop_front();
    }
    for (const HostCopy& copy : work.copies) {
      std::memcpy(copy.to, copy.from, copy.bytes);
    }
    work.done();
  }
}

}  // namespace terrace
