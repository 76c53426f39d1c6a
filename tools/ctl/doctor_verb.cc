#include "tools/ctl/doctor.h"
#include "tools/ctl/host_facts.h"
#include "tools/ctl/verbs.h"

namespace terrace::ctl {

namespace {

// None where the daemon does not say; that it cannot be reached is a finding of its own.
std::vector<DriveFact> DrivesOf(const Run& run) {
  std::vector<DriveFact> facts;
  const absl::StatusOr<v1::TiersReply> reply =
      run.daemon.Admin(&v1::Admin::StubInterface::async_interface::Tiers, v1::TiersRequest(),
                       "asking the daemon", absl::Seconds(3));
  if (!reply.ok()) {
    return facts;
  }
  for (const v1::TierStatus& tier : reply->tiers()) {
    for (const v1::DriveStatus& drive : tier.drives()) {
      facts.push_back({drive.path(), drive.state(), drive.problem(), drive.not_direct_because(),
                       drive.pending_deletes()});
    }
  }
  return facts;
}

// Likewise.
std::vector<PoolFact> PoolsOf(const Run& run) {
  std::vector<PoolFact> facts;
  const absl::StatusOr<v1::PoolReply> reply =
      run.daemon.Admin(&v1::Admin::StubInterface::async_interface::Pool, v1::PoolRequest(),
                       "asking the daemon", absl::Seconds(3));
  if (!reply.ok()) {
    return facts;
  }
  for (const v1::PoolStatus& pool : reply->pools()) {
    const std::string& fault =
        pool.last_fault().empty() ? pool.worker().last_fault() : pool.last_fault();
    facts.push_back(
        {pool.tier(), pool.state(), fault, pool.worker().stuck(), pool.unraised_generations()});
  }
  return facts;
}

}  // namespace

absl::StatusOr<Answer> RunDoctor(const Run& run) {
  HostFacts facts = GatherHostFacts(run.daemon.runtime_dir(), run.line.doctor_dirs);
  facts.own_version = std::string(Version());
  absl::StatusOr<v1::StatusReply> status =
      run.daemon.Admin(&v1::Admin::StubInterface::async_interface::Status, v1::StatusRequest(),
                       "asking the daemon", absl::Seconds(3));
  if (status.ok()) {
    facts.daemon_version = status->version();
    facts.drives = DrivesOf(run);
    facts.pools = PoolsOf(run);
    uint64_t memlock = 0;
    uint64_t descriptors = 0;
    if (run.daemon.daemon_pid() > 0 &&
        ReadLimits(run.daemon.daemon_pid(), &memlock, &descriptors)) {
      facts.daemon_memlock_bytes = memlock;
      facts.daemon_descriptors = descriptors;
    }
  } else {
    facts.daemon_problem = std::string(status.status().message());
  }
  const std::vector<Finding> findings = Diagnose(facts);
  Answer answer;
  answer.json = DoctorJson(findings);
  answer.text = DoctorText(findings, run.terminal.style);
  answer.exit_code = AnyFailed(findings) ? kExitFailed : kExitOk;
  return answer;
}

}  // namespace terrace::ctl
