#include "tools/ctl/connection.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include <grpc/grpc.h>
#include <grpcpp/create_channel_posix.h>

#include "tiers/os/descriptor.h"
#include "tools/ctl/format.h"

namespace terrace::ctl {
namespace {

constexpr int kMaxMessageBytes =
    8 << 20;  // over the contract's 4 MiB, so that the server's limit is what is met
constexpr size_t kChunkBytes = size_t{1} << 20;
constexpr absl::Duration kStreamTimeout = absl::Seconds(60);

absl::Status ConnectError(const std::string& path, int error) {
  switch (error) {
    case ECONNREFUSED:
      return absl::UnavailableError(absl::StrCat("no daemon answers at ", path,
                                                 ": connection refused; is terraced running?"));
    case ENOENT:
    case ENOTDIR:
      return absl::UnavailableError(
          absl::StrCat("no daemon answers at ", path,
                       ": no such socket; is terraced running, and is this its --runtime?"));
    case EACCES:
    case EPERM:
      return absl::PermissionDeniedError(
          absl::StrCat("no access to ", path,
                       ": permission denied; admin.sock is for root and the daemon's own user, "
                       "terrace.sock for its "
                       "group"));
    case EAGAIN:
      return absl::ResourceExhaustedError(absl::StrCat(
          "the daemon at ", path, " does not accept: its queue of connections is full"));
    default:
      return absl::UnavailableError(
          absl::StrCat("no daemon answers at ", path, ": ", std::strerror(error)));
  }
}

}  // namespace

absl::StatusOr<Connected> ConnectTo(const std::string& path) {
  // For the life of the process: where much has been written, the library's own end waits up to ten
  // seconds for a poller of its own.
  static const bool kForGood = (grpc_init(), true);
  static_cast<void>(kForGood);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) {
    return absl::InvalidArgumentError(absl::StrCat("socket path of ", path.size(),
                                                   " characters; the limit is ",
                                                   sizeof(address.sun_path) - 1));
  }
  std::copy(path.begin(), path.end(), static_cast<char*>(address.sun_path));
  Descriptor fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) {
    return ConnectError(path, errno);
  }
  // A Unix socket connects at once or not at all, also when it does not block.
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return ConnectError(path, errno);
  }
  Connected connected;
  ucred peer{};
  socklen_t peer_bytes = sizeof(peer);
  if (getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &peer, &peer_bytes) == 0) {
    connected.daemon_pid = peer.pid;
  }
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  arguments.SetMaxSendMessageSize(kMaxMessageBytes);
  connected.channel = grpc::CreateCustomInsecureChannelFromFd("localhost", fd.Release(), arguments);
  return connected;
}

absl::Status ExplainGrpc(const grpc::Status& status,
                         absl::string_view path,
                         absl::Duration timeout) {
  if (status.ok()) {
    return absl::OkStatus();
  }
  const std::string text = Printable(status.error_message());
  switch (status.error_code()) {
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return absl::DeadlineExceededError(
          absl::StrCat("the daemon at ", path, " did not answer within ", FormatElapsed(timeout)));
    case grpc::StatusCode::UNAVAILABLE:
      return absl::UnavailableError(absl::StrCat("the daemon at ", path, " ended the connection (",
                                                 text,
                                                 "); it may be stopping, or not know this user"));
    case grpc::StatusCode::UNIMPLEMENTED:
      return absl::UnimplementedError(text.empty() ? "the daemon does not implement the call"
                                                   : text);
    default:
      return absl::Status(
          static_cast<absl::StatusCode>(status.error_code()),
          text.empty() ? absl::StrCat("the daemon gave no reason (code ", status.error_code(), ")")
                       : text);
  }
}

absl::Status Connection::ConnectAdmin() {
  if (admin_ == nullptr) {
    absl::StatusOr<Connected> connected = ConnectTo(admin_path());
    if (!connected.ok()) {
      return connected.status();
    }
    daemon_pid_ = connected->daemon_pid;
    admin_ = v1::Admin::NewStub(connected->channel);
  }
  return absl::OkStatus();
}

absl::Status Connection::ConnectCache() {
  if (cache_ == nullptr) {
    absl::StatusOr<Connected> connected = ConnectTo(cache_path());
    if (!connected.ok()) {
      return connected.status();
    }
    cache_ = v1::Cache::NewStub(connected->channel);
  }
  return absl::OkStatus();
}

void Connection::Forget() {
  admin_.reset();
  cache_.reset();
  daemon_pid_ = 0;
}

