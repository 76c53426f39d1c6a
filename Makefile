# Each verb is one line over a preset of CMakePresets.json, and works from a clean clone.
.DEFAULT_GOAL := help
.PHONY: help setup build run test slow asan tsan locks analyze format bench install package coverage clean

jobs := $(shell nproc)
prefix ?= /usr/local
# e.g. CTEST_FLAGS='--tests-regex session --repeat until-fail:10'
CTEST_FLAGS ?=
# ThreadSanitizer of these compilers cannot start where the kernel randomises addresses over more than 28 bits.
fixed_addresses := $(shell setarch -R true 2>/dev/null && echo setarch -R)
# What runs on one thread gains nothing from ThreadSanitizer and would double the time that it takes. grpc_streams_test cannot be
# judged by it: gRPC's stream templates are instrumented with our code, and what orders them lies in a library that is not.
tsan_programs := async_io_contract_test block_store_test block_store_model_test carriers_test client_absence_test client_gpu_workers_test client_leases_test client_parting_test client_threads_test \
                 client_wire_test copy_test daemon_ops_test dram_test front_test gpu_handoff_test gpu_test os_test protection_test segment_threads_test \
                 shared_test wire_test worker_test
asan_programs := arena_model_test async_io_contract_test block_store_model_test block_store_test carriers_test client_calls_test client_cpp_test client_gpu_workers_test \
                 client_leases_test client_parting_test client_threads_test client_watch_test client_wire_test config_fuzz_test copy_test cuda_contract_test daemon_ops_test dram_test \
                 file_system_contract_test frames_fuzz_test gpu_handoff_test gpu_model_test gpu_test grpc_streams_test index_test placement_model_test placement_test pool_model_test protected_fleet_test protection_test \
                 segment_test shared_test streams_fuzz_test trace_test vocab_test wire_test
empty :=
asan_tests := ^($(subst $(empty) $(empty),|,$(strip $(asan_programs))))\.
tsan_tests := ^($(subst $(empty) $(empty),|,$(strip $(tsan_programs))))\.
build = cmake --preset $(1) --log-level=WARNING && cmake --build --preset $(1) --parallel $(jobs)

help: ## list the verbs
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|' 2>/dev/null || grep '##' $(MAKEFILE_LIST)

setup: ## install what building and testing needs (root or sudo)
	@tools/setup --quiet build test

build: setup ## daemon, tools and client library, optimised, into build/release
	@$(call build,release)

run: build ## replay a recorded trace against a daemon of its own, and say what was saved
	@tools/run_demo build/release

test: build ## the fast suite
	@ctest --preset fast --parallel $(jobs) $(CTEST_FLAGS)

asan: setup ## rooms, store, carriers and client under AddressSanitizer and UndefinedBehaviorSanitizer
	@$(call build,asan) --target $(asan_programs) && ctest --preset asan --tests-regex '$(asan_tests)' --parallel $(jobs) $(CTEST_FLAGS)

tsan: setup ## the programs of the fast suite that have more than one thread, under ThreadSanitizer
	@$(call build,tsan) --target $(tsan_programs) && $(fixed_addresses) ctest --preset tsan --tests-regex '$(tsan_tests)' --parallel $(jobs) $(CTEST_FLAGS)

locks: setup ## clang's thread-safety analysis, over all but the tests
	@$(call build,analyze)

analyze: setup ## clang's thread-safety analysis, clang-tidy and the house rules
	@$(call build,analyze) && tests/tidy/clang_tidy.py --build build/analyze --jobs $(jobs) && tests/tidy/tidy.py

slow: build ## the slow suite: crashes, load, the canary of clang-tidy, the gates on the unit
	@ctest --preset slow --parallel $(jobs) $(CTEST_FLAGS)

format: setup ## clang-format over every source
	@git ls-files -co --exclude-standard '*.h' '*.cc' '*.hpp' '*.c' ':!tests/tidy/samples' | xargs clang-format-14 -i

bench: build ## the DRAM figures; other scenarios: build/release/tools/terrace-bench --help
	@tools/setup --quiet bench && build/release/tools/terrace-bench dram

install: build ## under $(prefix); DESTDIR is honoured
	@cmake --preset release -DCMAKE_INSTALL_PREFIX=$(prefix) --log-level=WARNING && cmake --build --preset release && cmake --install build/release

package: build ## Debian packages of it, into build/packages
	@cpack --config build/release/CPackConfig.cmake -B build/packages && ls build/packages/*.deb

coverage: setup ## line and branch coverage of the fast suite, into build/coverage/report
	@tools/setup --quiet coverage && $(call build,coverage) && ctest --preset coverage --parallel $(jobs) $(CTEST_FLAGS) && tools/coverage build/coverage

clean: ## remove every build
	@rm -rf build
