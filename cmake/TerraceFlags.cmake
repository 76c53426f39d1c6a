# terrace_flags: language level, warnings, hardening and instrumentation of everything written in this repository.
# Every target links it PRIVATE. Also switches on ccache when there is one.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_C_STANDARD 11)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "Build type" FORCE)
endif()

include(CheckPIESupported)
check_pie_supported(LANGUAGES CXX C)

find_program(TERRACE_CCACHE ccache)
if(TERRACE_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # Paths relative to the tree, so that another clone of it and another preset's folder find the same objects.
  set(terrace_launcher ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${PROJECT_SOURCE_DIR} CCACHE_NOHASHDIR=1 ${TERRACE_CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${terrace_launcher})
  set(CMAKE_C_COMPILER_LAUNCHER ${terrace_launcher})
endif()

set(gnu "$<CXX_COMPILER_ID:GNU>")
set(clang "$<CXX_COMPILER_ID:Clang>")
set(cxx "$<COMPILE_LANGUAGE:CXX>")
set(optimised "$<CONFIG:Release,RelWithDebInfo,MinSizeRel>")

# terrace_instrumentation alone goes to generated code as well: a sanitizer has to see the whole program.
add_library(terrace_instrumentation INTERFACE)
if(TERRACE_SANITIZE)
  target_compile_options(
    terrace_instrumentation INTERFACE -fsanitize=${TERRACE_SANITIZE} -fno-omit-frame-pointer
                                      -fno-sanitize-recover=all)
  target_link_options(terrace_instrumentation INTERFACE -fsanitize=${TERRACE_SANITIZE})
endif()
if(TERRACE_SANITIZE MATCHES thread)
  # Without it every object behind an absl::Mutex, and every reactor of gRPC, is reported as a race: the distribution's
  # libraries are not instrumented.
  add_subdirectory(${CMAKE_CURRENT_LIST_DIR}/tsan ${PROJECT_BINARY_DIR}/cmake/tsan)
  target_sources(
    terrace_instrumentation
    INTERFACE "$<$<STREQUAL:$<TARGET_PROPERTY:TYPE>,EXECUTABLE>:$<TARGET_OBJECTS:terrace_tsan_edges>>")
  target_link_libraries(terrace_instrumentation INTERFACE absl::synchronization)
  target_compile_options(
    terrace_instrumentation
    INTERFACE "$<${cxx}:SHELL:-include ${CMAKE_CURRENT_LIST_DIR}/tsan/distribution_layout.h>")
endif()
if(TERRACE_COVERAGE)
  # Atomic counters: the daemon is multi-threaded, and torn counters come out negative.
  target_compile_options(terrace_instrumentation INTERFACE --coverage -fprofile-update=atomic)
  target_link_options(terrace_instrumentation INTERFACE --coverage)
endif()
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|i.86")
  target_compile_options(terrace_instrumentation INTERFACE -fcf-protection)
endif()
target_compile_definitions(terrace_instrumentation INTERFACE _GLIBCXX_ASSERTIONS)
target_compile_options(terrace_instrumentation INTERFACE -fstack-protector-strong)
target_link_options(terrace_instrumentation INTERFACE LINKER:-z,relro LINKER:-z,now LINKER:-z,noexecstack)
if(NOT TERRACE_SANITIZE AND NOT TERRACE_COVERAGE)
  # Needs an optimiser, and hides from sanitizers what they would report. Distributions predefine a lower level.
  target_compile_options(terrace_instrumentation INTERFACE
                         "$<${optimised}:-U_FORTIFY_SOURCE;-D_FORTIFY_SOURCE=3>")
endif()

add_library(terrace_flags INTERFACE)
target_link_libraries(terrace_flags INTERFACE terrace_instrumentation)
target_include_directories(terrace_flags INTERFACE ${PROJECT_SOURCE_DIR})
target_compile_options(
  terrace_flags
  INTERFACE -Wall
            -Wextra
            -Wpedantic
            -Wshadow
            -Wconversion
            "$<${gnu}:-Wduplicated-cond;-Wlogical-op>"
            "$<$<AND:${gnu},${cxx}>:-Wsuggest-override>"
            "$<${clang}:-Wthread-safety>")
if(TERRACE_WERROR)
  target_compile_options(terrace_flags INTERFACE -Werror)
endif()
