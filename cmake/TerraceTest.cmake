# terrace_test(NAME name LABELS fast|slow|gpu SOURCES file... LIBS target... [TIMEOUT seconds] [ENVIRONMENT k=v] [SERIAL])
#
# A GoogleTest program of which every case is a ctest test of its own, called name.Suite.Case. SERIAL: its cases don't run
# beside others (they look at the whole machine). The main function is GoogleMock's, so that both libraries can be used.
#
# terrace_command_test(NAME name LABELS fast|slow|gpu COMMAND arg... [TIMEOUT seconds] [ENVIRONMENT k=v...])
#
# Any other program as a test; exit status 77 means skipped.
include(GoogleTest)

# A sanitized or slow test may take longer than the same test plain.
function(terrace_test_timeout out labels)
  set(timeout 60)
  if("slow" IN_LIST labels OR "gpu" IN_LIST labels)
    set(timeout 600)
  endif()
  if(TERRACE_SANITIZE OR TERRACE_COVERAGE)
    math(EXPR timeout "${timeout} * 3")
  endif()
  set(${out} ${timeout} PARENT_SCOPE)
endfunction()

function(terrace_test)
  cmake_parse_arguments(PARSE_ARGV 0 arg "SERIAL" "NAME;TIMEOUT" "LABELS;SOURCES;LIBS;ENVIRONMENT")
  if(arg_UNPARSED_ARGUMENTS OR NOT arg_NAME OR NOT arg_SOURCES OR NOT arg_LABELS)
    message(FATAL_ERROR "terrace_test(${arg_NAME}): NAME, LABELS and SOURCES are needed; unknown: ${arg_UNPARSED_ARGUMENTS}")
  endif()
  if(NOT arg_TIMEOUT)
    terrace_test_timeout(arg_TIMEOUT "${arg_LABELS}")
  endif()
  add_executable(${arg_NAME} ${arg_SOURCES})
  target_link_libraries(${arg_NAME} PRIVATE ${arg_LIBS} terrace_flags GTest::gmock_main GTest::gmock GTest::gtest
                                            Threads::Threads)
  set(properties LABELS "${arg_LABELS}" TIMEOUT ${arg_TIMEOUT})
  if(arg_ENVIRONMENT)
    list(LENGTH arg_ENVIRONMENT variables)
    if(variables GREATER 1)
      message(FATAL_ERROR "terrace_test(${arg_NAME}): gtest_discover_tests takes one variable and drops the rest")
    endif()
    list(APPEND properties ENVIRONMENT "${arg_ENVIRONMENT}")
  endif()
  if(arg_SERIAL)
    list(APPEND properties RUN_SERIAL ON)
  endif()
  # Looked up when ctest starts, not while building: a test program that cannot start fails as a test.
  gtest_discover_tests(
    ${arg_NAME}
    TEST_PREFIX ${arg_NAME}.
    DISCOVERY_MODE PRE_TEST
    DISCOVERY_TIMEOUT 60
    PROPERTIES ${properties})
endfunction()

function(terrace_command_test)
  cmake_parse_arguments(PARSE_ARGV 0 arg "SERIAL" "NAME;TIMEOUT" "LABELS;COMMAND;ENVIRONMENT")
  if(NOT arg_TIMEOUT)
    terrace_test_timeout(arg_TIMEOUT "${arg_LABELS}")
  endif()
  add_test(NAME ${arg_NAME} COMMAND ${arg_COMMAND})
  set_tests_properties(
    ${arg_NAME} PROPERTIES LABELS "${arg_LABELS}" TIMEOUT ${arg_TIMEOUT} SKIP_RETURN_CODE 77
                           ENVIRONMENT "${arg_ENVIRONMENT}")
  if(arg_SERIAL)
    set_tests_properties(${arg_NAME} PROPERTIES RUN_SERIAL ON)
  endif()
endfunction()