absl::Status Connection::Wait(
    const std::string& path,
    absl::string_view what,
    absl::Duration usual,
    const std::function<void(grpc::ClientContext*, std::function<void(grpc::Status)>)>& start) {
  const absl::Duration timeout = TimeoutOr(usual);
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
  absl::Notification finished;
  grpc::Status result;
  start(&context, [&](grpc::Status status) {
    result = std::move(status);
    finished.Notify();
  });
  const absl::Time began = absl::Now();
  bool shown = false;
  while (!finished.WaitForNotificationWithTimeout(absl::Seconds(1))) {
    if (terminal_.err_kind == Terminal::Kind::kTerminal) {
      terminal_.err << "\r" << what << ": "
                    << FormatElapsed(absl::Trunc(absl::Now() - began, absl::Seconds(1))) << "\x1b[K"
                    << std::flush;
      shown = true;
    }
  }
  if (shown) {
    terminal_.err << "\r\x1b[K" << std::flush;
  }
  return ExplainGrpc(result, path, timeout);
}

absl::StatusOr<v1::PutReply> Connection::PutStream(const v1::PutRequest& request,
                                                   absl::string_view payload) {
  if (absl::Status status = ConnectCache(); !status.ok()) {
    return status;
  }
  grpc::ClientContext context;
  const absl::Duration timeout = TimeoutOr(kStreamTimeout);
  context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
  v1::PutReply reply;
  const std::unique_ptr<grpc::ClientWriter<v1::PutStreamRequest>> writer =
      cache_->PutStream(&context, &reply);
  v1::PutStreamRequest message;
  *message.mutable_request() = request;
  bool open = writer->Write(message);
  message.Clear();
  for (size_t at = 0; open && at < payload.size(); at += kChunkBytes) {
    const absl::string_view chunk = payload.substr(at, kChunkBytes);
    message.set_chunk(chunk.data(), chunk.size());
    open = writer->Write(message);
  }
  writer->WritesDone();  // a stream that the server has ended tells why in Finish
  absl::Status status = ExplainGrpc(writer->Finish(), cache_path(), timeout);
  if (!status.ok()) {
    return status;
  }
  return reply;
}

absl::StatusOr<v1::GetReply> Connection::GetStream(
    const v1::GetRequest& request,
    absl::Duration usual,
    const std::function<absl::Status(const std::string&)>& chunk) {
  if (absl::Status status = ConnectCache(); !status.ok()) {
    return status;
  }
  grpc::ClientContext context;
  const absl::Duration timeout = TimeoutOr(std::max(usual, kStreamTimeout));
  context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
  const std::unique_ptr<grpc::ClientReader<v1::GetStreamReply>> reader =
      cache_->GetStream(&context, request);
  v1::GetStreamReply message;
  v1::GetReply header;
  absl::Status written;
  while (reader->Read(&message)) {
    if (message.has_header()) {
      header = message.header();
    }
    if (written.ok() && !message.chunk().empty()) {
      written = chunk(message.chunk());
      if (!written.ok()) {
        context.TryCancel();
      }
    }
    message.Clear();
  }
  absl::Status status = ExplainGrpc(reader->Finish(), cache_path(), timeout);
  if (!written.ok()) {
    return written;
  }
  if (!status.ok()) {
    return status;
  }
  return header;
}

absl::Status Connection::Watch(const v1::WatchRequest& request,
                               const std::function<Enough(const v1::WatchReply&)>& message) {
  if (absl::Status status = ConnectCache(); !status.ok()) {
    return status;
  }
  grpc::ClientContext context;
  const absl::Duration timeout = TimeoutOr(kUsualTimeout);
  std::atomic<int64_t> heard_at = absl::ToUnixMillis(absl::Now());
  std::atomic<bool> given_up = false;
  absl::Notification over;
  // A read has no deadline of its own, and the whole watch must not have one.
  std::thread guard([&] {
    while (!over.WaitForNotificationWithTimeout(absl::Milliseconds(50))) {
      if (absl::ToUnixMillis(absl::Now()) - heard_at > absl::ToInt64Milliseconds(timeout)) {
        given_up = true;
        context.TryCancel();
        return;
      }
    }
  });
  const std::unique_ptr<grpc::ClientReader<v1::WatchReply>> reader =
      cache_->Watch(&context, request);
  v1::WatchReply next;
  Enough enough = Enough::kNo;
  while (enough == Enough::kNo && reader->Read(&next)) {
    heard_at = absl::ToUnixMillis(absl::Now());
    enough = message(next);
    next.Clear();
  }
  over.Notify();
  guard.join();
  if (enough == Enough::kYes) {
    context.TryCancel();
  }
  const grpc::Status status = reader->Finish();
  if (enough == Enough::kYes) {
    return absl::OkStatus();
  }
  return ExplainGrpc(given_up ? grpc::Status(grpc::StatusCode::DEADLINE_EXCEEDED, "") : status,
                     cache_path(), timeout);
}

}  // namespace terrace::ctl
