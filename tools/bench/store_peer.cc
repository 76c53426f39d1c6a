#include "tools/bench/store_peer.h"

#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <thread>
#include <utility>

#include "tiers/os/descriptor.h"
#include "tools/bench/child_process.h"
#include "tools/bench/progress.h"

namespace terrace::bench {
namespace {

constexpr std::chrono::seconds kStartLimit{20};
constexpr size_t kMaxLine = 512;

// A stream of lines and payloads.
class PeerConnection {
 public:
  // Waits until the server listens.
  absl::Status Connect(const std::string& path, ChildProcess& server) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof(address.sun_path)) {
      return absl::InvalidArgumentError(path + ": too long for a socket");
    }
    std::memcpy(address.sun_path, path.data(), path.size());
    const auto until = std::chrono::steady_clock::now() + kStartLimit;
    for (;;) {
      fd_ = Descriptor(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
      if (connect(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0) {
        return absl::OkStatus();
      }
      if (Interrupted() || !server.Running() || std::chrono::steady_clock::now() > until) {
        return absl::UnavailableError(path + ": " + std::strerror(errno));
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  }

  absl::Status Send(std::string_view head, absl::Span<const char> payload, std::string_view tail) {
    std::array<iovec, 3> pieces{iovec{const_cast<char*>(head.data()), head.size()},
                                iovec{const_cast<char*>(payload.data()), payload.size()},
                                iovec{const_cast<char*>(tail.data()), tail.size()}};
    size_t at = 0;
    while (at < pieces.size()) {
      const ssize_t sent = writev(fd_.get(), &pieces[at], static_cast<int>(pieces.size() - at));
      if (sent < 0) {
        return absl::UnavailableError(std::string("write: ") + std::strerror(errno));
      }
      auto left = static_cast<size_t>(sent);
      while (at < pieces.size() && left >= pieces[at].iov_len) {
        left -= pieces[at++].iov_len;
      }
      if (at < pieces.size()) {
        pieces[at].iov_base = static_cast<char*>(pieces[at].iov_base) + left;
        pieces[at].iov_len -= left;
      }
    }
    return absl::OkStatus();
  }

  // Up to "\r\n", which is taken but not returned.
  absl::StatusOr<std::string> ReadLine() {
    for (;;) {
      const std::string_view seen(buffer_.data() + begin_, end_ - begin_);
      if (const size_t line_end = seen.find("\r\n"); line_end != std::string_view::npos) {
        begin_ += line_end + 2;
        return std::string(seen.substr(0, line_end));
      }
      std::memmove(buffer_.data(), seen.data(), seen.size());
      begin_ = 0;
      end_ = seen.size();
      if (end_ == buffer_.size()) {
        return absl::InternalError("a line is too long");
      }
      const ssize_t got = read(fd_.get(), buffer_.data() + end_, buffer_.size() - end_);
      if (got <= 0) {
        return absl::UnavailableError(got == 0 ? "the server hung up" : std::strerror(errno));
      }
      end_ += static_cast<size_t>(got);
    }
  }

  absl::Status ReadPayload(absl::Span<char> out) {
    const size_t buffered = std::min(out.size(), end_ - begin_);
    std::memcpy(out.data(), buffer_.data() + begin_, buffered);
    begin_ += buffered;
    for (size_t at = buffered; at < out.size();) {
      const ssize_t got = read(fd_.get(), out.data() + at, out.size() - at);
      if (got <= 0) {
        return absl::UnavailableError(got == 0 ? "the server hung up" : std::strerror(errno));
      }
      at += static_cast<size_t>(got);
    }
    return absl::OkStatus();
  }

  absl::Status Expect(std::string_view wanted) {
    const absl::StatusOr<std::string> line = ReadLine();
    if (!line.ok()) {
      return line.status();
    }
    return *line == wanted ? absl::OkStatus() : absl::InternalError("unexpected reply: " + *line);
  }

 private:
  Descriptor fd_;
  std::array<char, kMaxLine> buffer_{};
  size_t begin_ = 0;
  size_t end_ = 0;
};

// Starts `args`, connects to `socket_path`.
template <typename Peer>
absl::StatusOr<std::unique_ptr<StorePeer>> StartPeer(const std::vector<std::string>& args,
                                                     const std::string& folder,
                                                     const std::string& socket_path) {
  auto peer = std::make_unique<Peer>();
  absl::StatusOr<ChildProcess> server = ChildProcess::Start(args, folder + "/peer.log");
  if (!server.ok()) {
    return server.status();
  }
  peer->server = *std::move(server);
  if (absl::Status status = peer->connection.Connect(socket_path, peer->server); !status.ok()) {
    return status;
  }
  return peer;
}

// Redis: RESP2, https://redis.io/docs/reference/protocol-spec
class RedisPeer final : public StorePeer {
 public:
  ChildProcess server;
  PeerConnection connection;

  [[nodiscard]] std::string_view name() const override { return "redis"; }

  absl::Status Put(std::string_view key, absl::Span<const char> payload) override {
    const std::string head =
        "*3\r\n" + Bulk("SET") + Bulk(key) + "$" + std::to_string(payload.size()) + "\r\n";
    const absl::Status sent = connection.Send(head, payload, "\r\n");
    return sent.ok() ? connection.Expect("+OK") : sent;
  }

  absl::Status Get(std::string_view key, absl::Span<char> out) override {
    if (absl::Status sent = connection.Send("*2\r\n" + Bulk("GET") + Bulk(key), {}, {});
        !sent.ok()) {
      return sent;
    }
    if (absl::Status status = connection.Expect("$" + std::to_string(out.size())); !status.ok()) {
      return status;
    }
    const absl::Status read = connection.ReadPayload(out);
    return read.ok() ? connection.Expect("") : read;
  }

  absl::Status Delete(std::string_view key) override {
    const absl::Status sent = connection.Send("*2\r\n" + Bulk("DEL") + Bulk(key), {}, {});
    return sent.ok() ? connection.Expect(":1") : sent;
  }

 private:
  static std::string Bulk(std::string_view text) {
    return "$" + std::to_string(text.size()) + "\r\n" + std::string(text) + "\r\n";
  }
};

// memcached: the text protocol, doc/protocol.txt in its source.
class MemcachedPeer final : public StorePeer {
 public:
  ChildProcess server;
  PeerConnection connection;

  [[nodiscard]] std::string_view name() const override { return "memcached"; }

  absl::Status Put(std::string_view key, absl::Span<const char> payload) override {
    const std::string head =
        "set " + std::string(key) + " 0 0 " + std::to_string(payload.size()) + "\r\n";
    const absl::Status sent = connection.Send(head, payload, "\r\n");
    return sent.ok() ? connection.Expect("STORED") : sent;
  }

  absl::Status Get(std::string_view key, absl::Span<char> out) override {
    if (absl::Status sent = connection.Send("get " + std::string(key) + "\r\n", {}, {});
        !sent.ok()) {
      return sent;
    }
    const std::string wanted = "VALUE " + std::string(key) + " 0 " + std::to_string(out.size());
    if (absl::Status status = connection.Expect(wanted); !status.ok()) {
      return status;
    }
    absl::Status status = connection.ReadPayload(out);
    if (status.ok()) {
      status = connection.Expect("");
    }
    return status.ok() ? connection.Expect("END") : status;
  }

  absl::Status Delete(std::string_view key) override {
    const absl::Status sent = connection.Send("delete " + std::string(key) + "\r\n", {}, {});
    return sent.ok() ? connection.Expect("DELETED") : sent;
  }
};

absl::StatusOr<std::unique_ptr<StorePeer>> StartRedis(const std::string& folder,
                                                      uint64_t memory_bytes) {
  const std::string path = folder + "/redis.sock";
  return StartPeer<RedisPeer>(
      {"redis-server", "--port", "0", "--unixsocket", path, "--save", "", "--appendonly", "no",
       "--dir", folder, "--maxmemory", std::to_string(2 * memory_bytes)},
      folder, path);
}

absl::StatusOr<std::unique_ptr<StorePeer>> StartMemcached(const std::string& folder,
                                                          uint64_t memory_bytes) {
  const std::string path = folder + "/memcached.sock";
  // It refuses a largest item (-I) beyond half of its memory.
  const uint64_t memory_mib = std::max<uint64_t>(256, (2 * memory_bytes) >> 20U);
  std::vector<std::string> args = {"memcached", "-s",  path, "-m", std::to_string(memory_mib),
                                   "-I",        "128m"};
  if (geteuid() == 0) {  // it refuses to run as root unless told so
    args.insert(args.end(), {"-u", "root"});
  }
  return StartPeer<MemcachedPeer>(args, folder, path);
}

constexpr PeerKind kPeerKinds[] = {{"redis", "redis-server", StartRedis},
                                   {"memcached", "memcached", StartMemcached}};

}  // namespace

absl::Span<const PeerKind> PeerKinds() {
  return kPeerKinds;
}

}  // namespace terrace::bench
