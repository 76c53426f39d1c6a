#include "tools/trace/request_trace.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <string_view>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "nlohmann/json.hpp"
#include <zlib.h>

namespace terrace {
namespace {

constexpr uint64_t kMaxRequests = 10'000'000;
constexpr size_t kMaxLineBytes = size_t{16} << 20;

absl::Status LineError(uint64_t line, std::string_view what) {
  return absl::InvalidArgumentError("line " + std::to_string(line) + ": " + std::string(what));
}

// Takes one line's events from the JSON parser. Fields that it doesn't know, of any shape, are
// passed over. Every callback returns false to stop; problem() then says why.
class RequestFields {
 public:
  explicit RequestFields(TraceRequest& out) : out_(out) {}

  [[nodiscard]] const std::string& problem() const { return problem_; }
  [[nodiscard]] bool complete() const { return has_timestamp_ && has_ids_ && depth_ == 0; }

  bool null() { return Scalar() && (field_.empty() || Fail("is null")); }
  bool boolean(bool /*value*/) { return Scalar() && (field_.empty() || Fail("is a boolean")); }
  bool number_integer(int64_t /*value*/) {
    return Scalar() && (field_.empty() || Fail("is negative"));
  }
  bool number_unsigned(uint64_t value) {
    if (InIds()) {
      out_.block_ids.push_back(value);
      return true;
    }
    if (!Scalar()) {
      return false;
    }
    if (field_ == "timestamp") {
      return Timestamp(static_cast<double>(value));
    }
    if (field_ == "input_length") {
      return Tokens(value, out_.input_tokens);
    }
    if (field_ == "output_length") {
      return Tokens(value, out_.output_tokens);
    }
    return field_.empty() || Fail("is a number");
  }
  bool number_float(double value, const std::string& /*text*/) {
    if (!Scalar()) {
      return false;
    }
    if (field_ == "timestamp") {
      return Timestamp(value);
    }
    return field_.empty() || Fail("is not a whole number");
  }
  bool string(std::string& value) {
    if (!Scalar()) {
      return false;
    }
    if (field_ == "stop") {
      out_.stop = value;
      return true;
    }
    return field_.empty() || Fail("is a string");
  }
  bool binary(nlohmann::json::binary_t& /*value*/) { return Fail("is binary"); }
  bool start_object(size_t /*elements*/) { return Open(/*array=*/false); }
  bool end_object() { return Close(); }
  bool start_array(size_t /*elements*/) { return Open(/*array=*/true); }
  bool end_array() { return Close(); }
  bool key(std::string& name) {
    if (depth_ == 1) {
      field_ = IsKnown(name) ? name : std::string();
    }
    return true;
  }
  bool parse_error(size_t position,
                   const std::string& /*token*/,
                   const nlohmann::detail::exception& /*error*/) {
    problem_ = "not JSON at column " + std::to_string(position);
    return false;
  }

 private:
  static bool IsKnown(std::string_view name) {
    return name == "timestamp" || name == "input_length" || name == "output_length" ||
           name == "hash_ids" || name == "stop";
  }
  [[nodiscard]] bool InIds() const { return depth_ == 2 && field_ == "hash_ids"; }

  bool Fail(std::string_view why) {
    problem_ = field_ + " " + std::string(why);
    return false;
  }
  // A value that is neither object nor array has begun.
  bool Scalar() {
    if (depth_ == 0) {
      problem_ = "not an object";
      return false;
    }
    if (InIds()) {
      return Fail("must hold whole numbers from 0 only");
    }
    return field_ != "hash_ids" || Fail("must be an array");
  }
  bool Open(bool array) {
    if (depth_ == 0 && array) {
      problem_ = "not an object";
      return false;
    }
    if (depth_ == 1 && !field_.empty()) {
      if (field_ != "hash_ids" || !array) {
        return Fail(array ? "is an array" : "is an object");
      }
      if (has_ids_) {
        return Fail("is given twice");
      }
      has_ids_ = true;
    }
    if (InIds()) {
      return Fail("must hold whole numbers from 0 only");
    }
    ++depth_;
    return true;
  }
  bool Close() {
    --depth_;
    return true;
  }
  bool Timestamp(double value) {
    if (value < 0 || !std::isfinite(value)) {
      return Fail("is out of range");
    }
    out_.timestamp_ms = value;
    has_timestamp_ = true;
    return true;
  }
  bool Tokens(uint64_t value, uint32_t& out) {
    if (value > std::numeric_limits<uint32_t>::max()) {
      return Fail("is out of range");
    }
    out = static_cast<uint32_t>(value);
    return true;
  }

