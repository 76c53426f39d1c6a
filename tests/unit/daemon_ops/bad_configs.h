// Configurations that must be refused, each with the whole line that the operator reads.
#pragma once

#include <string>
#include <vector>

#include "tests/unit/daemon_ops/bad_tier_configs.h"

namespace terrace {

inline std::string NumbersBelow(int end) {
  std::string text = "[0";
  for (int i = 1; i < end; ++i) {
    text.append(", ").append(std::to_string(i));
  }
  return text + "]";
}

inline std::vector<BadConfig> BadStructure() {
  return {
      {"NotToml", "[daemon\n", "t.toml:1: not TOML: *"},
      {"KeyWithoutValue", "[daemon]\nruntime_dir =\n", "t.toml:2: not TOML: *"},
      {"UnterminatedString", "[daemon]\nruntime_dir = \"/run\n", "t.toml:2: not TOML: *"},
      {"BareWord", "[daemon]\nlog_level = info\n", "t.toml:2: not TOML: *"},
      {"LeadingZeros", "[daemon]\nio_threads = 007\n", "t.toml:2: not TOML: *"},
      {"IntegerBeyond64Bits", "[dram]\ncapacity = 99999999999999999999\n", "t.toml:2: not TOML: *"},
      {"DuplicateKey", "[dram]\ncapacity = \"1GiB\"\ncapacity = \"2GiB\"\n",
       "t.toml:3: 'capacity' is set twice"},
      {"DuplicateSection", "[dram]\ncapacity = \"1GiB\"\n[dram]\n",
       "t.toml:3: 'dram' is set twice"},
      {"DuplicateByDottedKey", "dram.policy = \"lru\"\n[dram]\npolicy = \"lru\"\n",
       "t.toml:2: 'dram' is set twice"},
      {"BlankSectionName", "[.]\n", "t.toml:1: not TOML: *"},
      {"NulByte", std::string("[sockets]\ngroup = \"\000\"\n", 22), "t.toml:2: not TOML: *"},
      {"UnknownSection", "[drum]\ncapacity = 1\n",
       "t.toml:1: unknown section [drum]; did you mean dram?"},
      {"UnknownSectionFarFromAll", "\n\n[gpu_settings]\n",
       "t.toml:3: unknown section [gpu_settings]"},
      {"UnknownTopLevelKey", "capacity = \"1GiB\"\n",
       "t.toml:1: unknown key 'capacity' outside of a section"},
      {"UnknownKey", "[dram]\ncapacty = \"1GiB\"\n",
       "t.toml:2: unknown key 'capacty' in [dram]; did you mean capacity?"},
      {"UnknownKeyFarFromAll", "[dram]\nfrobnicate = 1\n",
       "t.toml:2: unknown key 'frobnicate' in [dram]"},
      {"KeyOfAnotherSection", "[daemon]\ncapacity = 1\n",
       "t.toml:2: unknown key 'capacity' in [daemon]"},
      {"KeysAreCaseSensitive", "[dram]\nCapacity = \"1GiB\"\n",
       "t.toml:2: unknown key 'Capacity' in [dram]; did you mean capacity?"},
      {"EmptyKey", "[dram]\n\"\" = 1\n", "t.toml:2: unknown key '' in [dram]"},
      {"SectionAsValue", "dram = 3\n", "t.toml:1: dram: must be a section, not an integer"},
      {"SectionAsArray", "[[dram]]\ncapacity = \"1GiB\"\n", "t.toml:1: write [dram], not [[dram]]"},
      {"NestedSection", "[dram.numa]\nnode = 1\n", "t.toml:1: unknown key 'numa' in [dram]"},
      {"SettingAsSection", "[dram.capacity]\nvalue = 1\n",
       "t.toml:1: dram.capacity: must be a size such as \"64MiB\", not a table"},
      {"LocalTooSmall", "[local]\ncapacity = \"1GiB\"\n",
       "t.toml:2: local.capacity: must be 0B, which means no local tier, or at least *"},
      {"LocalIsTheDataFolder", "[daemon]\ndata_dir = \"/d\"\n[local]\ndir = \"/d\"\n",
       "t.toml:4: local.dir: must be a folder of its own, not daemon.data_dir or "
       "daemon.runtime_dir"},
      {"FirstWrongLineWins", "[sockets]\nmode = \"999\"\n[daemon]\nio_threads = 0\n",
       "t.toml:2: sockets.mode: must be four octal digits in quotes, such as \"0660\", not '999'"},
  };
}

// A drive as it has to be, with these lines more.
inline std::vector<BadConfig> BadTogether() {
  std::string many;
  for (int i = 0; i < 65; ++i) {
    many += DriveText("/d/" + std::to_string(i));
  }
  return {
      {"TierPathTwice", DriveText("/a") + DriveText("/b/../a/"),
       "t.toml:5: tier.path: '/a' is there twice"},
      {"TierOfAnotherName", DriveText("/a", "name = \"g3\"\n") + DriveText("/b", "name = \"g4\"\n"),
       "t.toml:6: tier.name: local drives are one tier, and this one is g4 where the first is g3"},
      {"TierBesideLocalDir", "[local]\ndir = \"/a\"\n" + DriveText("/a"),
       "t.toml:2: local.dir: cannot be set beside [[tier]], which says it"},
      {"TierBesideLocalCapacity", DriveText("/a") + "[local]\ncapacity = \"0B\"\n",
       "t.toml:6: local.capacity: cannot be set beside [[tier]], which says it"},
      {"TierIsTheDataFolder", "[daemon]\ndata_dir = \"/d\"\n" + DriveText("/d"),
       "t.toml:3: tier.path: must be a folder of its own, not daemon.data_dir or "
       "daemon.runtime_dir"},
      {"TooManyTiers", many, "t.toml:257: tier: at most 64 local drives"},
  };
}

inline std::vector<BadConfig> BadAlphabet() {
  return {
      {"NotUtf8", "[sockets]\ngroup = \"\xc3\xa9\377\"\n",
       "t.toml:2: not TOML: '\\xff' is not UTF-8"},
      {"LetterOutsideAsciiAsAnEscape", "[sockets]\ngroup = \"\\\xc3\xa9\"\n",
       "t.toml:2: not TOML: string: unknown escape sequence '\\\\xc3\\xa9'"},
      {"LetterOutsideAsciiAsAnEscapeOnManyLines", "[sockets]\ngroup = \"\"\"0\\\xc3\xa9\n\"\"\"\n",
       "t.toml:2: not TOML: string: unknown escape sequence '\\\\xc3\\xa9'"},
      {"SpaceOutsideAsciiAfterABackslash", "[sockets]\ngroup = \"\"\"0\\\xc2\xa0\n\"\"\"\n",
       "t.toml:2: not TOML: string: unknown escape sequence '\\\\xc2\\xa0'"},
      {"LetterOutsideAsciiAsADigit", "[sockets]\ngroup = \"\\u00e\xc3\xa9\"\n",
       "t.toml:2: not TOML: unicode scalar sequence: expected hex digit, saw '\\xc3\\xa9'"},
      {"LetterOutsideAsciiAsAValue", "[sockets]\ngroup = \xc3\xa9\n",
       "t.toml:2: not TOML: characters outside ASCII belong into quotes"},
      {"LetterOutsideAsciiBehindAValue", "[daemon]\nio_threads = 2\xc3\xa9\n",
       "t.toml:2: not TOML: characters outside ASCII belong into quotes"},
      {"LetterOutsideAsciiBehindAString", "[sockets]\ngroup = \"\xc3\xa9\"\xc3\xa9\n",
       "t.toml:2: not TOML: characters outside ASCII belong into quotes"},
      {"ByteOrderMarkTwice", "\xef\xbb\xbf\n\xef\xbb\xbf[daemon]\n",
       "t.toml:2: not TOML: characters outside ASCII belong into quotes"},
      {"MistakeBehindLettersOutsideAscii", "# \xc3\xa9\n[sockets]\ngroup = \"\xc3\xa9\n",
       "t.toml:3: not TOML: string: *"},
      {"PunctuationOnlyAsEscapes",
       "#\xc3\xa9\n#\\u007e0060005e007c0040003b003f0021002500260"
       "02a0024003c003e\n",
       "t.toml:1: write punctuation as itself, not as \\u escapes"},
      {"UnknownKeyOutsideAscii", "[daemon]\n\"~\xc3\xa9\" = 1\n",
       "t.toml:2: unknown key '~\\xc3\\xa9' in [daemon]"},
      {"LettersOutsideAsciiInAKey", "[daemon]\n\xc3\xa9 = 1\n",
       "t.toml:2: not TOML: characters outside ASCII belong into quotes"},
      {"SpaceOutsideAscii", "[daemon]\nio_threads\xe2\x80\x83= 2\n",
       "t.toml:2: not TOML: characters outside ASCII belong into quotes"},
      {"LettersOutsideAsciiBehindAnEarlierMistake", "[daemon]\nio_threads 2\n\xc3\xa9 = 1\n",
       "t.toml:2: not TOML: *"},
  };
}

inline std::vector<BadConfig> BadDaemon() {
  return {
      {"RuntimeRelative", "[daemon]\nruntime_dir = \"run/terrace\"\n",
       "t.toml:2: daemon.runtime_dir: must be an absolute path, not 'run/terrace'"},
      {"RuntimeEmpty", "[daemon]\nruntime_dir = \"\"\n",
       "t.toml:2: daemon.runtime_dir: must be an absolute path, not ''"},
      {"RuntimeNotText", "[daemon]\nruntime_dir = 7\n",
       "t.toml:2: daemon.runtime_dir: must be an absolute path, not an integer"},
      {"RuntimeTooLong", "[daemon]\nruntime_dir = \"/" + std::string(94, 'r') + "\"\n",
       "t.toml:2: daemon.runtime_dir: must be at most 94 bytes long, not 95"},
      {"RuntimeWithControlCharacter", "[daemon]\nruntime_dir = \"/run/\\nterrace\"\n",
       "t.toml:2: daemon.runtime_dir: must not hold control characters: '/run/\\x0aterrace'"},
      {"DataRelative", "[daemon]\ndata_dir = \"./data\"\n",
       "t.toml:2: daemon.data_dir: must be an absolute path, not './data'"},
      {"DataTooLong", "[daemon]\ndata_dir = \"/" + std::string(1024, 'd') + "\"\n",
       "t.toml:2: daemon.data_dir: must be at most 1024 bytes long, not 1025"},
      {"DataEqualsRuntime", "[daemon]\ndata_dir = \"/run/terrace\"\n",
       "t.toml:2: daemon.data_dir: must not be daemon.runtime_dir: the former is closed to "
       "clients"},
      {"IoThreadsZero", "[daemon]\nio_threads = 0\n",
       "t.toml:2: daemon.io_threads: must be 1 to 64, not 0"},
      {"IoThreadsTooMany", "[daemon]\nio_threads = 65\n",
       "t.toml:2: daemon.io_threads: must be 1 to 64, not 65"},
      {"IoThreadsNegative", "[daemon]\nio_threads = -1\n",
       "t.toml:2: daemon.io_threads: must be 1 to 64, not -1"},
      {"IoThreadsDecimal", "[daemon]\nio_threads = 2.0\n",
       "t.toml:2: daemon.io_threads: must be an integer, not a decimal number"},
      {"IoThreadsText", "[daemon]\nio_threads = \"2\"\n",
       "t.toml:2: daemon.io_threads: must be an integer, not a string"},
      {"IoThreadsHuge", "[daemon]\nio_threads = 9223372036854775807\n",
       "t.toml:2: daemon.io_threads: must be 1 to 64, not 9223372036854775807"},
      {"CopyThreadsTooMany", "[daemon]\ncopy_threads = 257\n",
       "t.toml:2: daemon.copy_threads: must be 0 to 256, not 257"},
      {"CopyThreadsBoolean", "[daemon]\ncopy_threads = true\n",
       "t.toml:2: daemon.copy_threads: must be an integer, not true or false"},
      {"LogLevelUnknown", "[daemon]\nlog_level = \"verbose\"\n",
       "t.toml:2: daemon.log_level: must be one of debug, info, warning, error, not 'verbose'"},
      {"LogLevelCase", "[daemon]\nlog_level = \"INFO\"\n",
       "t.toml:2: daemon.log_level: must be one of debug, info, warning, error, not 'INFO'"},
      {"LogLevelNumber", "[daemon]\nlog_level = 3\n",
       "t.toml:2: daemon.log_level: must be one of debug, info, warning, error, not an integer"},
      {"LogFormatUnknown", "[daemon]\nlog_format = \"xml\"\n",
       "t.toml:2: daemon.log_format: must be one of logfmt, json, not 'xml'"},
      {"CoreDumpsText", "[daemon]\ncore_dumps = \"yes\"\n",
       "t.toml:2: daemon.core_dumps: must be true or false, not a string"},
  };
}

inline std::vector<BadConfig> BadDram() {
  return {
      {"CapacityTooSmall", "[dram]\ncapacity = \"63MiB\"\n",
       "t.toml:2: dram.capacity: must be 64MiB to 64TiB, not 63MiB"},
      {"CapacityZero", "[dram]\ncapacity = 0\n",
       "t.toml:2: dram.capacity: must be 64MiB to 64TiB, not 0B"},
      {"CapacityTooLarge", "[dram]\ncapacity = \"65TiB\"\n",
       "t.toml:2: dram.capacity: must be 64MiB to 64TiB, not 65TiB"},
      {"CapacityNegative", "[dram]\ncapacity = -1\n",
       "t.toml:2: dram.capacity: must not be negative: -1"},
      {"CapacityDecimalUnit", "[dram]\ncapacity = \"1GB\"\n",
       "t.toml:2: dram.capacity: must be a size such as \"64MiB\" (B, KiB, MiB, GiB, TiB), not "
       "'1GB'"},
      {"CapacityFraction", "[dram]\ncapacity = \"1.5GiB\"\n",
       "t.toml:2: dram.capacity: must be a size such as \"64MiB\" (B, KiB, MiB, GiB, TiB), not "
       "'1.5GiB'"},
      {"CapacityDecimal", "[dram]\ncapacity = 1e9\n",
       "t.toml:2: dram.capacity: must be a size such as \"64MiB\", not a decimal number"},
      {"CapacityNoNumber", "[dram]\ncapacity = \"GiB\"\n",
       "t.toml:2: dram.capacity: must be a size such as \"64MiB\" (B, KiB, MiB, GiB, TiB), not "
       "'GiB'"},
      {"CapacityEmpty", "[dram]\ncapacity = \"\"\n",
       "t.toml:2: dram.capacity: must be a size such as \"64MiB\" (B, KiB, MiB, GiB, TiB), not ''"},
      {"CapacitySigned", "[dram]\ncapacity = \"+1GiB\"\n",
       "t.toml:2: dram.capacity: must be a size such as \"64MiB\" (B, KiB, MiB, GiB, TiB), not "
       "'+1GiB'"},
      {"CapacityOverflows", "[dram]\ncapacity = \"18446744073709551615TiB\"\n",
       "t.toml:2: dram.capacity: must be a size such as \"64MiB\" (B, KiB, MiB, GiB, TiB), not "
       "'18446744073709551615TiB'"},
      {"CapacityBeyond64Bits", "[dram]\ncapacity = \"99999999999999999999GiB\"\n",
       "t.toml:2: dram.capacity: must be a size such as \"64MiB\" (B, KiB, MiB, GiB, TiB), not "
       "'99999999999999999999GiB'"},
      {"CapacityTrailingText", "[dram]\ncapacity = \"1GiB of it\"\n",
       "t.toml:2: dram.capacity: must be a size such as \"64MiB\" (B, KiB, MiB, GiB, TiB), not "
       "'1GiB of it'"},
      {"CapacityBoolean", "[dram]\ncapacity = true\n",
       "t.toml:2: dram.capacity: must be a size such as \"64MiB\", not true or false"},
      {"CapacityDate", "[dram]\ncapacity = 2026-01-01\n",
       "t.toml:2: dram.capacity: must be a size such as \"64MiB\", not a date"},
      {"HugePagesNumber", "[dram]\nhuge_pages = 1\n",
       "t.toml:2: dram.huge_pages: must be true or false, not an integer"},
      {"TouchThreadsTooMany", "[dram]\ntouch_threads = 1000\n",
       "t.toml:2: dram.touch_threads: must be 0 to 256, not 1000"},
      {"VerifyTooLarge", "[dram]\nverify_one_in = 1000001\n",
       "t.toml:2: dram.verify_one_in: must be 0 to 1000000, not 1000001"},
      {"VerifyArray", "[dram]\nverify_one_in = [64]\n",
       "t.toml:2: dram.verify_one_in: must be an integer, not an array"},
      {"PolicyUnknown", "[dram]\npolicy = \"mru\"\n",
       "t.toml:2: dram.policy: must be one of lru, phl, not 'mru'"},
      {"LeaseShareTooLarge", "[dram]\nlease_share = 1.5\n",
       "t.toml:2: dram.lease_share: must be 0 to 1, not 1.5"},
      {"LeaseShareNegative", "[dram]\nlease_share = -0.1\n",
       "t.toml:2: dram.lease_share: must be 0 to 1, not -0.1"},
      {"LeaseShareNan", "[dram]\nlease_share = nan\n",
       "t.toml:2: dram.lease_share: must be 0 to 1, not nan"},
      {"LeaseShareText", "[dram]\nlease_share = \"25%\"\n",
       "t.toml:2: dram.lease_share: must be a number from 0 to 1, not a string"},
      {"PinShareInfinite", "[dram]\npin_share = inf\n",
       "t.toml:2: dram.pin_share: must be 0 to 1, not inf"},
  };
}

inline std::vector<BadConfig> BadLimits() {
  return {
      {"ConnectionsZero", "[limits]\nconnections_per_uid = 0\n",
       "t.toml:2: limits.connections_per_uid: must be 1 to 65536, not 0"},
      {"ConnectionsPerUidAboveTotal",
       "[limits]\nconnections_per_uid = 100\nconnections_total = 99\n",
       "t.toml:2: limits.connections_per_uid: 100 is more than limits.connections_total, which is "
       "99"},
      {"ConnectionsTotalBelowDefaultPerUid", "[limits]\nconnections_total = 63\n",
       "t.toml:2: limits.connections_per_uid: 64 is more than limits.connections_total, which is "
       "63"},
      {"CallsTooMany", "[limits]\ncalls_in_flight_per_uid = 65537\n",
       "t.toml:2: limits.calls_in_flight_per_uid: must be 1 to 65536, not 65537"},
      {"MessageTooSmall", "[limits]\nmessage_bytes = 1024\n",
       "t.toml:2: limits.message_bytes: must be 64KiB to 4MiB, not 1KiB"},
      {"MessageTooLarge", "[limits]\nmessage_bytes = \"5MiB\"\n",
       "t.toml:2: limits.message_bytes: must be 64KiB to 4MiB, not 5MiB"},
      {"HelloTimeoutNumber", "[limits]\nhello_timeout = 2\n",
       "t.toml:2: limits.hello_timeout: must be a duration such as \"500ms\" or \"30s\", not an "
       "integer"},
      {"HelloTimeoutNoUnit", "[limits]\nhello_timeout = \"2\"\n",
       "t.toml:2: limits.hello_timeout: must be a duration such as \"500ms\" or \"30s\", not '2'"},
      {"HelloTimeoutTooLong", "[limits]\nhello_timeout = \"2h\"\n",
       "t.toml:2: limits.hello_timeout: must be 100ms to 1m, not 2h"},
      {"HelloTimeoutInfinite", "[limits]\nhello_timeout = \"inf\"\n",
       "t.toml:2: limits.hello_timeout: must be 100ms to 1m, not inf"},
      {"StallTimeoutTooShort", "[limits]\nwrite_stall_timeout = \"1ms\"\n",
       "t.toml:2: limits.write_stall_timeout: must be 100ms to 10m, not 1ms"},
      {"BacklogTooSmall", "[limits]\nreply_backlog = \"1MiB\"\n",
       "t.toml:2: limits.reply_backlog: must be 4MiB to 16GiB, not 1MiB"},
      {"ProbeCapZero", "[limits]\nprobe_cap = \"0s\"\n",
       "t.toml:2: limits.probe_cap: must be 1ms to 10m, not 0"},
      {"GetCapNegative", "[limits]\nget_cap = \"-5s\"\n",
       "t.toml:2: limits.get_cap: must be 1ms to 10m, not -5s"},
      {"PutCapTooLong", "[limits]\nput_cap = \"11m\"\n",
       "t.toml:2: limits.put_cap: must be 1ms to 10m, not 11m"},
      {"TenantsZero", "[limits]\ntenants = 0\n",
       "t.toml:2: limits.tenants: must be 1 to 4096, not 0"},
      {"HoldsTooMany", "[limits]\nholds_per_tenant = 1000001\n",
       "t.toml:2: limits.holds_per_tenant: must be 1 to 1000000, not 1000001"},
  };
}

inline std::vector<BadConfig> BadSockets() {
  return {
      {"ModeNumber", "[sockets]\nmode = 660\n",
       "t.toml:2: sockets.mode: must be four octal digits in quotes, such as \"0660\", not an "
       "integer"},
      {"ModeOctalNumber", "[sockets]\nmode = 0o660\n",
       "t.toml:2: sockets.mode: must be four octal digits in quotes, such as \"0660\", not an "
       "integer"},
      {"ModeThreeDigits", "[sockets]\nmode = \"660\"\n",
       "t.toml:2: sockets.mode: must be four octal digits in quotes, such as \"0660\", not '660'"},
      {"ModeNotOctal", "[sockets]\nmode = \"0690\"\n",
       "t.toml:2: sockets.mode: must be four octal digits in quotes, such as \"0660\", not '0690'"},
      {"ModeWithSetuid", "[sockets]\nmode = \"4660\"\n",
       "t.toml:2: sockets.mode: must be four octal digits in quotes, such as \"0660\", not '4660'"},
      {"ModeExecutable", "[sockets]\nmode = \"0770\"\n",
       "t.toml:2: sockets.mode: must let the owner read and write and nobody execute, not 0770"},
      {"ModeWithoutOwner", "[sockets]\nmode = \"0060\"\n",
       "t.toml:2: sockets.mode: must let the owner read and write and nobody execute, not 0060"},
      {"GroupUnknown", "[sockets]\ngroup = \"no-such-group-here\"\n",
       "t.toml:2: sockets.group: there is no group 'no-such-group-here'"},
      {"GroupNumber", "[sockets]\ngroup = 0\n",
       "t.toml:2: sockets.group: must be the name of a group, not an integer"},
      {"GroupWithSlash", "[sockets]\ngroup = \"a/b\"\n",
       "t.toml:2: sockets.group: must be the name of a group, not 'a/b'"},
      {"UnlistedUnknown", "[sockets]\nunlisted = \"allow\"\n",
       "t.toml:2: sockets.unlisted: must be one of deny, per-uid, not 'allow'"},
  };
}

inline std::vector<BadConfig> BadMetrics() {
  return {
      {"ListenEverywhere", "[metrics]\nlisten = \"0.0.0.0:9464\"\n",
       "t.toml:2: metrics.listen: must be \"off\", or a loopback address and port such as "
       "\"127.0.0.1:9464\", not '0.0.0.0:9464'"},
      {"ListenPrivateAddress", "[metrics]\nlisten = \"10.0.0.1:9464\"\n",
       "t.toml:2: metrics.listen: must be \"off\", or a loopback address and port such as "
       "\"127.0.0.1:9464\", not '10.0.0.1:9464'"},
      {"ListenName", "[metrics]\nlisten = \"localhost:9464\"\n",
       "t.toml:2: metrics.listen: must be \"off\", or a loopback address and port such as "
       "\"127.0.0.1:9464\", not 'localhost:9464'"},
      {"ListenIpv6", "[metrics]\nlisten = \"[::1]:9464\"\n",
       "t.toml:2: metrics.listen: must be \"off\", or a loopback address and port such as "
       "\"127.0.0.1:9464\", not '[::1]:9464'"},
      {"ListenAllIpv6", "[metrics]\nlisten = \"[::]:9464\"\n",
       "t.toml:2: metrics.listen: must be \"off\", or a loopback address and port such as "
       "\"127.0.0.1:9464\", not '[::]:9464'"},
      {"ListenPortOnly", "[metrics]\nlisten = \"9464\"\n",
       "t.toml:2: metrics.listen: must be \"off\", or a loopback address and port such as "
       "\"127.0.0.1:9464\", not '9464'"},
      {"ListenColonOnly", "[metrics]\nlisten = \":9464\"\n",
       "t.toml:2: metrics.listen: must be \"off\", or a loopback address and port such as "
       "\"127.0.0.1:9464\", not ':9464'"},
      {"ListenNoPort", "[metrics]\nlisten = \"127.0.0.1\"\n",
       "t.toml:2: metrics.listen: must be \"off\", or a loopback address and port such as "
       "\"127.0.0.1:9464\", not '127.0.0.1'"},
      {"ListenEmptyPort", "[metrics]\nlisten = \"127.0.0.1:\"\n",
       "t.toml:2: metrics.listen: must be \"off\", or a loopback address and port such as "
       "\"127.0.0.1:9464\", not '127.0.0.1:'"},
      {"ListenPortTooLarge", "[metrics]\nlisten = \"127.0.0.1:65536\"\n",
       "t.toml:2: metrics.listen: must be \"off\", or a loopback address and port such as "
       "\"127.0.0.1:9464\", not '127.0.0.1:65536'"},
      {"ListenPortWithTls", "[metrics]\nlisten = \"127.0.0.1:9464s\"\n",
       "t.toml:2: metrics.listen: must be \"off\", or a loopback address and port such as "
       "\"127.0.0.1:9464\", not '127.0.0.1:9464s'"},
      {"ListenTwo", "[metrics]\nlisten = \"127.0.0.1:1,0.0.0.0:2\"\n",
       "t.toml:2: metrics.listen: must be \"off\", or a loopback address and port such as "
       "\"127.0.0.1:9464\", not '127.0.0.1:1,0.0.0.0:2'"},
      {"ListenLeadingZero", "[metrics]\nlisten = \"127.0.0.01:9464\"\n",
       "t.toml:2: metrics.listen: must be \"off\", or a loopback address and port such as "
       "\"127.0.0.1:9464\", not '127.0.0.01:9464'"},
      {"ListenFiveParts", "[metrics]\nlisten = \"127.0.0.1.1:9464\"\n",
       "t.toml:2: metrics.listen: must be \"off\", or a loopback address and port such as "
       "\"127.0.0.1:9464\", not '127.0.0.1.1:9464'"},
      {"ListenThreeParts", "[metrics]\nlisten = \"127.0.1:9464\"\n",
       "t.toml:2: metrics.listen: must be \"off\", or a loopback address and port such as "
       "\"127.0.0.1:9464\", not '127.0.1:9464'"},
      {"ListenEmpty", "[metrics]\nlisten = \"\"\n",
       "t.toml:2: metrics.listen: must be \"off\", or a loopback address and port such as "
       "\"127.0.0.1:9464\", not ''"},
      {"ListenBoolean", "[metrics]\nlisten = false\n",
       "t.toml:2: metrics.listen: must be \"off\", or a loopback address and port such as "
       "\"127.0.0.1:9464\", not true or false"},
  };
}

inline std::vector<BadConfig> BadTenants() {
  return {
      {"TenantAsTable", "[tenant]\nalias = \"a\"\n",
       "t.toml:1: tenant: write [[tenant]], once for each tenant"},
      {"TenantAsValue", "tenant = \"a\"\n",
       "t.toml:1: tenant: write [[tenant]], once for each tenant"},
      {"TenantAsEmptyArray", "tenant = []\n",
       "t.toml:1: tenant: write [[tenant]], once for each tenant"},
      {"TenantWithoutAlias", "[[tenant]]\nuids = [1]\n", "t.toml:1: tenant: alias is missing"},
      {"TenantEmpty", "[daemon]\n[[tenant]]\n", "t.toml:2: tenant: alias is missing"},
      {"TenantWithoutIds", "[[tenant]]\nalias = \"a\"\n",
       "t.toml:1: tenant a: names neither uids nor gids, so nobody belongs to it"},
      {"TenantAliasEmpty", "[[tenant]]\nalias = \"\"\nuids = [1]\n",
       "t.toml:2: tenant.alias: must be 1 to 64 of a-z, 0-9, '.', '_', '-', beginning with a "
       "letter or digit, not ''"},
      {"TenantAliasTooLong", "[[tenant]]\nalias = \"" + std::string(65, 'a') + "\"\nuids = [1]\n",
       "t.toml:2: tenant.alias: must be 1 to 64 of a-z, 0-9, '.', '_', '-', beginning with a "
       "letter or digit, not '" +
           std::string(64, 'a') + "...'"},
      {"TenantAliasUpperCase", "[[tenant]]\nalias = \"Search\"\nuids = [1]\n",
       "t.toml:2: tenant.alias: must be 1 to 64 of a-z, 0-9, '.', '_', '-', beginning with a "
       "letter or digit, not 'Search'"},
      {"TenantAliasSlash", "[[tenant]]\nalias = \"a/b\"\nuids = [1]\n",
       "t.toml:2: tenant.alias: must be 1 to 64 of a-z, 0-9, '.', '_', '-', beginning with a "
       "letter or digit, not 'a/b'"},
      {"TenantAliasDotFirst", "[[tenant]]\nalias = \".a\"\nuids = [1]\n",
       "t.toml:2: tenant.alias: must be 1 to 64 of a-z, 0-9, '.', '_', '-', beginning with a "
       "letter or digit, not '.a'"},
      {"TenantAliasOfUnlisted", "[[tenant]]\nalias = \"uid-1000\"\nuids = [1]\n",
       "t.toml:2: tenant.alias: must not begin with uid-, which names the tenants of unlisted "
       "users: 'uid-1000'"},
      {"TenantAliasNumber", "[[tenant]]\nalias = 1\nuids = [1]\n",
       "t.toml:2: tenant.alias: must be a string, not an integer"},
      {"TenantAliasTwice",
       "[[tenant]]\nalias = \"a\"\nuids = [1]\n[[tenant]]\nalias = \"a\"\nuids = [2]\n",
       "t.toml:4: tenant a: there are two of this alias"},
      {"TenantUidTwice",
       "[[tenant]]\nalias = \"a\"\nuids = [1]\n[[tenant]]\nalias = \"b\"\nuids = [2, 1]\n",
       "t.toml:4: tenant b: uid 1 belongs to tenant a already"},
      {"TenantGidTwice",
       "[[tenant]]\nalias = \"a\"\ngids = [5]\n[[tenant]]\nalias = \"b\"\ngids = [5]\n",
       "t.toml:4: tenant b: gid 5 belongs to tenant a already"},
      {"TenantUidRepeated", "[[tenant]]\nalias = \"a\"\nuids = [1, 1]\n",
       "t.toml:3: tenant.uids: has 1 twice"},
      {"TenantUidNegative", "[[tenant]]\nalias = \"a\"\nuids = [-1]\n",
       "t.toml:3: tenant.uids: must be 0 to 4294967294, not -1"},
      {"TenantUidUnchanged", "[[tenant]]\nalias = \"a\"\nuids = [4294967295]\n",
       "t.toml:3: tenant.uids: must be 0 to 4294967294, not 4294967295"},
      {"TenantUidNames", "[[tenant]]\nalias = \"a\"\nuids = [\"root\"]\n",
       "t.toml:3: tenant.uids: must be an array of integers such as [1000, 1001], not an array "
       "that holds more than integers"},
      {"TenantUidNotArray", "[[tenant]]\nalias = \"a\"\nuids = 1000\n",
       "t.toml:3: tenant.uids: must be an array of integers such as [1000, 1001], not an integer"},
      {"TenantUidMixed", "[[tenant]]\nalias = \"a\"\nuids = [1, \"2\"]\n",
       "t.toml:3: tenant.uids: must be an array of integers such as [1000, 1001], not an array "
       "that holds more than integers"},
      {"TenantUidNested", "[[tenant]]\nalias = \"a\"\nuids = [[1]]\n",
       "t.toml:3: tenant.uids: must be an array of integers such as [1000, 1001], not an array "
       "that holds more than integers"},
      {"TenantTooManyUids", "[[tenant]]\nalias = \"a\"\nuids = " + NumbersBelow(1025) + "\n",
       "t.toml:3: tenant.uids: must have at most 1024 entries, not 1025"},
  };
}

inline std::vector<BadConfig> BadQuotas() {
  return {
      {"TenantUnknownKey", "[[tenant]]\nalias = \"a\"\nuid = [1]\n",
       "t.toml:3: unknown key 'uid' in [[tenant]]; did you mean uids?"},
      {"TenantGuaranteedText", "[[tenant]]\nalias = \"a\"\nuids = [1]\nguaranteed = \"much\"\n",
       "t.toml:4: tenant.guaranteed: must be a size such as \"64MiB\" (B, KiB, MiB, GiB, TiB), not "
       "'much'"},
      {"TenantLimitBelowGuaranteed",
       "[[tenant]]\nalias = \"a\"\nuids = [1]\nguaranteed = \"2MiB\"\nlimit = \"1MiB\"\n",
       "t.toml:1: tenant a: limit 1MiB is below guaranteed 2MiB"},
      {"TenantGuaranteesAboveCapacity",
       "[dram]\ncapacity = \"64MiB\"\n[[tenant]]\nalias = \"a\"\nuids = [1]\nguaranteed = "
       "\"40MiB\"\n[[tenant]]\nalias = \"b\"\nuids = [2]\nguaranteed = \"25MiB\"\n",
       "t.toml:7: tenant b: the guarantees up to this tenant exceed dram.capacity of 64MiB"},
      {"TenantGuaranteesWrapAround",
       "[[tenant]]\nalias = \"a\"\nuids = [1]\nguaranteed = 9223372036854775807\n[[tenant]]\nalias "
       "= \"b\"\nuids = [2]\nguaranteed = 9223372036854775807\n",
       "t.toml:1: tenant a: the guarantees up to this tenant exceed dram.capacity of 1GiB"},
      {"TenantsAboveLimit",
       "[limits]\ntenants = 1\n[[tenant]]\nalias = \"a\"\nuids = [1]\n[[tenant]]\nalias = "
       "\"b\"\nuids = [2]\n",
       "t.toml:6: more tenants than limits.tenants, which is 1"},
  };
}

inline std::vector<BadConfig> BadConfigs() {
  std::vector<BadConfig> all;
  for (const std::vector<BadConfig>& group :
       {BadStructure(), BadTiers(), BadShared(), BadNamespaces(), BadProtection(), BadTogether(),
        BadAlphabet(), BadDaemon(), BadDram(), BadLimits(), BadSockets(), BadMetrics(),
        BadTenants(), BadQuotas()}) {
    all.insert(all.end(), group.begin(), group.end());
  }
  return all;
}

}  // namespace terrace
