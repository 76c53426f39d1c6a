// RAII for the kernel objects of a session: descriptors and mappings. Move-only, thread-compatible;
// destructors release and never report.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <utility>

namespace terrace::client {

// An open file descriptor; -1 is none.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    if (this != &other) {
      Reset();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() { Reset(); }

  void Reset() {
    if (fd_ >= 0) {
      ::close(fd_);
    }
    fd_ = -1;
  }
  [[nodiscard]] int get() const { return fd_; }
  [[nodiscard]] bool valid() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

// A shared mapping.
class Mapping {
 public:
  Mapping() = default;
  Mapping(Mapping&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  Mapping& operator=(Mapping&& other) noexcept {
    if (this != &other) {
      Reset();
      data_ = std::exchange(other.data_, nullptr);
      bytes_ = std::exchange(other.bytes_, 0);
    }
    return *this;
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() { Reset(); }

  // Maps the first `bytes` of the descriptor; invalid when the kernel refuses (errno says why).
  // Touches no page. From 2 MiB on it begins at a multiple of 2 MiB where there is such a place, so
  // that the huge pages of the file are mapped as such: page by page, reading them takes up to 2.8
  // times as long.
  //   protection  of mmap(2), e.g. PROT_READ
  static Mapping Map(const Descriptor& fd, size_t bytes, int protection);

  void Reset() {
    if (data_ != nullptr) {
      ::munmap(data_, bytes_);
    }
    data_ = nullptr;
    bytes_ = 0;
  }
  [[nodiscard]] char* data() const { return data_; }
  [[nodiscard]] size_t size() const { return bytes_; }
  [[nodiscard]] bool valid() const { return data_ != nullptr; }

 private:
  char* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace terrace::client
