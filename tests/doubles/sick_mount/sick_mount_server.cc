// The server of a sick mount: shows a folder through FUSE, and does what it is told on a socket.
// usage: sick_mount_server BACKING MOUNTPOINT, with the socket as descriptor 3. It ends, and its
// mount with it, when the socket is closed.
#define FUSE_USE_VERSION 312

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <string>
#include <thread>

#include <dirent.h>
#include <fuse.h>

#include "tests/doubles/sick_mount/sickness.h"

namespace terrace::doubles {
namespace {

constexpr int kControl = 3;
// Operations that hang hold a thread each.
constexpr unsigned kMaxThreads = 1024;

// FUSE calls functions, and knows nothing of objects.
std::string backing;
Sickness* sickness = nullptr;

std::string Behind(const char* path) {
  return backing + path;
}

int Result(int returned) {
  return returned < 0 ? -errno : 0;
}

// A file that has no name any more comes without a path.
void NoteChange(const char* path) {
  if (path != nullptr) {
    sickness->Changed(path);
  }
}

int Changing(int returned, const char* path) {
  const int result = Result(returned);
  NoteChange(path);
  return result;
}

int GetAttributes(const char* path, struct stat* status, fuse_file_info* file) {
  if (const int sick = sickness->Gate(SickOp::kStat); sick != 0) {
    return sick;
  }
  const Sickness::Claim claim =
      path == nullptr ? Sickness::Claim::kTruth : sickness->ClaimOf(path, status);
  if (claim != Sickness::Claim::kTruth) {
    return claim == Sickness::Claim::kThere ? 0 : -ENOENT;
  }
  return Result(file != nullptr ? fstat(static_cast<int>(file->fh), status)
                                : lstat(Behind(path).c_str(), status));
}

int OpenFlags(int flags) {
  return (flags & ~(O_DIRECT | O_CREAT | O_EXCL)) | O_CLOEXEC | O_NOFOLLOW;
}

int Open(const char* path, fuse_file_info* file) {
  if (const int sick = sickness->Gate(SickOp::kOpen); sick != 0) {
    return sick;
  }
  if ((file->flags & O_DIRECT) != 0) {
    if (const int sick = sickness->Gate(SickOp::kOpenDirect); sick != 0) {
      return sick;
    }
  }
  const int fd = open(Behind(path).c_str(), OpenFlags(file->flags));
  file->fh = static_cast<uint64_t>(fd);
  return Result(fd);
}

int Create(const char* path, mode_t mode, fuse_file_info* file) {
  if (const int sick = sickness->Gate(SickOp::kCreate); sick != 0) {
    return sick;
  }
  const int fd =
      open(Behind(path).c_str(), OpenFlags(file->flags) | O_CREAT | (file->flags & O_EXCL), mode);
  file->fh = static_cast<uint64_t>(fd);
  return Changing(fd, path);
}

int Read(const char* /*path*/, char* out, size_t bytes, off_t offset, fuse_file_info* file) {
  if (const int sick = sickness->Gate(SickOp::kRead); sick != 0) {
    return sick;
  }
  const ssize_t got = pread(static_cast<int>(file->fh), out, sickness->ReadAtMost(bytes), offset);
  return got < 0 ? -errno : static_cast<int>(got);
}

int Write(const char* path, const char* bytes, size_t count, off_t offset, fuse_file_info* file) {
  if (const int sick = sickness->Gate(SickOp::kWrite); sick != 0) {
    return sick;
  }
  const ssize_t taken = pwrite(static_cast<int>(file->fh), bytes, count, offset);
  const int error = errno;
  NoteChange(path);
  return taken < 0 ? -error : static_cast<int>(taken);
}

int Sync(const char* /*path*/, int only_bytes, fuse_file_info* file) {
  if (const int sick = sickness->Gate(SickOp::kFsync); sick != 0) {
    return sick;
  }
  const int fd = static_cast<int>(file->fh);
  return Result(only_bytes != 0 ? fdatasync(fd) : fsync(fd));
}

int Flush(const char* /*path*/, fuse_file_info* /*file*/) {
  return sickness->Gate(SickOp::kClose);
}

int Release(const char* /*path*/, fuse_file_info* file) {
  const int sick = sickness->Gate(SickOp::kRelease);
  close(static_cast<int>(file->fh));
  return sick;
}

int ReadFolder(const char* path,
               void* out,
               fuse_fill_dir_t fill,
               off_t /*offset*/,
               fuse_file_info* /*file*/,
               fuse_readdir_flags /*flags*/) {
  if (const int sick = sickness->Gate(SickOp::kReaddir); sick != 0) {
    return sick;
  }
  if (const auto claimed = sickness->ClaimedNames(path)) {
    for (const std::string& name : *claimed) {
      fill(out, name.c_str(), nullptr, 0, static_cast<fuse_fill_dir_flags>(0));
    }
    return 0;
  }
  DIR* const folder = opendir(Behind(path).c_str());
  if (folder == nullptr) {
    return -errno;
  }
  while (const dirent* entry = readdir(folder)) {
    struct stat status {};
    status.st_ino = entry->d_ino;
    status.st_mode = DTTOIF(entry->d_type);
    fill(out, entry->d_name, &status, 0, static_cast<fuse_fill_dir_flags>(0));
  }
  closedir(folder);
  return 0;
}

int MakeFolder(const char* path, mode_t mode) {
  const int sick = sickness->Gate(SickOp::kMkdir);
  return sick != 0 ? sick : Changing(mkdir(Behind(path).c_str(), mode), path);
}

int Unlink(const char* path) {
  const int sick = sickness->Gate(SickOp::kUnlink);
  return sick != 0 ? sick : Changing(unlink(Behind(path).c_str()), path);
}

int RemoveFolder(const char* path) {
  const int sick = sickness->Gate(SickOp::kUnlink);
  return sick != 0 ? sick : Changing(rmdir(Behind(path).c_str()), path);
}

int Rename(const char* from, const char* to, unsigned flags) {
  const SickOp op = flags == 0 ? SickOp::kRename : SickOp::kRenameAnew;
  if (const int sick = sickness->Gate(op); sick != 0) {
    return sick;
  }
  const int result =
      Changing(renameat2(AT_FDCWD, Behind(from).c_str(), AT_FDCWD, Behind(to).c_str(), flags), to);
  sickness->Changed(from);
  return result;
}

int Link(const char* from, const char* to) {
  return Changing(link(Behind(from).c_str(), Behind(to).c_str()), to);
}

int Truncate(const char* path, off_t bytes, fuse_file_info* file) {
  return Changing(file != nullptr ? ftruncate(static_cast<int>(file->fh), bytes)
                                  : truncate(Behind(path).c_str(), bytes),
                  path);
}

int Allocate(const char* path, int mode, off_t offset, off_t bytes, fuse_file_info* file) {
  const int sick = sickness->Gate(SickOp::kAllocate);
  return sick != 0 ? sick
                   : Changing(fallocate(static_cast<int>(file->fh), mode, offset, bytes), path);
}

int SyncFolder(const char* path, int /*only_bytes*/, fuse_file_info* /*file*/) {
  if (const int sick = sickness->Gate(SickOp::kFsync); sick != 0) {
    return sick;
  }
  const int fd = open(Behind(path).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const int result = fd < 0 ? -errno : Result(fsync(fd));
  if (fd >= 0) {
    close(fd);
  }
  return result;
}

int Space(const char* path, struct statvfs* status) {
  const int sick = sickness->Gate(SickOp::kStatfs);
  return sick != 0 ? sick : Result(statvfs(Behind(path).c_str(), status));
}

// Nothing is remembered by the kernel: what is told is asked for each time.
void* Begin(fuse_conn_info* /*connection*/, fuse_config* config) {
  config->use_ino = 1;
  config->entry_timeout = 0;
  config->attr_timeout = 0;
  config->negative_timeout = 0;
  config->nullpath_ok = 0;
  config->hard_remove = 1;
  send(kControl, "0", 1, MSG_NOSIGNAL);
  return nullptr;
}

fuse_operations Operations() {
  fuse_operations operations = {};
  operations.getattr = GetAttributes;
  operations.mkdir = MakeFolder;
  operations.unlink = Unlink;
  operations.rmdir = RemoveFolder;
  operations.rename = Rename;
  operations.link = Link;
  operations.truncate = Truncate;
  operations.open = Open;
  operations.read = Read;
  operations.write = Write;
  operations.statfs = Space;
  operations.flush = Flush;
  operations.release = Release;
  operations.fsync = Sync;
  operations.readdir = ReadFolder;
  operations.fsyncdir = SyncFolder;
  operations.init = Begin;
  operations.create = Create;
  operations.fallocate = Allocate;
  return operations;
}

[[noreturn]] void EndMount(const std::string& point) {
  if (umount2(point.c_str(), MNT_DETACH) != 0) {
    // Whoever is not root asks the program that is.
    execlp("fusermount3", "fusermount3", "-u", "-z", "-q", point.c_str(), nullptr);
  }
  _exit(0);
}

// The end of whoever gives commands is the end of the mount, whatever hangs in it.
void ObeyUntilTheEnd(const std::string& point) {
  char command[256];
  for (;;) {
    const ssize_t got = recv(kControl, command, sizeof(command), 0);
    if (got <= 0) {
      break;
    }
    const std::optional<uint64_t> answer =
        sickness->Command(std::string(command, static_cast<size_t>(got)));
    const std::string text = answer.has_value() ? std::to_string(*answer) : "what?";
    send(kControl, text.data(), text.size(), MSG_NOSIGNAL);
  }
  EndMount(point);
}

// `arguments`: of libfuse, after the program's name.
int Run(const std::vector<char*>& arguments, const std::string& point) {
  fuse_args args = {};
  for (const char* argument : arguments) {
    fuse_opt_add_arg(&args, argument);
  }
  const fuse_operations operations = Operations();
  fuse* const mounted = fuse_new(&args, &operations, sizeof(operations), nullptr);
  if (mounted == nullptr || fuse_mount(mounted, point.c_str()) != 0) {
    return 1;
  }
  std::thread(ObeyUntilTheEnd, point).detach();
  fuse_loop_config* const config = fuse_loop_cfg_create();
  fuse_loop_cfg_set_max_threads(config, kMaxThreads);
  fuse_loop_cfg_set_idle_threads(config, kMaxThreads);
  fuse_loop_mt(mounted, config);
  EndMount(point);
}

}  // namespace
}  // namespace terrace::doubles

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fputs("usage: sick_mount_server BACKING MOUNTPOINT [OPTION OF FUSE...], by a test\n",
               stderr);
    return 2;
  }
  signal(SIGINT, SIG_IGN);
  umask(0);
  terrace::doubles::backing = argv[1];
  terrace::doubles::Sickness told(argv[1]);
  terrace::doubles::sickness = &told;
  std::vector<char*> arguments(argv + 3, argv + argc);
  arguments.insert(arguments.begin(), argv[0]);
  return terrace::doubles::Run(arguments, argv[2]);
}
