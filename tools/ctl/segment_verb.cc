// `terracectl segment`: what lies in the files of a disk tier. Offline: no daemon, no lock, nothing
// is written.
#include <sys/stat.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

#include "tiers/segment/segment_reader.h"
#include "tools/ctl/format.h"
#include "tools/ctl/verbs.h"

namespace terrace::ctl {
namespace {

constexpr absl::Duration kFirstProgress = absl::Seconds(1);
constexpr absl::Duration kProgressTurn = absl::Milliseconds(200);

const char* NameOf(HeaderFault fault) {
  switch (fault) {
    case HeaderFault::kNone:
      return "sound";
    case HeaderFault::kNoRecord:
      return "absent";
    case HeaderFault::kChecksum:
      return "damaged";
    case HeaderFault::kNewerVersion:
      return "newer";
    case HeaderFault::kField:
      return "impossible";
  }
  return "unknown";
}

const char* NameOf(SegmentUse use) {
  switch (use) {
    case SegmentUse::kUsed:
      return "used";
    case SegmentUse::kBlank:
      return "blank";
    case SegmentUse::kHeadDamaged:
      return "head_damaged";
  }
  return "unknown";
}

const char* NameOf(FooterState footer) {
  switch (footer) {
    case FooterState::kSound:
      return "sound";
    case FooterState::kNone:
      return "none";
    case FooterState::kEarlier:
      return "earlier";
    case FooterState::kDamaged:
      return "damaged";
  }
  return "unknown";
}

const char* NameOf(uint8_t kind) {
  switch (static_cast<RecordKind>(kind)) {
    case RecordKind::kBlock:
      return "block";
    case RecordKind::kTombstones:
      return "tombstones";
    case RecordKind::kNote:
      return "note";
  }
  return "unknown";
}

const char* StateOf(const FoundRecord& record) {
  if (record.unreadable) {
    return "unreadable";
  }
  switch (record.fault) {
    case RecordFault::kNone:
      return "sound";
    case RecordFault::kHeader:
      return "header_damaged";
    case RecordFault::kStale:
      return "stale";
    case RecordFault::kPayload:
      return "payload_damaged";
    case RecordFault::kMetadata:
      return "metadata_damaged";
  }
  return "unknown";
}

absl::string_view Text(std::string_view text) {
  return {text.data(), text.size()};
}

bool KnowsHeader(const FoundRecord& record) {
  return !record.unreadable && record.fault != RecordFault::kHeader &&
         record.fault != RecordFault::kStale;
}

// A line on the terminal once a second has passed.
class Progress {
 public:
  explicit Progress(Terminal& terminal) : terminal_(terminal) {}
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress() {
    if (shown_) {
      terminal_.err << "\r\x1b[K" << std::flush;
    }
  }
  void Show(const std::string& where) {
    const absl::Time now = absl::Now();
    if (terminal_.err_kind != Terminal::Kind::kTerminal || now < next_) {
      return;
    }
    next_ = now + kProgressTurn;
    shown_ = true;
    terminal_.err << "\r" << where << "\x1b[K" << std::flush;
  }

