#include "daemon/log.h"

#include <fcntl.h>
#include <unistd.h>

#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "daemon/quoted_text.h"
#include "tests/doubles/in_child.h"
#include "tests/doubles/manual_clock.h"
#include "tiers/os/descriptor.h"

namespace terrace {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::StartsWith;

struct Pipe {
  Pipe() {
    int ends[2];
    EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
    read_end = Descriptor(ends[0]);
    write_end = Descriptor(ends[1]);
  }
  // Everything that is in it, by lines; the write end is closed first.
  std::vector<std::string> Lines() {
    write_end = Descriptor();
    std::string text;
    char buffer[65536];
    for (ssize_t got = 0; (got = read(read_end.get(), buffer, sizeof(buffer))) > 0;) {
      text.append(buffer, static_cast<size_t>(got));
    }
    std::vector<std::string> lines;
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = text.find('\n', begin);
      EXPECT_NE(end, std::string::npos) << "half a line";
      lines.push_back(text.substr(begin, end - begin));
      begin = end == std::string::npos ? text.size() : end + 1;
    }
    return lines;
  }
  // Makes room, as a reader would.
  void Grow() const { EXPECT_GE(fcntl(write_end.get(), F_SETPIPE_SZ, 65536), 65536); }

  Descriptor read_end;
  Descriptor write_end;
};

class LogTest : public testing::Test {
 protected:
  std::unique_ptr<Log> Make(LogOptions options = {}) {
    options.fd = pipe_.write_end.get();
    absl::StatusOr<std::unique_ptr<Log>> log = MakeLog(options, clock_);
    EXPECT_TRUE(log.ok()) << log.status();
    return std::move(*log);
  }
  Pipe pipe_;
  doubles::ManualClock clock_;
};

TEST_F(LogTest, WritesLogfmt) {
  Make()->Warning("two words", {{"plain", "x/y"},
                                {"quoted", "a \"b\"\n"},
                                {"empty", ""},
                                {"number", 42},
                                {"yes", true},
                                {"took", absl::Milliseconds(1500)},
                                {"status", absl::NotFoundError("gone")}});
  const std::vector<std::string> lines = pipe_.Lines();
  ASSERT_THAT(lines, SizeIs(1));
  EXPECT_THAT(lines[0], StartsWith("ts="));
  EXPECT_THAT(
      lines[0],
      EndsWith("Z level=warning msg=\"two words\" plain=x/y quoted=\"a \\\"b\\\"\\n\" empty=\"\" "
               "number=42 yes=true took=1.5s status=\"NOT_FOUND: gone\""));
}

TEST_F(LogTest, WritesJson) {
  Make({.format = LogFormat::kJson})
      ->Error("bad\xff", {{"text", "a\"b"}, {"number", 42}, {"no", false}});
  const std::vector<std::string> lines = pipe_.Lines();
  ASSERT_THAT(lines, SizeIs(1));
  EXPECT_THAT(lines[0], StartsWith("{\"ts\":\""));
  EXPECT_THAT(
      lines[0],
      EndsWith("Z\",\"level\":\"error\",\"msg\":\"bad\\ufffd\",\"text\":\"a\\\"b\",\"number\":42,"
               "\"no\":false}"));
}

TEST_F(LogTest, LeavesOutWhatIsBelowItsLevel) {
  {
    const std::unique_ptr<Log> log = Make({.level = LogLevel::kWarning});
    log->Info("not this");
    log->Warning("this");
    log->SetLevel(LogLevel::kDebug);
    log->Debug("this too");
  }
  EXPECT_THAT(pipe_.Lines(), ElementsAre(HasSubstr("\"this\""), HasSubstr("\"this too\"")));
}

TEST_F(LogTest, LimitsRepetitionsAndSaysHowManyWereLeftOut) {
  {
    const std::unique_ptr<Log> log = Make();
    for (uint32_t i = 0; i < kRepeatsPerWindow + 7; ++i) {
      log->Info("again");
    }
    log->Info("another");
    EXPECT_EQ(log->suppressed(), 7U);
    clock_.Advance(kRepeatWindow);
    log->Info("again");
    log->Info("again");
  }
  const std::vector<std::string> lines = pipe_.Lines();
  ASSERT_THAT(lines, SizeIs(kRepeatsPerWindow + 3));
  EXPECT_THAT(lines[kRepeatsPerWindow], HasSubstr("another"));
  EXPECT_THAT(lines[kRepeatsPerWindow + 1], EndsWith("msg=\"again\" suppressed=7"));
  EXPECT_THAT(lines[kRepeatsPerWindow + 2], EndsWith("msg=\"again\""));
}

