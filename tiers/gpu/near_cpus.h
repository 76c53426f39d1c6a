// Which cpus are near a device of the PCI bus, as sysfs tells, so that the threads that copy
// for it run there and what they touch first lies there.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace terrace {

struct NearCpus {
  int node = 0;
  std::vector<unsigned> cpus;  // rising
};

// "0-3,8,10-11\n", the kernel's way to write a set (Documentation/admin-guide/cputopology.rst).
// nullopt: not that, or a number of 8192 or more. Empty: no cpu. Pure.
std::optional<std::vector<unsigned>> ParseCpuList(absl::string_view text);

// nullopt where nothing is gained or known: a host with one node of memory, a device of no node,
// one that sysfs does not have.
//   sysfs       mostly "/sys"
//   pci_bus_id  as cuDeviceGetPCIBusId writes it, "0000:3B:00.0"; letters of either case
std::optional<NearCpus> FindNearCpus(const std::string& sysfs, absl::string_view pci_bus_id);

// Keeps the calling thread, and those that it starts, to those of `cpus` that it may run on.
// Errors: FAILED_PRECONDITION (it may run on none of them), else of the kernel; then it goes on as
// before.
absl::Status StayOn(const std::vector<unsigned>& cpus);

}  // namespace terrace
