#include "tools/ctl/doctor.h"

#include <unistd.h>

#include <cerrno>
#include <functional>

#include <gtest/gtest.h>

#include "tools/ctl/host_facts.h"

namespace terrace::ctl {
namespace {

// A host on which nothing hurts.
HostFacts GoodHost() {
  HostFacts facts;
  facts.kernel_release = "6.8.0-45-generic";
  facts.kernel_major = 6;
  facts.kernel_minor = 8;
  facts.huge_pages_total = 512;
  facts.huge_pages_free = 512;
  facts.huge_page_bytes = 2 << 20;
  facts.shmem_thp = "advise";
  facts.memory_bytes = uint64_t{64} << 30;
  facts.memory_available_bytes = uint64_t{32} << 30;
  facts.own_memlock_bytes = kUnlimited;
  facts.own_descriptors = 65536;
  facts.pidfd = true;
  facts.peer_pidfd = true;
  facts.seal_future_write = true;
  facts.seal_future_write_huge = true;
  facts.runtime_dir = "/run/terrace";
  facts.runtime_exists = true;
  facts.runtime_is_dir = true;
  facts.runtime_mode = 0750;
  facts.sockets = {
      {"terrace.sock", true, 0660}, {"session.sock", true, 0660}, {"admin.sock", true, 0600}};
  facts.own_version = "0.1.0";
  facts.daemon_version = "0.1.0";
  facts.drives = {{"/a", "ready", "", "", 0}, {"/b", "recovering", "", "", 0}};
  return facts;
}

std::vector<Finding> NotOk(const HostFacts& facts) {
  std::vector<Finding> bad;
  for (Finding& finding : Diagnose(facts)) {
    if (finding.grade != Grade::kOk) {
      bad.push_back(std::move(finding));
    }
  }
  return bad;
}

TEST(Doctor, FindsNothingOnAGoodHost) {
  const std::vector<Finding> bad = NotOk(GoodHost());
  EXPECT_TRUE(bad.empty()) << bad.front().check << ": " << bad.front().seen;
}

struct Ailment {
  std::string name;
  std::function<void(HostFacts&)> strike;
  std::string check;
  Grade grade;
};

class Ailments : public testing::TestWithParam<Ailment> {};

TEST_P(Ailments, AreFoundAloneWithAdvice) {
  HostFacts facts = GoodHost();
  GetParam().strike(facts);
  const std::vector<Finding> bad = NotOk(facts);
  ASSERT_EQ(bad.size(), 1U);
  EXPECT_EQ(bad.front().check, GetParam().check);
  EXPECT_EQ(bad.front().grade, GetParam().grade);
  EXPECT_FALSE(bad.front().seen.empty());
  EXPECT_FALSE(bad.front().advice.empty());
  EXPECT_EQ(AnyFailed(bad), GetParam().grade == Grade::kFail);
}

std::string NameOfAilment(const testing::TestParamInfo<Ailment>& ailment) {
  return ailment.param.name;
}

using F = HostFacts;
INSTANTIATE_TEST_SUITE_P(
    Each,
    Ailments,
    testing::Values(
        Ailment{"OldKernel",
                [](F& f) {
                  f.kernel_major = 5;
                  f.kernel_minor = 4;
                },
                "kernel", Grade::kFail},
        Ailment{"LowMemlock", [](F& f) { f.own_memlock_bytes = 65536; }, "memlock", Grade::kWarn},
        Ailment{"LowMemlockOfDaemon", [](F& f) { f.daemon_memlock_bytes = 65536; }, "memlock",
                Grade::kWarn},
        Ailment{"FewDescriptors", [](F& f) { f.own_descriptors = 1024; }, "descriptors",
                Grade::kWarn},
        Ailment{"NoIoUring",
                [](F& f) {
                  f.io_uring_errno = EPERM;
                  f.io_uring_disabled = 2;
                },
                "io-uring", Grade::kWarn},
        Ailment{"NoPidfd", [](F& f) { f.pidfd = false; }, "pidfd", Grade::kFail},
        Ailment{"NoPeerPidfd", [](F& f) { f.peer_pidfd = false; }, "peer-pidfd", Grade::kWarn},
        Ailment{"NoSeals", [](F& f) { f.seal_future_write = false; }, "memfd-seals", Grade::kFail},
        Ailment{"NoSealsOnHugePages", [](F& f) { f.seal_future_write_huge = false; }, "memfd-seals",
                Grade::kWarn},
        Ailment{"SickGpuDriver",
                [](F& f) {
                  f.nvidia_device = true;
                  f.libcuda_detail = "no such file";
                },
                "gpu", Grade::kWarn},
        Ailment{
            "NoDirectIo",
            [](F& f) {
              f.direct_io = {{"/d", DirectIoFact::Result::kNoDirectIo, "EINVAL", "tmpfs", 1 << 30}};
            },
            "o-direct", Grade::kWarn},
        Ailment{
            "UnwritableData",
            [](F& f) {
              f.direct_io = {{"/d", DirectIoFact::Result::kNotWritable, "no such folder", "", 0}};
            },
            "o-direct", Grade::kFail},
        Ailment{"NoRuntime", [](F& f) { f.runtime_exists = false; }, "runtime", Grade::kWarn},
        Ailment{"RuntimeIsAFile", [](F& f) { f.runtime_is_dir = false; }, "runtime", Grade::kFail},
        Ailment{"RuntimeForEveryone", [](F& f) { f.runtime_mode = 0777; }, "runtime", Grade::kFail},
        Ailment{"RuntimeForTheGroup", [](F& f) { f.runtime_mode = 0770; }, "runtime", Grade::kWarn},
        Ailment{"OpenAdminSocket", [](F& f) { f.sockets[2].mode = 0660; }, "socket", Grade::kFail},
        Ailment{"OpenSessionSocket", [](F& f) { f.sockets[1].mode = 0666; }, "socket",
                Grade::kWarn},
        Ailment{"NoDaemon",
                [](F& f) {
                  f.daemon_version = "";
                  f.daemon_problem = "nobody";
                },
                "daemon", Grade::kWarn},
        Ailment{"OtherVersion", [](F& f) { f.daemon_version = "0.0.9"; }, "daemon", Grade::kWarn}),
    NameOfAilment);

INSTANTIATE_TEST_SUITE_P(
    OfDrives,
    Ailments,
    testing::Values(Ailment{"DriveAway",
                            [](F& f) {
                              f.drives[1] = {"/b", "away", "no such folder", "", 0};
                            },
                            "drive", Grade::kFail},
                    Ailment{"DriveFaulty",
                            [](F& f) {
                              f.drives[0] = {"/a", "faulty", "EIO", "", 0};
                            },
                            "drive", Grade::kFail},
                    Ailment{"DriveReadOnly", [](F& f) { f.drives[0].state = "read-only"; }, "drive",
                            Grade::kFail},
                    Ailment{"DriveNotDirect",
                            [](F& f) { f.drives[0].not_direct_because = "tmpfs"; }, "drive",
                            Grade::kWarn},
                    Ailment{"DriveOwesDeletions", [](F& f) { f.drives[1].pending_deletes = 3; },
                            "drive", Grade::kWarn}),
    NameOfAilment);

TEST(Doctor, WarnsOfBothKindsOfHugePagesWhenNeitherIsThere) {
  HostFacts facts = GoodHost();
  facts.huge_pages_total = facts.huge_pages_free = 0;
  facts.shmem_thp = "never";
  EXPECT_EQ(NotOk(facts).size(), 2U);
}

TEST(Doctor, AcceptsEitherKindOfHugePages) {
  HostFacts facts = GoodHost();
  facts.huge_pages_total = facts.huge_pages_free = 0;
  EXPECT_TRUE(NotOk(facts).empty()) << "advise";
  facts.shmem_thp = "never";
  facts.shmem_collapse = true;
  EXPECT_TRUE(NotOk(facts).empty()) << "collapse";
  facts = GoodHost();
  facts.shmem_thp = "never";
  EXPECT_TRUE(NotOk(facts).empty()) << "reserved";
}

TEST(Doctor, SaysHowSharedTiersAreWithoutALookAtTheMount) {
  const auto of = [](const PoolFact& pool) {
    HostFacts facts;
    facts.pools.push_back(pool);
    return Diagnose(facts).back();
  };
  EXPECT_EQ(of({"g4", "ready", "", 0, 0}).grade, Grade::kOk);
  EXPECT_EQ(of({"g4", "catching-up", "", 0, 0}).grade, Grade::kWarn);
  EXPECT_EQ(of({"g4", "ready", "", 2, 0}).grade, Grade::kWarn);
  EXPECT_EQ(of({"g4", "ready", "", 0, 1}).grade, Grade::kWarn);
  EXPECT_EQ(of({"g4", "foreign", "", 0, 0}).grade, Grade::kFail);
  const Finding suspended = of({"g4", "suspended", "the mount does not answer", 0, 0});
  EXPECT_EQ(suspended.grade, Grade::kFail);
  EXPECT_EQ(suspended.check, "shared-tier");
  EXPECT_EQ(suspended.seen, "g4: suspended; the mount does not answer");
}

TEST(Doctor, AcceptsAHugePagePoolThatTheDaemonTookUp) {
  HostFacts facts = GoodHost();
  facts.huge_pages_free = 0;
  EXPECT_TRUE(NotOk(facts).empty());
}

TEST(Doctor, PrintsGradeCheckAndAdviceAndCounts) {
  const std::vector<Finding> findings = {{"kernel", Grade::kOk, "6.8", ""},
                                         {"pidfd", Grade::kFail, "no\x1b", "do this"}};
  EXPECT_EQ(DoctorText(findings, Style(Style::Colour::kNever)),
            "OK    kernel  6.8\n"
            "FAIL  pidfd   no?\n"
            "              do this\n"
            "1 ok, 0 warnings, 1 failed\n");
  const Json json = DoctorJson(findings);
  EXPECT_EQ(json["ok"], false);
  EXPECT_EQ(json["findings"][1]["grade"], "fail");
}

TEST(HostFacts, AreReadFromTheFormatsOfTheKernel) {
  EXPECT_EQ(ChosenWord("always within_size [advise] never deny force\n"), "advise");
  EXPECT_EQ(ChosenWord("no brackets"), "");
  EXPECT_EQ(ChosenWord("] ["), "");
  constexpr const char* kMeminfo =
      "MemTotal:       24640000 kB\nHugePages_Total:      12\nHugePages_Free:        5\n";
  EXPECT_EQ(MeminfoNumber(kMeminfo, "HugePages_Free"), 5U);
  EXPECT_EQ(MeminfoNumber(kMeminfo, "MemTotal"), 24640000U);
  EXPECT_EQ(MeminfoNumber(kMeminfo, "Mem"), 0U);
  constexpr const char* kLimits =
      "Limit                     Soft Limit           Hard Limit           Units\n"
      "Max open files            1024                 524288               files\n"
      "Max locked memory         unlimited            unlimited            bytes\n";
  EXPECT_EQ(SoftLimit(kLimits, "Max open files"), 1024U);
  EXPECT_EQ(SoftLimit(kLimits, "Max locked memory"), kUnlimited);
  EXPECT_EQ(SoftLimit(kLimits, "Max nothing"), std::nullopt);
}

TEST(HostFacts, OfThisHostCanBeGathered) {
  const HostFacts facts = GatherHostFacts(testing::TempDir(), {});
  EXPECT_GE(facts.kernel_major, 5);
  EXPECT_GT(facts.memory_bytes, facts.memory_available_bytes);
  EXPECT_TRUE(facts.runtime_is_dir);
  EXPECT_GT(facts.own_descriptors, 0U);
  EXPECT_FALSE(facts.grpc_version.empty());
  EXPECT_TRUE(facts.seal_future_write);
  EXPECT_TRUE(facts.pidfd);
}

TEST(HostFacts, LimitsOfThisProcessCanBeRead) {
  uint64_t memlock = 0;
  uint64_t descriptors = 0;
  ASSERT_TRUE(ReadLimits(getpid(), &memlock, &descriptors));
  EXPECT_EQ(descriptors, GatherHostFacts("/", {}).own_descriptors);
}

TEST(TryDirectIo, WritesToARealFolderAndLeavesNothing) {
  const std::string dir = testing::TempDir();
  const DirectIoFact fact = TryDirectIo(dir);
  EXPECT_NE(fact.result, DirectIoFact::Result::kNotWritable) << fact.detail;
  EXPECT_FALSE(fact.file_system.empty());
}

TEST(TryDirectIo, SaysWhyAFolderCannotBeWritten) {
  const DirectIoFact missing = TryDirectIo("/nonexistent/folder");
  EXPECT_EQ(missing.result, DirectIoFact::Result::kNotWritable);
  EXPECT_EQ(missing.detail, "No such file or directory");
  EXPECT_EQ(TryDirectIo("/proc").result, DirectIoFact::Result::kNotWritable);
}

}  // namespace
}  // namespace terrace::ctl
