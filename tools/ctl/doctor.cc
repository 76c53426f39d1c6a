#include "tools/ctl/doctor.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace terrace::ctl {
namespace {

constexpr uint64_t kGiB = uint64_t{1} << 30;
constexpr uint64_t kEnoughMemlock = uint64_t{64} << 20;
constexpr uint64_t kEnoughDescriptors = 4096;

Finding Ok(std::string check, std::string seen) {
  return {std::move(check), Grade::kOk, std::move(seen), ""};
}
Finding Warn(std::string check, std::string seen, std::string advice) {
  return {std::move(check), Grade::kWarn, std::move(seen), std::move(advice)};
}
Finding Fail(std::string check, std::string seen, std::string advice) {
  return {std::move(check), Grade::kFail, std::move(seen), std::move(advice)};
}

std::string LimitText(uint64_t limit, bool bytes) {
  if (limit == kUnlimited) {
    return "unlimited";
  }
  return bytes ? FormatBytes(limit) : FormatCount(limit);
}

Finding KernelFinding(const HostFacts& facts) {
  const auto at_least = [&](int major, int minor) {
    return facts.kernel_major > major ||
           (facts.kernel_major == major && facts.kernel_minor >= minor);
  };
  if (!at_least(5, 10)) {
    return Fail("kernel", facts.kernel_release,
                "Linux 5.10 is the oldest that has all that terraced needs");
  }
  return Ok("kernel", facts.kernel_release);
}

bool HasTransparentPages(const HostFacts& facts) {
  const std::string& word = facts.shmem_thp;
  return facts.shmem_collapse || word == "advise" || word == "always" || word == "within_size" ||
         word == "force";
}

Finding HugePages(const HostFacts& facts) {
  const std::string seen =
      absl::StrFormat("%s of %s pages of %s free (%s)", FormatCount(facts.huge_pages_free),
                      FormatCount(facts.huge_pages_total), FormatBytes(facts.huge_page_bytes),
                      FormatBytes(facts.huge_pages_free * facts.huge_page_bytes));
  // A pool that the daemon has taken up is as it should be.
  if (facts.huge_pages_free > 0 || (facts.huge_pages_total > 0 && !facts.daemon_version.empty())) {
    return Ok("huge-pages", seen);
  }
  if (HasTransparentPages(facts)) {
    return Ok("huge-pages", absl::StrCat(seen, "; transparent ones are the second choice"));
  }
  return Warn(
      "huge-pages", seen,
      "reserve as much as the DRAM tier is large, e.g. sysctl vm.nr_hugepages=512 for 1 GiB: "
      "copies are faster and start-up much faster with them");
}

Finding ShmemThp(const HostFacts& facts) {
  const std::string seen = absl::StrCat(
      "transparent huge pages on shared memory: ", facts.shmem_thp.empty() ? "-" : facts.shmem_thp,
      facts.shmem_collapse ? ", MADV_COLLAPSE works" : ", MADV_COLLAPSE does not work");
  if (HasTransparentPages(facts)) {
    return Ok("thp-shmem", seen);
  }
  if (facts.huge_pages_total > 0) {
    return Ok("thp-shmem", absl::StrCat(seen, "; reserved huge pages are there"));
  }
  return Warn("thp-shmem", seen,
              "the second choice to reserved huge pages: "
              "echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled");
}

Finding Memory(const HostFacts& facts) {
  std::string seen = absl::StrCat(FormatBytes(facts.memory_available_bytes), " available of ",
                                  FormatBytes(facts.memory_bytes));
  if (facts.cgroup_limit_bytes.has_value()) {
    absl::StrAppend(&seen, ", this control group may use ", FormatBytes(*facts.cgroup_limit_bytes));
  }
  const uint64_t usable =
      std::min(facts.memory_available_bytes, facts.cgroup_limit_bytes.value_or(kUnlimited));
  if (usable < kGiB && facts.daemon_version.empty()) {
    return Warn(
        "memory", seen,
        "the default DRAM tier takes 1 GiB and is touched at start; configure a smaller one");
  }
  return Ok("memory", seen);
}

Finding Memlock(const HostFacts& facts) {
  const uint64_t counted = facts.daemon_memlock_bytes.value_or(facts.own_memlock_bytes);
  const std::string seen =
      absl::StrCat(facts.daemon_memlock_bytes.has_value() ? "daemon: " : "this shell: ",
                   LimitText(counted, true));
  if (counted >= kEnoughMemlock) {
    return Ok("memlock", seen);
  }
  return Warn("memlock", seen,
              "buffers of io_uring and of the GPU are locked: LimitMEMLOCK=infinity in the unit, "
              "or ulimit -l unlimited");
}

Finding Descriptors(const HostFacts& facts) {
  const uint64_t counted = facts.daemon_descriptors.value_or(facts.own_descriptors);
  const std::string seen =
      absl::StrCat(facts.daemon_descriptors.has_value() ? "daemon: " : "this shell: ",
                   LimitText(counted, false));
  if (counted >= kEnoughDescriptors) {
    return Ok("descriptors", seen);
  }
  return Warn("descriptors", seen,
              "every slab, session and region takes one: LimitNOFILE=65536 in the unit, or ulimit "
              "-n 65536");
}

Finding IoUring(const HostFacts& facts) {
  if (facts.io_uring_errno == 0) {
    return Ok("io-uring", "io_uring_setup works");
  }
  return Warn(
      "io-uring",
      absl::StrCat("io_uring_setup: ", std::strerror(facts.io_uring_errno),
                   facts.io_uring_disabled != 0
                       ? absl::StrCat(" (kernel.io_uring_disabled=", facts.io_uring_disabled, ")")
                       : ""),
      "local tiers use a pool of threads instead, which costs latency; containers often forbid "
      "io_uring by "
      "seccomp");
}

void IdentityFindings(const HostFacts& facts, std::vector<Finding>* out) {
  out->push_back(facts.pidfd ? Ok("pidfd", "pidfd_open works")
                             : Fail("pidfd", "pidfd_open fails",
                                    "without a pidfd no client gets leases; Linux 5.3 or a less "
                                    "strict seccomp profile"));
  out->push_back(facts.peer_pidfd ? Ok("peer-pidfd", "SO_PEERPIDFD works")
                                  : Warn("peer-pidfd", "no SO_PEERPIDFD (Linux 6.5)",
                                         "clients pass a pidfd of their own; one in another "
                                         "container that does not gets no leases"));
  if (!facts.seal_future_write) {
    out->push_back(Fail("memfd-seals", "F_SEAL_FUTURE_WRITE is refused",
                        "slabs cannot be shared read-only without it: Linux 5.1 or newer"));
  } else if (facts.huge_pages_free > 0 && !facts.seal_future_write_huge) {
    out->push_back(Warn("memfd-seals", "sealed memfds work, but not of huge pages",
                        "the arena falls back to small pages"));
  } else {
    out->push_back(Ok("memfd-seals", facts.seal_future_write_huge
                                         ? "F_SEAL_FUTURE_WRITE works, with huge pages too"
                                         : "F_SEAL_FUTURE_WRITE works"));
  }
}

Finding Gpu(const HostFacts& facts) {
  if (facts.libcuda) {
    const std::string version = facts.cuda_driver_version > 0
                                    ? absl::StrCat("CUDA ", facts.cuda_driver_version / 1000, ".",
                                                   facts.cuda_driver_version % 1000 / 10)
                                    : "version unknown";
    return Ok("gpu", absl::StrCat("libcuda.so.1 loads (", version, ")"));
  }
  if (facts.nvidia_device) {
    return Warn(
        "gpu",
        absl::StrCat("there is a device but libcuda.so.1 does not load: ", facts.libcuda_detail),
        "install the driver's user-space library of the same version as the kernel module");
  }
  return Ok("gpu", "none; blocks go to and from host memory");
}

Finding DirectIo(const DirectIoFact& fact) {
  const std::string place =
      absl::StrCat(fact.dir, " (", fact.file_system, ", ", FormatBytes(fact.free_bytes), " free)");
  switch (fact.result) {
    case DirectIoFact::Result::kWorks:
      return Ok("o-direct", absl::StrCat(place, ": written and read back"));
    case DirectIoFact::Result::kNoDirectIo:
      return Warn("o-direct", absl::StrCat(place, ": ", fact.detail),
                  "a tier here goes through the page cache, which takes memory and copies twice");
    case DirectIoFact::Result::kNotWritable:
      return Fail("o-direct", absl::StrCat(fact.dir, ": ", fact.detail),
                  "the folder has to exist and be writable for the daemon's user");
  }
  return Ok("o-direct", place);
}

Finding OfDrive(const DriveFact& fact) {
  const std::string place = absl::StrCat(fact.path, ": ", fact.state);
  if (fact.state == "away") {
    return Fail("drive", absl::StrCat(place, ": ", fact.problem),
                "what lies on it is missed until it is there; the daemon tries every 5 s");
  }
  if (!fact.problem.empty()) {
    return Fail("drive", absl::StrCat(place, ": ", fact.problem),
                "the kernel's log says what it thinks of this drive");
  }
  if (fact.state == "read-only") {
    return Fail("drive", place, "the file system has to be writable; the daemon tries every 5 s");
  }
  if (!fact.not_direct_because.empty()) {
    return Warn("drive", absl::StrCat(place, ", without O_DIRECT: ", fact.not_direct_because),
                "its transfers go through the page cache, which takes memory and copies twice");
  }
  if (fact.pending_deletes > 0) {
    return Warn("drive", absl::StrCat(place, ", ", fact.pending_deletes, " deletions to be done"),
                "they are done as soon as the drive takes writes");
  }
  return Ok("drive", place);
}

void RuntimeFindings(const HostFacts& facts, std::vector<Finding>* out) {
  if (!facts.runtime_exists) {
    out->push_back(
        Warn("runtime", absl::StrCat(facts.runtime_dir, " does not exist"),
             "the unit or tmpfiles.d makes it; by hand: install -d -m 0750 -g terrace DIR"));
    return;
  }
  const std::string seen = absl::StrFormat("%s mode %04o", facts.runtime_dir, facts.runtime_mode);
  if (!facts.runtime_is_dir) {
    out->push_back(Fail("runtime", absl::StrCat(facts.runtime_dir, " is not a folder"),
                        "name the right one by --runtime"));
    return;
  }
  if ((facts.runtime_mode & 0002U) != 0) {
    out->push_back(Fail("runtime", seen, "anyone may put a socket of his own there: chmod o-w"));
  } else if ((facts.runtime_mode & 0020U) != 0) {
    out->push_back(Warn("runtime", seen, "its group may replace the sockets: chmod g-w"));
  } else {
    out->push_back(Ok("runtime", seen));
  }
  for (const SocketFact& socket : facts.sockets) {
    if (!socket.exists) {
      continue;  // the daemon's finding says what is the matter
    }
    const std::string mode = absl::StrFormat("%s mode %04o", socket.name, socket.mode);
    const mode_t allowed = socket.name == "admin.sock" ? 0600U : 0660U;
    const mode_t wider = socket.mode & 0777U & ~allowed;
    if (wider == 0) {
      out->push_back(Ok("socket", mode));
    } else if (socket.name == "admin.sock") {
      out->push_back(Fail("socket", mode, "the operators' socket has to be 0600"));
    } else {
      out->push_back(Warn("socket", mode, "wider than 0660: every user of this host may connect"));
    }
  }
}

Finding Daemon(const HostFacts& facts) {
  if (facts.daemon_version.empty()) {
    return Warn("daemon", facts.daemon_problem, "start it, or name its folder by --runtime");
  }
  if (facts.daemon_version != facts.own_version) {
    return Warn("daemon",
                absl::StrCat("terraced ", facts.daemon_version, ", terracectl ", facts.own_version),
                "install both from one release and restart the daemon");
  }
  return Ok("daemon", absl::StrCat("terraced ", facts.daemon_version, " answers"));
}

struct GradeWord {
  absl::string_view word;
  absl::string_view json;
  Tone tone;
};
GradeWord WordOf(Grade grade) {
  switch (grade) {
    case Grade::kOk:
      return {"OK", "ok", Tone::kGood};
    case Grade::kWarn:
      return {"WARN", "warn", Tone::kWarning};
    case Grade::kFail:
      return {"FAIL", "fail", Tone::kBad};
  }
  return {"FAIL", "fail", Tone::kBad};
}

Finding OfPool(const PoolFact& pool) {
  const std::string seen =
      absl::StrCat(pool.tier, ": ", pool.state,
                   pool.last_fault.empty() ? "" : absl::StrCat("; ", pool.last_fault));
  if (pool.state == "foreign") {
    return {"shared-tier", Grade::kFail, seen,
            "another pool, or none, lies under the path: mount the right one; where the pool was "
            "meant to change, remove pool-NAME from the data folder"};
  }
  if (pool.state == "suspended") {
    return {"shared-tier", Grade::kFail, seen,
            "the mount does not answer; the daemon goes on without and tries again by itself"};
  }
  if (pool.stuck_workers > 0) {
    return {"shared-tier", Grade::kWarn,
            absl::StrCat(seen, "; ", pool.stuck_workers, " workers are stuck in the mount"),
            "look at the file system: calls of it do not come back"};
  }
  if (pool.unraised_generations > 0) {
    return {"shared-tier", Grade::kWarn,
            absl::StrCat(seen, "; ", pool.unraised_generations, " clears are not told yet"),
            "other nodes may still find what was cleared here, until the pool can be written"};
  }
  if (pool.state != "ready") {
    return {"shared-tier", Grade::kWarn, seen, "what other nodes published is not all known yet"};
  }
  return Ok("shared-tier", seen);
}

}  // namespace