  TraceRequest& out_;
  std::string field_;  // the known field at hand; "": one to pass over
  std::string problem_;
  int depth_ = 0;
  bool has_timestamp_ = false;
  bool has_ids_ = false;
};

absl::StatusOr<TraceRequest> ParseLine(const std::string& text, uint64_t line) {
  TraceRequest request;
  RequestFields fields(request);
  const bool parsed = nlohmann::json::sax_parse(text, &fields);
  if (!parsed) {
    return LineError(line, fields.problem());
  }
  if (!fields.complete()) {
    return LineError(line, "timestamp and hash_ids are required");
  }
  return request;
}

// Lines of a plain or gzip file.
class LineSource {
 public:
  LineSource() = default;
  LineSource(const LineSource&) = delete;
  LineSource& operator=(const LineSource&) = delete;
  LineSource(LineSource&&) = delete;
  LineSource& operator=(LineSource&&) = delete;
  ~LineSource() {
    if (file_ != nullptr) {
      gzclose_r(file_);
    }
  }

  absl::Status Open(const std::string& path) {
    errno = 0;
    file_ = gzopen(path.c_str(), "rbe");
    if (file_ == nullptr) {
      return absl::NotFoundError(path + ": " +
                                 (errno == 0 ? "out of memory" : std::strerror(errno)));
    }
    gzbuffer(file_, 1U << 18);
    return absl::OkStatus();
  }

  // False at the end.
  absl::StatusOr<bool> Next(std::string& line) {
    line.clear();
    ++number_;
    for (;;) {
      const size_t end = buffered_.find('\n');
      line.append(buffered_.substr(0, end));
      if (line.size() > kMaxLineBytes) {
        return absl::ResourceExhaustedError("line " + std::to_string(number_) +
                                            ": longer than 16 MiB");
      }
      if (end != std::string_view::npos) {
        buffered_.remove_prefix(end + 1);
        return true;
      }
      const int got = gzread(file_, buffer_.data(), static_cast<unsigned>(buffer_.size()));
      if (got <= 0) {
        buffered_ = {};
        if (absl::Status status = EndOfFile(); !status.ok()) {
          return status;
        }
        return !line.empty();
      }
      buffered_ = {buffer_.data(), static_cast<size_t>(got)};
    }
  }
  [[nodiscard]] uint64_t number() const { return number_; }  // of the line last returned, from 1

 private:
  absl::Status EndOfFile() {
    int error = Z_OK;
    const char* text = gzerror(file_, &error);
    if (error == Z_OK || error == Z_STREAM_END) {
      return absl::OkStatus();
    }
    return LineError(number_, error == Z_ERRNO ? std::strerror(errno) : text);
  }

  gzFile file_ = nullptr;
  std::array<char, size_t{1} << 18> buffer_;
  std::string_view buffered_;
  uint64_t number_ = 0;
};

std::string NameOf(std::string path) {
  const size_t slash = path.rfind('/');
  if (slash != std::string::npos) {
    path.erase(0, slash + 1);
  }
  return path.substr(0, path.find('.', 1));
}

bool IsBlank(std::string_view line) {
  return line.find_first_not_of(" \t\r") == std::string_view::npos;
}

}  // namespace

absl::StatusOr<RequestTrace> ReadRequestTrace(const std::string& path,
                                              const TraceReadOptions& options) {
  const auto source = std::make_unique<LineSource>();
  if (absl::Status status = source->Open(path); !status.ok()) {
    return status;
  }
  RequestTrace trace;
  trace.name = NameOf(path);
  absl::flat_hash_set<uint64_t> distinct;
  std::string line;
  while (options.max_requests == 0 || trace.requests.size() < options.max_requests) {
    absl::StatusOr<bool> more = source->Next(line);
    if (!more.ok()) {
      return std::move(more).status();
    }
    if (!*more) {
      break;
    }
    if (IsBlank(line)) {
      continue;
    }
    if (trace.requests.size() == kMaxRequests) {
      return absl::ResourceExhaustedError(path + ": more than 10,000,000 requests");
    }
    absl::StatusOr<TraceRequest> request = ParseLine(line, source->number());
    if (!request.ok()) {
      return std::move(request).status();
    }
    distinct.insert(request->block_ids.begin(), request->block_ids.end());
    trace.total_blocks += request->block_ids.size();
    trace.requests.push_back(*std::move(request));
  }
  trace.distinct_blocks = distinct.size();
  return trace;
}

uint32_t GuessBlockTokens(const RequestTrace& trace) {
  std::vector<std::pair<size_t, double>> sizes;
  for (const TraceRequest& request : trace.requests) {
    if (!request.block_ids.empty() && request.input_tokens > 0) {
      const auto blocks = static_cast<double>(request.block_ids.size());
      sizes.emplace_back(request.block_ids.size(), request.input_tokens / blocks);
    }
  }
  if (sizes.empty()) {
    return 0;
  }
  std::sort(sizes.begin(), sizes.end());
  const double tokens = sizes[sizes.size() * 3 / 4].second;
  return static_cast<uint32_t>(std::clamp(std::exp2(std::round(std::log2(tokens))), 1.0, 65'536.0));
}

}  // namespace terrace
