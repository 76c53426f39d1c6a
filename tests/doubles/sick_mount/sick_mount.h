// A file system that is as sick as a test says: a folder, seen through a mount whose operations
// hang, wait, fail or lie. For tests of what stands on shared mounts.
//
// The mount is FUSE, by a process of its own (sick_mount_server), so that a test that is stuck in
// it can still be ended. It goes with this object, and with the test's process however that ends.
// No thread of a test that has told operations to hang may touch the mount itself: that is for
// processes that may hang.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "tests/doubles/private_folder.h"
#include "tests/doubles/sick_mount/sick_operations.h"
#include "tiers/os/descriptor.h"

namespace terrace::doubles {

// Confined to the test's thread.
class SickMount {
 public:
  // Healthy. UNAVAILABLE: there is no FUSE here, and why; a test is skipped then.
  static absl::StatusOr<std::unique_ptr<SickMount>> Mount();
  SickMount(const SickMount&) = delete;
  SickMount& operator=(const SickMount&) = delete;
  ~SickMount();

  [[nodiscard]] const std::string& path() const { return point_; }
  // The same files, reached without the mount: for other nodes' doings, and to look at what is
  // there.
  [[nodiscard]] const std::string& backing() const { return backing_; }

  // Until Heal, or another word about the same operation.
  void Hang(SickOp op);
  void Delay(SickOp op, absl::Duration by);
  void Fail(SickOp op, int error);
  // Reads move at most so many bytes at a time.
  void ShortenReads(uint64_t bytes);
  // All of them; what hangs goes on.
  void Heal();

  // Sizes, names and absences are those of now, but for what is done through the mount, until Thaw:
  // as with the attribute caches of NFS. What is opened is what is there.
  void Freeze();
  void Thaw();

  [[nodiscard]] uint64_t calls(SickOp op);  // that have come, of all time
  [[nodiscard]] uint64_t hanging();         // now

  // The file system is gone: under its path lies the empty folder that it was mounted on.
  void Unmount();
  absl::Status Remount();

 private:
  SickMount() = default;
  absl::Status StartServer();
  uint64_t Say(const std::string& command);

  PrivateFolder private_;
  const std::string backing_ = private_.path() + "/backing";
  const std::string point_ = private_.path() + "/mount";
  Descriptor control_;
  pid_t server_ = 0;
};

}  // namespace terrace::doubles
