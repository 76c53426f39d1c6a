#!/usr/bin/env bash
# The command line of terrace-sim.
set -u
sim=$1
sample=$2/lmc_agents.jsonl.gz
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
failures=0

# expect STATUS PATTERN ARG...: exit status, and an extended regular expression in what is printed.
expect() {
  local status=$1 pattern=$2 out got
  shift 2
  out=$("$sim" "$@" 2>&1)
  got=$?
  if [ "$got" -ne "$status" ] || ! grep -Eq -- "$pattern" <<<"$out"; then
    printf 'terrace-sim %s: status %s (wanted %s), no "%s" in:\n%s\n' "$*" "$got" "$status" "$pattern" "$out"
    failures=$((failures + 1))
  fi
}

expect 0 '--capacity' --help
expect 0 '^terrace-sim [0-9]+\.[0-9]+\.[0-9]+$' --version
expect 2 'needed'
expect 2 'mru is unknown' --trace "$sample" --policy mru
expect 2 'square is unknown' --generate square
expect 2 '--capacity' --trace "$sample" --capacity 0
expect 2 '--capacity' --trace "$sample" --capacity 101
expect 1 'absent' --trace "$folder/absent"
echo '{"timestamp":0}' >"$folder/bad.jsonl"
expect 1 'bad.jsonl: line 1: ' --trace "$folder/bad.jsonl"
echo '{"timestamp":0,"hash_ids":[]}' >"$folder/empty.jsonl"
expect 1 'no blocks' --trace "$folder/empty.jsonl"
expect 1 'cannot be written' --trace "$sample" --policy lru --capacity 1 --plot "$folder/no/such.svg"
expect 0 '^lru +48\.40' --trace "$sample" --policy lru,min --capacity 1
expect 0 '^\{"results":\[\{"trace":"lmc_agents","policy":"lru","capacity_percent":1\.0' \
  --trace "$sample" --policy lru --capacity 1 --json
expect 0 '"trace":"cyclic"' --generate cyclic --policy lru --capacity 1 --json --plot "$folder/plot.svg"
grep -q '</svg>' "$folder/plot.svg" || { echo 'no picture'; failures=$((failures + 1)); }

expect 0 '--blocks-per-second' pool --help
expect 2 '--seconds' pool --seconds 0
expect 2 'hundred' pool --nodes hundred
expect 1 'nodes: from 1' pool --nodes 0
expect 1 'capacity_bytes' pool --nodes 2 --capacity 4KiB
expect 0 '^ +2 +4\.00 ' pool --nodes 2 --seconds 20
expect 0 '^\{"pools":\[\{"nodes":2,' pool --nodes 2 --seconds 20 --json

expect 0 '--budget' tiers --help
expect 2 '--trace' tiers
expect 2 '--writes' tiers --trace "$sample" --writes sometimes
expect 2 'no rule named sometimes' tiers --trace "$sample" --writes sometimes
expect 2 'threshold:2' tiers --trace "$sample" --writes threshold:2
expect 0 '^lru +log +1\+5 +threshold:0.3 ' tiers --trace "$sample" --policy lru --dram 1 --local 5 --writes threshold:0.3
expect 0 '^lru +log +1\+5 +priced, ' tiers --trace "$sample" --policy lru --dram 1 --local 5 --writes threshold:0.3 --matched
expect 2 '--policy' tiers --trace "$sample" --policy mru
expect 2 '--budget' tiers --trace "$sample" --budget 0
expect 1 'absent' tiers --trace "$folder/absent"
expect 1 'no blocks' tiers --trace "$folder/empty.jsonl"
expect 1 'too few blocks' tiers --trace "$sample" --local 0.0001
expect 0 '^phl +log +1\+5 +priced, 50 % ' tiers --trace "$sample" --dram 1 --local 5
expect 0 '^\{"results":\[\{"trace":"lmc_agents","policy":"lru","local_policy":"log"' tiers --trace "$sample" \
  --policy lru --dram 1 --local 5 --json

timed() { expect "$1" "$2" tiers --trace "$sample" --policy lru --writes eviction --dram 1 --local 5 "${@:3}"; }
timed 0 'of a read, in ms; default dram=' --help
timed 0 'in GB/s' --help
timed 0 '^lru +log +1\+5 +eviction +worth +none ' --timed
timed 0 '^lru +log +1\+5\+60 +eviction +never +probe ' --shared 60 --load never --prefetch probe --lead 0.5 --stray 5 --seed 3
timed 0 '"first_token_s":\{"mean":' --latency local=1 --json
timed 1 '--bandwidth disk=1: dram, local or shared' --bandwidth disk=1
timed 1 '--prefill 5: TOKENS=SECONDS' --prefill 5
timed 1 '--plot .*cannot be written' --plot "$folder/no/such.svg"
timed 0 'first token' --timed --plot "$folder/tiers.svg"
grep -q '</svg>' "$folder/tiers.svg" || { echo 'no picture of tiers'; failures=$((failures + 1)); }
timed 2 '--load' --load sometimes
timed 2 '--prefetch' --prefetch always
timed 2 '--lead' --lead -1
timed 2 '--stray' --stray 101
timed 2 '--shared' --shared -1
timed 2 '--token-bytes' --token-bytes 0

# The same run gives the same bytes, whatever the number of threads.
"$sim" --trace "$sample" --generate random --seed 7 --policy all --capacity 1,5 --json --jobs 1 >"$folder/one"
"$sim" --trace "$sample" --generate random --seed 7 --policy all --capacity 1,5 --json --jobs 2 >"$folder/two"
cmp "$folder/one" "$folder/two" || failures=$((failures + 1))
exit "$((failures > 0))"
