#!/usr/bin/env bash
# The parts of terrace-bench's command line that need no daemon.
set -u
bench=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
failures=0

# expect STATUS PATTERN ARG...: exit status, and an extended regular expression in what is printed.
expect() {
  local status=$1 pattern=$2 out got
  shift 2
  out=$("$bench" "$@" 2>&1)
  got=$?
  if [ "$got" -ne "$status" ] || ! grep -Eq -- "$pattern" <<<"$out"; then
    printf 'terrace-bench %s: status %s (wanted %s), no "%s" in:\n%s\n' "$*" "$got" "$status" "$pattern" "$out"
    failures=$((failures + 1))
  fi
}

expect 0 'replay' --help
expect 0 '--trace' replay --help
expect 0 '^terrace-bench [0-9]+\.[0-9]+\.[0-9]+$' --version
expect 2 'subcommand' # none given
expect 2 'subcommand' teleport
expect 2 '--trace' replay
expect 2 '--pairs' dram --pairs 8
expect 2 '--dram' dram --dram lots
expect 1 'absent' replay --trace "$folder/absent"
echo '{"timestamp":0}' >"$folder/bad.jsonl"
expect 1 'bad.jsonl: line 1: ' replay --trace "$folder/bad.jsonl"
expect 1 'session.sock' dram --runtime "$folder"
expect 1 '--policy' dram --policy lru --runtime "$folder"
expect 2 '--policy' dram --policy parrot
expect 2 '--kills' torture --kills 0
expect 1 '--runtime' torture --runtime "$folder"
expect 1 '--runtime' ttft --runtime "$folder"
TERRACE_CUDA_DRIVER=$folder/absent.so expect 1 'no CUDA driver: .*absent' gpu --data "$folder"
expect 1 '--block-bytes' gpu --block-bytes 4096
expect 2 '--model' ttft --model parrot
expect 1 '--runtime' neighbour --runtime "$folder"
expect 2 '' --be-a-neighbour # what it starts itself, with arguments
expect 1 '--blocks: 64 to 16384 of 16 tokens' ttft --blocks 63 --data "$folder"
expect 1 'nothing-here' torture --terraced "$folder/nothing-here" --data "$folder"
expect 1 'nothing-here' dram --terraced "$folder/nothing-here" --data "$folder"
expect 1 'ended while starting' dram --terraced /bin/false --data "$folder"
if [ -n "$(find "$folder" -mindepth 1 ! -name bad.jsonl)" ]; then
  echo "left behind in the private folder:"
  find "$folder" -mindepth 1
  failures=$((failures + 1))
fi
exit "$((failures > 0))"