 private:
  Terminal& terminal_;
  absl::Time next_ = absl::Now() + kFirstProgress;
  bool shown_ = false;
};

// What one run collects.
struct Findings {
  SegmentOptions::List list = SegmentOptions::List::kDamaged;
  Json segments = Json::array();
  std::vector<SegmentSummary> summaries;
  std::vector<std::pair<std::string, absl::Status>> not_read;
  std::string record_tables;  // text
  uint64_t records = 0;
  uint64_t damaged = 0;
};

Json RecordJson(const FoundRecord& record) {
  Json json;
  json["page"] = record.listed.page;
  json["kind"] = NameOf(record.listed.kind);
  const bool known = KnowsHeader(record);
  json["namespace"] = known ? record.header.namespace_digest.ToHex() : "";
  json["generation"] = known ? record.header.generation : 0;
  json["key"] = known ? Hex(Text(record.header.key)) : "";
  json["salt"] = known ? Hex(Text(record.header.salt)) : "";
  json["sequence"] = record.listed.sequence;
  json["payload_bytes"] = record.listed.payload_bytes;
  json["checksum"] = record.listed.checksum.ToHex();
  json["state"] = StateOf(record);
  return json;
}

Json SummaryJson(const SegmentSummary& summary) {
  Json json;
  json["name"] = summary.name;
  json["file_bytes"] = summary.file_bytes;
  json["use"] = NameOf(summary.use);
  json["tier_uuid"] = summary.head.tier_uuid.ToHex();
  json["number"] = summary.head.number;
  json["role"] = summary.head.role == SegmentRole::kOwn ? "own" : "blocks";
  json["epoch"] = summary.head.epoch;
  json["segment_bytes"] = summary.head.segment_bytes;
  json["footer"] = NameOf(summary.footer);
  json["end_page"] = summary.end_page;
  json["records"] = summary.records;
  json["tombstone_records"] = summary.tombstone_records;
  json["notes"] = summary.notes;
  json["payload_bytes"] = summary.payload_bytes;
  json["damaged"] = summary.damaged;
  return json;
}

Tone ToneOf(const FoundRecord& record) {
  return record.fault == RecordFault::kNone && !record.unreadable ? Tone::kPlain : Tone::kBad;
}

void AddRow(const FoundRecord& record, Table* table) {
  const bool known = KnowsHeader(record);
  const std::string key = !known ? "-"
                          : record.header.kind == RecordKind::kNote
                              ? Printable(Text(record.header.key))
                              : Hex(Text(record.header.key));
  table->Add({absl::StrCat(record.listed.page), NameOf(record.listed.kind),
              known ? record.header.namespace_digest.ToHex() : "-", key,
              absl::StrCat(record.listed.sequence), absl::StrCat(record.listed.payload_bytes),
              Table::Cell(StateOf(record), ToneOf(record))});
}

void ReadOne(SegmentReader& reader,
             const std::string& name,
             const Run& run,
             const std::string& position,
             Progress* progress,
             Findings* findings) {
  Json records = Json::array();
  const auto right = Table::Align::kRight;
  Table table({{"page", right},
               {"kind"},
               {"namespace"},
               {"key"},
               {"sequence", right},
               {"payload", right},
               {"state"}});
  const bool list = findings->list == SegmentOptions::List::kRecords;
  const auto depth = run.line.segment.verify == SegmentOptions::Verify::kPayloads
                         ? SegmentReader::Depth::kPayloads
                         : SegmentReader::Depth::kHeaders;
  const absl::StatusOr<SegmentSummary> summary =
      reader.ReadSegment(name, depth, [&](const FoundRecord& record) {
        const bool sound = record.fault == RecordFault::kNone && !record.unreadable;
        if (list || !sound) {
          run.line.output == CommandLine::Output::kJson ? records.push_back(RecordJson(record))
                                                        : AddRow(record, &table);
        }
        progress->Show(absl::StrCat(position, name, ", ",
                                    FormatBytes(uint64_t{record.listed.page} * kPageBytes)));
        return true;
      });
  if (!summary.ok()) {
    findings->not_read.emplace_back(name, summary.status());
    return;
  }
  Json json = SummaryJson(*summary);
  json["listed"] = std::move(records);
  findings->segments.push_back(std::move(json));
  findings->summaries.push_back(*summary);
  findings->records += summary->records;
  findings->damaged += summary->damaged;
  if (!table.empty()) {
    absl::StrAppend(&findings->record_tables, "\n", Printable(name), "\n",
                    table.Render(run.terminal.style));
  }
}

std::string SegmentsText(const Findings& findings, const Style& style) {
  const auto right = Table::Align::kRight;
  Table table({{"segment"},
               {"epoch", right},
               {"use"},
               {"footer"},
               {"records", right},
               {"payload", right},
               {"filled", right},
               {"damaged", right}});
  for (const SegmentSummary& summary : findings.summaries) {
    const bool used = summary.use != SegmentUse::kBlank;
    table.Add({Printable(summary.name), used ? absl::StrCat(summary.head.epoch) : "-",
               Table::Cell(NameOf(summary.use),
                           summary.use == SegmentUse::kHeadDamaged ? Tone::kWarning : Tone::kPlain),
               used ? NameOf(summary.footer) : "-", FormatCount(summary.records),
               FormatBytes(summary.payload_bytes),
               FormatShare(used ? uint64_t{summary.end_page} * kPageBytes : 0, summary.file_bytes),
               Table::Cell(FormatCount(summary.damaged),
                           summary.damaged > 0 ? Tone::kBad : Tone::kPlain)});
  }
  return table.Render(style);
}

void AddSuperblock(const absl::StatusOr<SuperblockView>& view, Answer* answer) {
  Json json;
  if (!view.ok()) {
    json["problem"] = std::string(view.status().message());
    absl::StrAppend(&answer->text, "superblock: ", view.status().message(), "\n\n");
    answer->json["superblock"] = std::move(json);
    answer->exit_code = kExitFailed;
    return;
  }
  json["uuid"] = view->superblock.uuid.ToHex();
  json["epoch"] = view->superblock.epoch;
  json["segment_bytes"] = view->superblock.segment_bytes;
  json["copies"] = {NameOf(view->copies[0]), NameOf(view->copies[1])};
  answer->json["superblock"] = std::move(json);
  absl::StrAppend(&answer->text, "tier ", view->superblock.uuid.ToHex(), ", epoch ",
                  FormatCount(view->superblock.epoch), ", segments of ",
                  FormatBytes(view->superblock.segment_bytes),
                  "; superblock copies: ", NameOf(view->copies[0]), ", ", NameOf(view->copies[1]),
                  "\n\n");
}

void Conclude(const Findings& findings, const Run& run, Answer* answer) {
  const bool verified = run.line.segment.verify == SegmentOptions::Verify::kPayloads;
  answer->json["verified"] = verified;
  answer->json["segments"] = findings.segments;
  Json not_read = Json::array();
  for (const auto& [name, why] : findings.not_read) {
    Json json;
    json["name"] = Printable(name);
    json["problem"] = std::string(why.message());
    not_read.push_back(std::move(json));
  }
  answer->json["not_read"] = std::move(not_read);
  answer->json["records"] = findings.records;
  answer->json["damaged"] = findings.damaged;
  absl::StrAppend(&answer->text, SegmentsText(findings, run.terminal.style), findings.record_tables,
                  "\n");
  for (const auto& [name, why] : findings.not_read) {
    absl::StrAppend(&answer->text, "not read: ", Printable(why.message()), "\n");
  }
  absl::StrAppend(&answer->text, FormatCount(findings.records), " records, ",
                  FormatCount(findings.damaged), " damaged; ",
                  verified ? "headers and payloads were checked\n" : "headers were checked\n");
  if (findings.damaged > 0 || !findings.not_read.empty()) {
    answer->exit_code = kExitFailed;
  }
}

}  // namespace

absl::StatusOr<Answer> RunSegment(const Run& run) {
  const std::string& path = run.line.segment.path;
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) {
    return absl::NotFoundError(absl::StrCat(Printable(path), ": there is no such file or folder"));
  }
  const bool whole_folder = S_ISDIR(status.st_mode);
  const size_t slash = path.find_last_of('/');
  const std::string folder = whole_folder                 ? path
                             : slash == std::string::npos ? "."
                             : slash == 0                 ? "/"
                                                          : path.substr(0, slash);
  const absl::StatusOr<std::unique_ptr<SegmentReader>> reader =
      SegmentReader::Open(KernelFileSystem(), folder);
  if (!reader.ok()) {
    return reader.status();
  }
  Answer answer;
  answer.json["path"] = Printable(path);
  std::vector<std::string> names;
  if (whole_folder) {
    absl::StatusOr<std::vector<std::string>> found = (*reader)->SegmentNames();
    if (!found.ok()) {
      return found.status();
    }
    names = *std::move(found);
    const absl::StatusOr<SuperblockView> superblock = (*reader)->ReadSuperblock();
    if (absl::IsNotFound(superblock.status()) && names.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat(Printable(path), " is not a tier's folder: it holds no segments"));
    }
    AddSuperblock(superblock, &answer);
  } else {
    names.push_back(slash == std::string::npos ? path : path.substr(slash + 1));
  }
  Findings findings;
  findings.list = whole_folder ? run.line.segment.list : SegmentOptions::List::kRecords;
  {
    Progress progress(run.terminal);
    for (size_t i = 0; i < names.size(); ++i) {
      ReadOne(**reader, names[i], run, absl::StrCat(i + 1, " of ", names.size(), ": "), &progress,
              &findings);
    }
  }
  if (!whole_folder && !findings.not_read.empty()) {
    return findings.not_read.front().second;
  }
  Conclude(findings, run, &answer);
  return answer;
}

}  // namespace terrace::ctl
