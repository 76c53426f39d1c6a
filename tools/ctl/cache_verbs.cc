#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"

#include "tools/ctl/cache_view.h"
#include "tools/ctl/verbs.h"

namespace terrace::ctl {
namespace {

using Async = v1::Cache::StubInterface::async_interface;

constexpr uint64_t kMaxPayloadBytes = uint64_t{64} << 20;
constexpr uint64_t kMaxInlineBytes = uint64_t{3} << 20;
constexpr size_t kMaxRecordFileBytes = size_t{64} << 10;
constexpr absl::Duration kMaxTicketWait = absl::Seconds(10);

uint32_t WholeMilliseconds(absl::Duration duration) {
  return static_cast<uint32_t>(
      std::min<int64_t>(absl::ToInt64Milliseconds(absl::Ceil(duration, absl::Milliseconds(1))),
                        std::numeric_limits<uint32_t>::max()));
}

absl::Status FileError(absl::string_view what, const std::string& path) {
  return absl::NotFoundError(absl::StrCat(what, " ", path, ": ", std::strerror(errno)));
}

// At most `limit` bytes.
absl::StatusOr<std::string> ReadAll(std::istream& in, const std::string& name, uint64_t limit) {
  std::string bytes;
  std::array<char, 65536> buffer{};
  while (in.read(buffer.data(), buffer.size()) || in.gcount() > 0) {
    bytes.append(buffer.data(), static_cast<size_t>(in.gcount()));
    if (bytes.size() > limit) {
      return absl::InvalidArgumentError(absl::StrCat(name, " is larger than ", FormatBytes(limit)));
    }
  }
  if (in.bad()) {
    return absl::UnavailableError(absl::StrCat("reading ", name, " failed"));
  }
  return bytes;
}

absl::StatusOr<std::string> ReadFile(const std::string& path, uint64_t limit) {
  errno = 0;
  std::ifstream in(path, std::ios::binary);
  if (!in) {
    return FileError("cannot read", path);
  }
  return ReadAll(in, path, limit);
}

absl::StatusOr<v1::NamespaceRecord> ReadRecord(const std::string& path) {
  absl::StatusOr<std::string> text = ReadFile(path, kMaxRecordFileBytes);
  if (!text.ok()) {
    return text.status();
  }
  absl::StatusOr<Json> json = ParseJson(*text);
  v1::NamespaceRecord record;
  absl::Status status = json.ok() ? MessageFromJson(*json, &record) : json.status();
  if (!status.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", status.message()));
  }
  return record;
}

absl::StatusOr<v1::Part> MakePart(const Run& run) {
  const BlockChoice& blocks = run.line.blocks;
  absl::StatusOr<std::string> digest = ResolveNamespace(blocks.ns, run.daemon);
  if (!digest.ok()) {
    return digest.status();
  }
  v1::Part part;
  part.set_namespace_digest(*digest);
  part.set_salt(blocks.salt);
  part.set_rule(blocks.rule);
  part.set_key_bytes(static_cast<uint32_t>(blocks.keys.front().size()));
  for (const std::string& key : blocks.keys) {
    part.mutable_keys()->append(key);
  }
  part.set_first_token(blocks.first_token);
  part.set_window_tokens(blocks.window_tokens);
  return part;
}

// Where get writes. A file is written beside its name and renamed when it is whole, so that a
// failed get leaves no half of it.
class PayloadSink {
 public:
  PayloadSink(const GetOptions& options, Terminal& terminal)
      : path_(options.out), written_path_(options.out), terminal_(terminal) {
    std::error_code error;
    const std::filesystem::file_status status = std::filesystem::status(path_, error);
    if (!std::filesystem::exists(status) || std::filesystem::is_regular_file(status)) {
      written_path_ += ".partial";
    }
  }
  PayloadSink(const PayloadSink&) = delete;
  PayloadSink& operator=(const PayloadSink&) = delete;
  ~PayloadSink() {
    if (file_.is_open()) {
      file_.close();
      DropPartial();
    }
  }

  absl::Status Open() {
    if (path_.empty()) {
      if (terminal_.out_kind == Terminal::Kind::kTerminal) {
        return absl::FailedPreconditionError(
            "payload is binary and standard output is a terminal: name a file with --out, or "
            "redirect");
      }
      return absl::OkStatus();
    }
    errno = 0;
    file_.open(written_path_, std::ios::binary | std::ios::trunc);
    return file_ ? absl::OkStatus() : FileError("cannot write", path_);
  }
  absl::Status Write(const std::string& bytes) {
    std::ostream& out = path_.empty() ? terminal_.out : file_;
    out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    return out ? absl::OkStatus()
               : absl::UnavailableError(absl::StrCat("writing ", Name(), " failed"));
  }
  absl::Status Finish() {
    if (path_.empty()) {
      terminal_.out.flush();
      return terminal_.out ? absl::OkStatus()
                           : absl::UnavailableError("writing standard output failed");
    }
    errno = 0;
    file_.close();
    if (!file_ ||
        (written_path_ != path_ && std::rename(written_path_.c_str(), path_.c_str()) != 0)) {
      DropPartial();
      return FileError("cannot write", path_);
    }
    return absl::OkStatus();
  }

