// Files that are open although nobody is using them, the longest unused ones closed first.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <list>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

#include "tiers/os/descriptor.h"
#include "tiers/os/file_system.h"

namespace terrace {

struct OpenFile {
  OpenFile(Descriptor opened, bool bypasses) : fd(std::move(opened)), direct(bypasses) {}
  const Descriptor fd;
  std::atomic<bool> direct;  // O_DIRECT is set; once given up it stays so
};

enum class FileAccess : uint8_t { kRead, kReadWrite };

// Thread-safe. A file is owned by this and by the calls that use it; the last of them closes it,
// which may block, so that nothing is closed under the lock.
class OpenFiles {
 public:
  struct Name {
    std::string path;
    FileAccess access = FileAccess::kRead;
    Caching caching = Caching::kBuffered;
    friend bool operator<(const Name& a, const Name& b) {
      return std::tie(a.path, a.access, a.caching) < std::tie(b.path, b.access, b.caching);
    }
  };
  using FilePtr = std::shared_ptr<OpenFile>;

  explicit OpenFiles(size_t max_files) : max_files_(max_files) {}

  // nullptr: not open.
  FilePtr Find(const Name& name) {
    absl::MutexLock lock(&mutex_);
    const auto found = places_.find(name);
    if (found == places_.end()) {
      return nullptr;
    }
    order_.splice(order_.begin(), order_, found->second);
    return found->second->second;
  }

  // The same, but that of several who find nothing one has nullptr, and is to call Opened; the
  // others wait for that.
  FilePtr FindOrOpen(const Name& name) {
    absl::MutexLock lock(&mutex_);
    const auto nobody_opens = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
      return !opening_.contains(name);
    };
    mutex_.Await(absl::Condition(&nobody_opens));
    if (const auto found = places_.find(name); found != places_.end()) {
      order_.splice(order_.begin(), order_, found->second);
      return found->second->second;
    }
    opening_.insert(name);
    return nullptr;
  }
  // nullptr: it could not be opened.
  void Opened(const Name& name, FilePtr file) {
    if (file != nullptr) {
      Keep(name, std::move(file));
    }
    absl::MutexLock lock(&mutex_);
    opening_.erase(name);
  }

  void Keep(const Name& name, FilePtr file) {
    std::vector<FilePtr> closed_unlocked;
    absl::MutexLock lock(&mutex_);
    ForgetLocked(name, closed_unlocked);
    order_.emplace_front(name, std::move(file));
    places_[name] = order_.begin();
    if (order_.size() > max_files_) {
      ForgetLocked(Name(order_.back().first), closed_unlocked);
    }
  }

  void Clear() {
    Order closed_unlocked;
    absl::MutexLock lock(&mutex_);
    places_.clear();
    closed_unlocked.swap(order_);
  }

  // However it is open. Returns whether it was open under this name.
  bool Forget(const Name& name) {
    std::vector<FilePtr> closed_unlocked;
    absl::MutexLock lock(&mutex_);
    const bool was_open = places_.contains(name);
    for (const FileAccess access : {FileAccess::kRead, FileAccess::kReadWrite}) {
      for (const Caching caching : {Caching::kBuffered, Caching::kDirect}) {
        ForgetLocked({name.path, access, caching}, closed_unlocked);
      }
    }
    return was_open;
  }

 private:
  using Order = std::list<std::pair<Name, FilePtr>>;

  void ForgetLocked(const Name& name, std::vector<FilePtr>& forgotten)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const auto found = places_.find(name);
    if (found == places_.end()) {
      return;
    }
    forgotten.push_back(std::move(found->second->second));
    order_.erase(found->second);
    places_.erase(found);
  }

  const size_t max_files_;
  absl::Mutex mutex_;
  Order order_ ABSL_GUARDED_BY(mutex_);  // the last used one first
  std::map<Name, Order::iterator> places_ ABSL_GUARDED_BY(mutex_);
  std::set<Name> opening_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace terrace
