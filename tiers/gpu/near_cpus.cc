#include "tiers/gpu/near_cpus.h"

#include <cerrno>
#include <fstream>
#include <sstream>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include <sched.h>

namespace terrace {
namespace {

constexpr unsigned kMaxCpu = 8191;  // the most that a kernel of today is built for

std::optional<std::string> ReadLine(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  return std::getline(file, line) ? std::optional(std::move(line)) : std::nullopt;
}

std::optional<std::vector<unsigned>> ReadList(const std::string& path) {
  const std::optional<std::string> line = ReadLine(path);
  return line.has_value() ? ParseCpuList(*line) : std::nullopt;
}

// Of up to kMaxCpu + 1 cpus.
struct CpuSet {
  CpuSet() : words(CPU_ALLOC_SIZE(kMaxCpu + 1) / sizeof(unsigned long)) {}
  cpu_set_t* set() { return reinterpret_cast<cpu_set_t*>(words.data()); }
  [[nodiscard]] size_t bytes() const { return words.size() * sizeof(unsigned long); }
  std::vector<unsigned long> words;
};

}  // namespace

std::optional<std::vector<unsigned>> ParseCpuList(absl::string_view text) {
  text = absl::StripAsciiWhitespace(text);
  std::vector<unsigned> cpus;
  if (text.empty()) {
    return cpus;
  }
  for (const absl::string_view range : absl::StrSplit(text, ',')) {
    const std::vector<absl::string_view> ends = absl::StrSplit(range, '-');
    unsigned first = 0;
    unsigned last = 0;
    if (ends.size() > 2 || !absl::SimpleAtoi(ends.front(), &first) ||
        !absl::SimpleAtoi(ends.back(), &last) || first > last || last > kMaxCpu ||
        (!cpus.empty() && first <= cpus.back())) {
      return std::nullopt;
    }
    for (unsigned cpu = first; cpu <= last; ++cpu) {
      cpus.push_back(cpu);
    }
  }
  return cpus;
}

std::optional<NearCpus> FindNearCpus(const std::string& sysfs, absl::string_view pci_bus_id) {
  // A set of nodes is written as one of cpus is.
  const auto nodes = ReadList(absl::StrCat(sysfs, "/devices/system/node/online"));
  if (!nodes.has_value() || nodes->size() < 2) {
    return std::nullopt;
  }
  const std::string device = absl::AsciiStrToLower(pci_bus_id);
  const std::optional<std::string> node =
      ReadLine(absl::StrCat(sysfs, "/bus/pci/devices/", device, "/numa_node"));
  NearCpus near;
  if (device.empty() || !node.has_value() || !absl::SimpleAtoi(*node, &near.node) ||
      near.node < 0) {
    return std::nullopt;
  }
  auto cpus = ReadList(absl::StrCat(sysfs, "/devices/system/node/node", near.node, "/cpulist"));
  if (!cpus.has_value() || cpus->empty()) {
    return std::nullopt;  // a node of memory alone
  }
  near.cpus = *std::move(cpus);
  return near;
}

absl::Status StayOn(const std::vector<unsigned>& cpus) {
  CpuSet allowed;
  if (sched_getaffinity(0, allowed.bytes(), allowed.set()) != 0) {
    return absl::ErrnoToStatus(errno, "sched_getaffinity");
  }
  CpuSet wanted;
  for (const unsigned cpu : cpus) {
    if (CPU_ISSET_S(cpu, allowed.bytes(), allowed.set())) {
      CPU_SET_S(cpu, wanted.bytes(), wanted.set());
    }
  }
  if (CPU_COUNT_S(wanted.bytes(), wanted.set()) == 0) {
    return absl::FailedPreconditionError("none of the cpus is allowed to this process");
  }
  if (sched_setaffinity(0, wanted.bytes(), wanted.set()) != 0) {
    return absl::ErrnoToStatus(errno, "sched_setaffinity");
  }
  return absl::OkStatus();
}

}  // namespace terrace