 private:
  void DropPartial() const {
    if (written_path_ != path_) {
      (void)std::remove(written_path_.c_str());
    }
  }
  [[nodiscard]] std::string Name() const { return path_.empty() ? "standard output" : path_; }

  std::string path_;
  std::string written_path_;
  Terminal& terminal_;
  std::ofstream file_;
};

bool AnyTrimmed(const v1::GetReply& reply) {
  return reply.outcomes().find(static_cast<char>(v1::GET_OUTCOME_TRIMMED)) != std::string::npos;
}

}  // namespace

absl::StatusOr<std::string> ResolveNamespace(const NamespaceChoice& choice, Connection& daemon) {
  if (!choice.digest.empty()) {
    return choice.digest;
  }
  v1::OpenNamespaceRequest request;
  *request.mutable_record() = choice.record;
  if (!choice.record_file.empty()) {
    absl::StatusOr<v1::NamespaceRecord> record = ReadRecord(choice.record_file);
    if (!record.ok()) {
      return record.status();
    }
    *request.mutable_record() = *std::move(record);
  }
  absl::StatusOr<v1::OpenNamespaceReply> reply =
      daemon.Cache(&Async::OpenNamespace, request, "opening the namespace");
  if (!reply.ok()) {
    return reply.status();
  }
  return reply->namespace_digest();
}

absl::StatusOr<Answer> RunProbe(const Run& run) {
  absl::StatusOr<v1::Part> part = MakePart(run);
  if (!part.ok()) {
    return part.status();
  }
  v1::ProbeRequest request;
  *request.add_parts() = *part;
  request.set_hold_ms(WholeMilliseconds(run.line.probe.hold));
  request.set_prefetch(run.line.probe.prefetch == ProbeOptions::Prefetch::kYes);
  absl::StatusOr<v1::ProbeReply> reply = run.daemon.Cache(&Async::Probe, request, "probing");
  if (!reply.ok()) {
    return reply.status();
  }
  absl::StatusOr<Answer> answer = ProbeAnswer(run.line.blocks.keys, *reply, run.terminal.style);
  if (answer.ok()) {
    answer->json["namespace_digest"] = Hex(part->namespace_digest());
  }
  return answer;
}

absl::StatusOr<Answer> RunPut(const Run& run) {
  const PutOptions& put = run.line.put;
  const std::vector<std::string> files =
      put.files.empty() ? std::vector<std::string>{"-"} : put.files;
  v1::PutRequest request;
  std::string payload;
  for (const std::string& file : files) {
    absl::StatusOr<std::string> bytes =
        file == "-" ? ReadAll(run.terminal.in, "standard input", kMaxPayloadBytes)
                    : ReadFile(file, kMaxPayloadBytes);
    if (!bytes.ok()) {
      return bytes.status();
    }
    if (bytes->empty()) {
      return absl::InvalidArgumentError(absl::StrCat(file == "-" ? "standard input" : file,
                                                     " is empty; a block has at least one byte"));
    }
    request.add_payload_bytes(static_cast<uint32_t>(bytes->size()));
    payload += *bytes;
  }
  absl::StatusOr<v1::Part> part = MakePart(run);
  if (!part.ok()) {
    return part.status();
  }
  *request.mutable_part() = *part;
  request.set_parent(put.parent);
  request.set_wait_for(put.wait_for);
  absl::StatusOr<v1::PutReply> reply = v1::PutReply();
  if (payload.size() > kMaxInlineBytes) {
    reply = run.daemon.PutStream(request, payload);
    if (absl::IsUnimplemented(reply.status())) {
      return absl::UnimplementedError(absl::StrCat(
          "payload of ", FormatBytes(payload.size()), ": over ", FormatBytes(kMaxInlineBytes),
          " a call it takes PutStream, which the daemon does not implement"));
    }
  } else {
    request.set_payload(std::move(payload));
    reply = run.daemon.Cache(&Async::Put, request, "storing", absl::Seconds(30));
  }
  if (!reply.ok()) {
    return reply.status();
  }
  absl::StatusOr<Answer> answer = PutAnswer(run.line.blocks.keys, *reply, run.terminal.style);
  if (answer.ok()) {
    answer->json["namespace_digest"] = Hex(part->namespace_digest());
  }
  return answer;
}

absl::StatusOr<Answer> RunGet(const Run& run) {
  const GetOptions& get = run.line.get;
  PayloadSink sink(get, run.terminal);
  if (absl::Status status = sink.Open(); !status.ok()) {
    return status;
  }
  absl::StatusOr<v1::Part> part = MakePart(run);
  if (!part.ok()) {
    return part.status();
  }
  v1::GetRequest request;
  *request.add_parts() = *part;
  request.set_delivery(v1::DELIVERY_INLINE);
  request.set_hold_id(get.hold);
  request.set_wait_pending(get.wait > absl::ZeroDuration() ? 1 : 0);
  // The server waits within the call's deadline; a second more lets its answer arrive.
  const absl::Duration usual =
      get.wait > absl::ZeroDuration() ? get.wait + absl::Seconds(1) : Connection::kUsualTimeout;
  absl::StatusOr<v1::GetReply> reply = run.daemon.Cache(&Async::Get, request, "reading", usual);
  bool streamed = false;
  if (reply.ok() && AnyTrimmed(*reply)) {
    absl::StatusOr<v1::GetReply> whole = run.daemon.GetStream(
        request, usual, [&](const std::string& chunk) { return sink.Write(chunk); });
    // A daemon without streams has delivered the prefix that fits; the rest shows as trimmed.
    if (!absl::IsUnimplemented(whole.status())) {
      reply = std::move(whole);
      streamed = true;
    }
  }
  if (reply.ok() && !streamed) {
    if (absl::Status status = sink.Write(reply->payload()); !status.ok()) {
      return status;
    }
  }
  if (!reply.ok()) {
    return reply.status();
  }
  absl::StatusOr<Answer> answer = GetAnswer(run.line.blocks.keys, *reply, run.terminal.style);
  if (!answer.ok()) {
    return answer.status();
  }
  if (answer->json["payload_bytes"] != 0 || answer->exit_code == kExitOk) {
    if (absl::Status status = sink.Finish(); !status.ok()) {
      return status;
    }
    answer->json["out"] = get.out;
  } else {
    answer->json["out"] = nullptr;
  }
  answer->json["namespace_digest"] = Hex(part->namespace_digest());
  answer->text_to = get.out.empty() ? Answer::Text::kError : Answer::Text::kOutput;
  return answer;
}

absl::StatusOr<Answer> RunPrefetch(const Run& run) {
  const PrefetchOptions& prefetch = run.line.prefetch;
  absl::StatusOr<v1::Part> part = MakePart(run);
  if (!part.ok()) {
    return part.status();
  }
  v1::PrefetchRequest request;
  *request.add_parts() = *part;
  request.set_priority(prefetch.priority);
  request.set_deadline_ms(WholeMilliseconds(prefetch.deadline));
  request.set_hold_ms(WholeMilliseconds(prefetch.hold));
  absl::StatusOr<v1::PrefetchReply> reply =
      run.daemon.Cache(&Async::Prefetch, request, "asking for a prefetch");
  if (!reply.ok()) {
    return reply.status();
  }
  if (reply->ticket() == 0 || prefetch.wait <= absl::ZeroDuration()) {
    return PrefetchAnswer(*reply, nullptr, run.terminal.style);
  }
  v1::TicketRequest ticket;
  ticket.set_ticket(reply->ticket());
  const absl::Duration wait = std::min(prefetch.wait, kMaxTicketWait);
  ticket.set_wait_ms(WholeMilliseconds(wait));
  absl::StatusOr<v1::TicketReply> result =
      run.daemon.Cache(&Async::Ticket, ticket, "prefetching", wait + Connection::kUsualTimeout);
  if (!result.ok()) {
    return result.status();
  }
  return PrefetchAnswer(*reply, &*result, run.terminal.style);
}

absl::StatusOr<Answer> RunDelete(const Run& run) {
  absl::StatusOr<v1::Part> part = MakePart(run);
  if (!part.ok()) {
    return part.status();
  }
  v1::DeleteRequest request;
  *request.mutable_part() = *part;
  absl::StatusOr<v1::DeleteReply> reply = run.daemon.Cache(&Async::Delete, request, "deleting");
  if (!reply.ok()) {
    return reply.status();
  }
  Answer answer;
  answer.json = JsonOf(*reply);
  answer.text = absl::StrCat(reply->deleted(), " deleted, ", reply->not_found(), " not found\n");
  return answer;
}

absl::StatusOr<Answer> RunPin(const Run& run) {
  absl::StatusOr<v1::Part> part = MakePart(run);
  if (!part.ok()) {
    return part.status();
  }
  v1::PinRequest request;
  *request.mutable_part() = *part;
  request.set_ttl_s(static_cast<uint32_t>(std::min<int64_t>(
      absl::ToInt64Seconds(absl::Ceil(run.line.pin_ttl, absl::Seconds(1))), UINT32_MAX)));
  absl::StatusOr<v1::PinReply> reply = run.daemon.Cache(&Async::Pin, request, "pinning");
  if (!reply.ok()) {
    return reply.status();
  }
  return PinAnswer(run.line.blocks.keys, *reply, run.terminal.style);
}

absl::StatusOr<Answer> RunUnpin(const Run& run) {
  absl::StatusOr<v1::Part> part = MakePart(run);
  if (!part.ok()) {
    return part.status();
  }
  v1::UnpinRequest request;
  *request.mutable_part() = *part;
  absl::StatusOr<v1::UnpinReply> reply = run.daemon.Cache(&Async::Unpin, request, "unpinning");
  if (!reply.ok()) {
    return reply.status();
  }
  Answer answer;
  answer.json = JsonOf(*reply);
  answer.text = absl::StrCat(reply->unpinned(), " unpinned\n");
  return answer;
}

}  // namespace terrace::ctl