std::vector<Finding> Diagnose(const HostFacts& facts) {
  std::vector<Finding> findings;
  findings.push_back(KernelFinding(facts));
  findings.push_back(Memory(facts));
  findings.push_back(HugePages(facts));
  findings.push_back(ShmemThp(facts));
  findings.push_back(Memlock(facts));
  findings.push_back(Descriptors(facts));
  IdentityFindings(facts, &findings);
  findings.push_back(IoUring(facts));
  for (const DirectIoFact& fact : facts.direct_io) {
    findings.push_back(DirectIo(fact));
  }
  findings.push_back(Gpu(facts));
  findings.push_back(Ok("libraries", absl::StrCat("gRPC ", facts.grpc_version, ", Protobuf ",
                                                  facts.protobuf_version)));
  RuntimeFindings(facts, &findings);
  findings.push_back(Daemon(facts));
  for (const DriveFact& drive : facts.drives) {
    findings.push_back(OfDrive(drive));
  }
  for (const PoolFact& pool : facts.pools) {
    findings.push_back(OfPool(pool));
  }
  return findings;
}

std::string DoctorText(absl::Span<const Finding> findings, const Style& style) {
  size_t width = 0;
  std::array<int, 3> count{};
  for (const Finding& finding : findings) {
    width = std::max(width, finding.check.size());
    ++count[static_cast<size_t>(finding.grade)];
  }
  std::string out;
  for (const Finding& finding : findings) {
    const GradeWord word = WordOf(finding.grade);
    absl::StrAppend(&out, style.Paint(word.tone, word.word), std::string(6 - word.word.size(), ' '),
                    finding.check, std::string(width - finding.check.size() + 2, ' '),
                    Printable(finding.seen), "\n");
    if (!finding.advice.empty()) {
      absl::StrAppend(&out, std::string(6 + width + 2, ' '), finding.advice, "\n");
    }
  }
  absl::StrAppend(&out, count[0], " ok, ", count[1], count[1] == 1 ? " warning, " : " warnings, ",
                  count[2], " failed\n");
  return out;
}

Json DoctorJson(absl::Span<const Finding> findings) {
  Json json;
  json["ok"] = !AnyFailed(findings);
  json["findings"] = Json::array();
  for (const Finding& finding : findings) {
    json["findings"].push_back({{"check", finding.check},
                                {"grade", std::string(WordOf(finding.grade).json)},
                                {"seen", finding.seen},
                                {"advice", finding.advice}});
  }
  return json;
}

bool AnyFailed(absl::Span<const Finding> findings) {
  return std::any_of(findings.begin(), findings.end(),
                     [](const Finding& f) { return f.grade == Grade::kFail; });
}

}  // namespace terrace::ctl
