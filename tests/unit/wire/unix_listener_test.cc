#include "daemon/wire/unix_listener.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>

#include <gtest/gtest.h>
#include <stdlib.h>

#include "tests/doubles/in_child.h"

namespace terrace {
namespace {

class UnixListenerTest : public ::testing::Test {
 protected:
  UnixListenerTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "terrace-listen-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
  }
  ~UnixListenerTest() override { std::filesystem::remove_all(folder_); }

  std::string Path() const { return folder_ + "/s.sock"; }
  static mode_t ModeOf(const std::string& path) {
    struct stat found {};
    return stat(path.c_str(), &found) == 0 ? found.st_mode & mode_t{07777} : 0;
  }
  static bool CanConnect(const std::string& path) {
    const Descriptor client(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.data(), path.size());
    return connect(client.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
  }

  std::string folder_;
};

TEST_F(UnixListenerTest, TheModeIsExactlyAsAskedUnderEveryUmask) {
  for (const mode_t mask : {mode_t{0}, mode_t{022}, mode_t{077}}) {
    for (const mode_t mode : {mode_t{0600}, mode_t{0660}}) {
      const mode_t before = umask(mask);
      absl::StatusOr<UnixListener> listener = UnixListener::Listen({Path(), mode});
      umask(before);
      ASSERT_TRUE(listener.ok()) << listener.status();
      EXPECT_EQ(ModeOf(Path()), mode);
    }
  }
}

TEST_F(UnixListenerTest, AModeForOthersIsRefused) {
  EXPECT_TRUE(absl::IsInvalidArgument(UnixListener::Listen({Path(), 0666}).status()));
  EXPECT_FALSE(std::filesystem::exists(Path()));
}

TEST_F(UnixListenerTest, APathThatIsTooLongIsRefused) {
  EXPECT_TRUE(absl::IsInvalidArgument(
      UnixListener::Listen({folder_ + "/" + std::string(108, 'x')}).status()));
}

TEST_F(UnixListenerTest, ASocketThatAnswersIsLeftAlone) {
  absl::StatusOr<UnixListener> first = UnixListener::Listen({Path()});
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_TRUE(absl::IsAlreadyExists(UnixListener::Listen({Path()}).status()));
  EXPECT_TRUE(CanConnect(Path()));
}

TEST_F(UnixListenerTest, AStaleSocketIsReplaced) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, Path().data(), Path().size());
  {
    const Descriptor dead(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(bind(dead.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  }
  ASSERT_TRUE(std::filesystem::exists(Path()));
  absl::StatusOr<UnixListener> listener = UnixListener::Listen({Path()});
  ASSERT_TRUE(listener.ok()) << listener.status();
  EXPECT_TRUE(CanConnect(Path()));
}

TEST_F(UnixListenerTest, WhatIsNoSocketIsNeverRemoved) {
  std::ofstream(Path()) << "precious";
  EXPECT_TRUE(absl::IsFailedPrecondition(UnixListener::Listen({Path()}).status()));
  EXPECT_TRUE(std::filesystem::is_regular_file(Path()));
}

TEST_F(UnixListenerTest, ClosingRemovesOnlyTheOwnFile) {
  absl::StatusOr<UnixListener> listener = UnixListener::Listen({Path()});
  ASSERT_TRUE(listener.ok());
  listener->Close();
  EXPECT_FALSE(std::filesystem::exists(Path()));
  listener = UnixListener::Listen({Path()});
  ASSERT_TRUE(listener.ok());
  std::filesystem::remove(Path());
  std::ofstream(Path()) << "somebody else's";
  listener->Close();
  EXPECT_TRUE(std::filesystem::exists(Path()));
}

TEST_F(UnixListenerTest, AFolderThatMayNotBeWrittenIsSaidToBeOne) {
  ASSERT_EQ(chmod(folder_.c_str(), 0500), 0);
  const int code = InPlainChild(
      [this] { return static_cast<int>(UnixListener::Listen({Path()}).status().code()); });
  EXPECT_EQ(code, static_cast<int>(absl::StatusCode::kPermissionDenied));
  EXPECT_EQ(chmod(folder_.c_str(), 0700), 0);
}

TEST_F(UnixListenerTest, AcceptSaysThatDescriptorsRanOut) {
  const absl::StatusOr<UnixListener> listener = UnixListener::Listen({Path()});
  ASSERT_TRUE(listener.ok()) << listener.status();
  const int code = InChild([&listener] {
    const rlimit none{0, 0};
    setrlimit(RLIMIT_NOFILE, &none);
    return static_cast<int>(listener->Accept().status().code());
  });
  EXPECT_EQ(code, static_cast<int>(absl::StatusCode::kResourceExhausted));
}

TEST_F(UnixListenerTest, CredentialsAreThoseOfThePeer) {
  int ends[2] = {-1, -1};
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  const Descriptor left(ends[0]);
  const Descriptor right(ends[1]);
  const absl::StatusOr<PeerCredentials> peer = CredentialsOf(left.get());
  ASSERT_TRUE(peer.ok());
  EXPECT_EQ(peer->uid, getuid());
  EXPECT_EQ(peer->pid, getpid());
}

}  // namespace
}  // namespace terrace
