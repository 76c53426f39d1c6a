// The daemon's two gRPC sockets. The socket is connected here and handed to gRPC, so that a missing
// or unreachable daemon is told apart with the kernel's own words, and so that the daemon's process
// is known.
//
// Threads: confined to the main thread; calls run on gRPC's threads and are waited for here.
// Limits: every call has a deadline; one that a hung daemon does not answer ends with
// DEADLINE_EXCEEDED.
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "terrace/v1/admin.grpc.pb.h"
#include "terrace/v1/cache.grpc.pb.h"
#include <grpcpp/grpcpp.h>

#include "tools/ctl/terminal.h"

namespace terrace::ctl {

// A connected Unix stream socket and who listens on it.
struct Connected {
  std::shared_ptr<grpc::Channel> channel;
  pid_t daemon_pid = 0;  // 0: not visible from this pid namespace
};
// UNAVAILABLE (nobody answers), PERMISSION_DENIED, RESOURCE_EXHAUSTED; the message names the path,
// the reason and what to do.
absl::StatusOr<Connected> ConnectTo(const std::string& path);

// The status of a call as the operator should read it: the server's text where there is one.
absl::Status ExplainGrpc(const grpc::Status& status,
                         absl::string_view path,
                         absl::Duration timeout);

class Connection {
 public:
  // `terminal` is borrowed: progress goes to its `err` when that is a terminal. `timeout` as given
  // by --timeout.
  Connection(std::string runtime_dir, std::optional<absl::Duration> timeout, Terminal& terminal)
      : runtime_dir_(std::move(runtime_dir)), timeout_(timeout), terminal_(terminal) {}

  // Calls `Method` of the service and waits. The first call connects. `what` names the work for the
  // progress line, which appears after a second; `usual` is the deadline without --timeout.
  template <typename Request, typename Reply>
  using AdminMethod = void (v1::Admin::StubInterface::async_interface::*)(
      grpc::ClientContext*, const Request*, Reply*, std::function<void(grpc::Status)>);
  template <typename Request, typename Reply>
  using CacheMethod = void (v1::Cache::StubInterface::async_interface::*)(
      grpc::ClientContext*, const Request*, Reply*, std::function<void(grpc::Status)>);
  template <typename Request, typename Reply>
  absl::StatusOr<Reply> Admin(AdminMethod<Request, Reply> method,
                              const Request& request,
                              absl::string_view what,
                              absl::Duration usual = kUsualTimeout) {
    if (absl::Status status = ConnectAdmin(); !status.ok()) {
      return status;
    }
    Reply reply;
    absl::Status status =
        Wait(admin_path(), what, usual, [&](grpc::ClientContext* context, auto done) {
          (admin_->async()->*method)(context, &request, &reply, std::move(done));
        });
    if (!status.ok()) {
      return status;
    }
    return reply;
  }
  template <typename Request, typename Reply>
  absl::StatusOr<Reply> Cache(CacheMethod<Request, Reply> method,
                              const Request& request,
                              absl::string_view what,
                              absl::Duration usual = kUsualTimeout) {
    if (absl::Status status = ConnectCache(); !status.ok()) {
      return status;
    }
    Reply reply;
    absl::Status status =
        Wait(cache_path(), what, usual, [&](grpc::ClientContext* context, auto done) {
          (cache_->async()->*method)(context, &request, &reply, std::move(done));
        });
    if (!status.ok()) {
      return status;
    }
    return reply;
  }

  // One put with inline payload of any size, in chunks; `payload` may be read until this returns.
  absl::StatusOr<v1::PutReply> PutStream(const v1::PutRequest& request, absl::string_view payload);
  // One get of any size; `chunk` gets the payload in order. The header comes back.
  absl::StatusOr<v1::GetReply> GetStream(
      const v1::GetRequest& request,
      absl::Duration usual,
      const std::function<absl::Status(const std::string&)>& chunk);
  // One Watch, until `message` says that it is enough (OK) or the daemon ends it. DEADLINE_EXCEEDED
  // when nothing comes for the timeout; heartbeats come more often.
  enum class Enough : uint8_t { kNo, kYes };
  absl::Status Watch(const v1::WatchRequest& request,
                     const std::function<Enough(const v1::WatchReply&)>& message);

  [[nodiscard]] std::string admin_path() const { return runtime_dir_ + "/admin.sock"; }
  [[nodiscard]] std::string cache_path() const { return runtime_dir_ + "/terrace.sock"; }
  [[nodiscard]] const std::string& runtime_dir() const { return runtime_dir_; }
  // Of the admin socket's listener; 0 before the first call to Admin.
  [[nodiscard]] pid_t daemon_pid() const { return daemon_pid_; }
  // The next call connects anew.
  void Forget();

  static constexpr absl::Duration kUsualTimeout = absl::Seconds(10);

 private:
  absl::Status ConnectAdmin();
  absl::Status ConnectCache();
  [[nodiscard]] absl::Duration TimeoutOr(absl::Duration usual) const {
    return timeout_.value_or(usual);
  }
  // Runs `start` with a context that carries the deadline and waits for its `done`, with progress.
  absl::Status Wait(
      const std::string& path,
      absl::string_view what,
      absl::Duration usual,
      const std::function<void(grpc::ClientContext*, std::function<void(grpc::Status)>)>& start);

  std::string runtime_dir_;
  std::optional<absl::Duration> timeout_;
  Terminal& terminal_;
  std::unique_ptr<v1::Admin::Stub> admin_;
  std::unique_ptr<v1::Cache::Stub> cache_;
  pid_t daemon_pid_ = 0;
};

}  // namespace terrace::ctl