TEST_F(LogTest, AFullPipeNeverBlocksTheCallerAndTheLossIsTold) {
  ASSERT_GT(fcntl(pipe_.write_end.get(), F_SETPIPE_SZ, 4096), 0);
  // Each event text is another one, so that none counts as a repetition.
  constexpr int kLines = 3000;
  {
    const std::unique_ptr<Log> log = Make({.queue_lines = 16, .flush_limit = absl::Minutes(10)});
    for (int i = 0; i < kLines; ++i) {
      log->Info("event " + std::to_string(i), {{"text", std::string(100, 'x')}});
    }
    // Nobody has read yet: the pipe holds some 30 lines, the queue 16.
    EXPECT_GT(log->dropped(), 2000U);
    pipe_.Grow();
  }
  const std::vector<std::string> lines = pipe_.Lines();
  EXPECT_THAT(lines, Contains(HasSubstr("msg=\"log lines dropped\" count=")));
  EXPECT_THAT(lines.back(), HasSubstr("event 2999"));
}

TEST_F(LogTest, ItsEndDoesNotWaitForAReaderThatIsStuck) {
  ASSERT_GT(fcntl(pipe_.write_end.get(), F_SETPIPE_SZ, 4096), 0);
  {
    const std::unique_ptr<Log> log = Make({.flush_limit = absl::ZeroDuration()});
    for (int i = 0; i < 1000; ++i) {
      log->Info("event " + std::to_string(i), {{"text", std::string(100, 'x')}});
    }
  }
  // Whole lines only.
  EXPECT_THAT(pipe_.Lines(), Not(testing::IsEmpty()));
}

TEST_F(LogTest, AReaderThatIsGoneDoesNoHarm) {
  pipe_.read_end = Descriptor();
  const std::unique_ptr<Log> log = Make();
  for (int i = 0; i < 100; ++i) {
    log->Info("event " + std::to_string(i));
  }
}

TEST_F(LogTest, LongLinesAreCutToWhatAPipeTakesWhole) {
  Make()->Info("long", {{"a", std::string(5000, 'a')},
                        {"b", std::string(400, '\n')},
                        {"c", std::string(500, '\x01')},
                        {"d", std::string(500, '\x01')},
                        {"last", "z"}});
  const std::vector<std::string> lines = pipe_.Lines();
  ASSERT_THAT(lines, SizeIs(1));
  EXPECT_LE(lines[0].size(), kMaxLogLineBytes);
  EXPECT_THAT(lines[0], EndsWith(" last=z"));
}

TEST_F(LogTest, ManyThreadsWriteWholeLines) {
  {
    const std::unique_ptr<Log> log = Make();
    std::vector<std::thread> writers;
    for (int t = 0; t < 4; ++t) {
      writers.emplace_back([&log, t] {
        for (int i = 0; i < 50; ++i) {
          log->Info("thread " + std::to_string(t) + " line " + std::to_string(i));
        }
      });
    }
    for (std::thread& writer : writers) {
      writer.join();
    }
  }
  const std::vector<std::string> lines = pipe_.Lines();
  EXPECT_THAT(lines, SizeIs(200));
  for (const std::string& line : lines) {
    EXPECT_THAT(line, HasSubstr(" level=info msg=\"thread "));
  }
}

TEST_F(LogTest, SaysThatTheSystemGivesItNoThread) {
  const int code = InChildWithoutThreads(
      [this] { return static_cast<int>(MakeLog({}, clock_).status().code()); });
  EXPECT_EQ(code, static_cast<int>(absl::StatusCode::kResourceExhausted));
}

TEST_F(LogTest, RefusesAnEmptyQueue) {
  EXPECT_EQ(MakeLog({.queue_lines = 0}, clock_).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(QuotedText, EscapesWhatJsonAndTomlForbid) {
  EXPECT_EQ(QuotedText("a\"\\\n\r\t\x01\x7f"), "\"a\\\"\\\\\\n\\r\\t\\u0001\\u007f\"");
  EXPECT_EQ(QuotedText("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"),
            "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"");
}

TEST(QuotedText, ReplacesWhatIsNotUtf8) {
  EXPECT_EQ(QuotedText("\xff"), "\"\\ufffd\"");
  EXPECT_EQ(QuotedText("\xc0\x80"), "\"\\ufffd\\ufffd\"");                        // overlong
  EXPECT_EQ(QuotedText("\xed\xa0\x80"), "\"\\ufffd\\ufffd\\ufffd\"");             // surrogate
  EXPECT_EQ(QuotedText("\xe2\x82"), "\"\\ufffd\\ufffd\"");                        // cut
  EXPECT_EQ(QuotedText("\xf4\x90\x80\x80"), "\"\\ufffd\\ufffd\\ufffd\\ufffd\"");  // beyond Unicode
}

TEST(QuotedText, ShownValuesAreShortAndPrintable) {
  EXPECT_EQ(ShownValue("a\nb\xff"), "'a\\x0ab\\xff'");
  EXPECT_EQ(ShownValue("abcdef", 3), "'abc...'");
}

}  // namespace
}  // namespace terrace
