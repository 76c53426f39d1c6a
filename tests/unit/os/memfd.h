// Memfds.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>

#include "tiers/os/descriptor.h"

namespace terrace {

inline Descriptor MakeMemfd(uint64_t bytes) {
  Descriptor fd(memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) {
    return {};
  }
  return fd;
}

}  // namespace terrace
