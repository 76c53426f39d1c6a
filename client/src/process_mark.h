// Tells a forked child from the process that made the mark, without a system call.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

namespace terrace::client {

// Immutable; thread-safe.
class ProcessMark {
 public:
  ProcessMark() : pid_(::getpid()) {
    const long page = ::sysconf(_SC_PAGESIZE);
    bytes_ = page > 0 ? static_cast<size_t>(page) : 4096;
    void* address =
        ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (address == MAP_FAILED) {
      return;
    }
    // The kernel hands a child zeros in place of this page (madvise(2), Linux 4.14).
    if (::madvise(address, bytes_, MADV_WIPEONFORK) != 0) {
      ::munmap(address, bytes_);
      return;
    }
    mark_ = static_cast<volatile unsigned char*>(address);
    *mark_ = 1;
  }
  ProcessMark(const ProcessMark&) = delete;
  ProcessMark& operator=(const ProcessMark&) = delete;
  ~ProcessMark() {
    if (mark_ != nullptr) {
      ::munmap(const_cast<unsigned char*>(mark_), bytes_);
    }
  }

  [[nodiscard]] bool SameProcess() const {
    return mark_ != nullptr ? *mark_ != 0 : pid_ == ::getpid();
  }

 private:
  const pid_t pid_;
  size_t bytes_ = 0;
  volatile unsigned char* mark_ = nullptr;
};

}  // namespace terrace::client
