# Everything from outside, in one place. Names to link:
#   gRPC::grpc++ gRPC::grpc++_reflection   protobuf::libprotobuf      absl::...
#   prometheus-cpp::core prometheus-cpp::pull                         spdlog::spdlog
#   tomlplusplus::tomlplusplus             CLI11::CLI11               OpenSSL::Crypto
#   RocksDB::rocksdb-shared
#   PkgConfig::LIBURING PkgConfig::XXHASH PkgConfig::SYSTEMD          ZLIB::ZLIB
#   ZeroMQ::zmq
#   GTest::gtest GTest::gmock (tests only) Threads::Threads
# protozero is header-only and lies in the default include path.

find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)
find_package(OpenSSL REQUIRED)
find_package(ZLIB REQUIRED)
find_package(absl CONFIG REQUIRED)
# The distribution's Protobuf comes without a CMake package of its own; gRPC's needs the module's targets.
find_package(Protobuf MODULE REQUIRED)
find_package(gRPC CONFIG REQUIRED)
find_package(prometheus-cpp CONFIG REQUIRED)
find_package(spdlog CONFIG REQUIRED)
find_package(CLI11 CONFIG REQUIRED)
find_package(RocksDB CONFIG REQUIRED)

find_package(tomlplusplus CONFIG QUIET)
if(NOT TARGET tomlplusplus::tomlplusplus)
  pkg_check_modules(TOMLPLUSPLUS REQUIRED IMPORTED_TARGET GLOBAL tomlplusplus)
  add_library(tomlplusplus::tomlplusplus ALIAS PkgConfig::TOMLPLUSPLUS)
endif()
pkg_check_modules(LIBURING REQUIRED IMPORTED_TARGET GLOBAL liburing)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET GLOBAL libxxhash)
pkg_check_modules(SYSTEMD REQUIRED IMPORTED_TARGET GLOBAL libsystemd)
# Not by pkg-config, which adds the folders of Kerberos and others that libzmq itself uses, and differs from run to run.
find_path(TERRACE_ZMQ_DIR zmq.h REQUIRED)
find_library(TERRACE_ZMQ_LIBRARY zmq REQUIRED)
add_library(ZeroMQ::zmq UNKNOWN IMPORTED GLOBAL)
set_target_properties(ZeroMQ::zmq PROPERTIES IMPORTED_LOCATION ${TERRACE_ZMQ_LIBRARY} INTERFACE_INCLUDE_DIRECTORIES
                                                                                      ${TERRACE_ZMQ_DIR})

find_path(TERRACE_PROTOZERO_DIR protozero/pbf_reader.hpp REQUIRED)
find_program(TERRACE_GRPC_PLUGIN grpc_cpp_plugin REQUIRED)

if(TERRACE_BUILD_TESTS)
  find_package(GTest CONFIG REQUIRED)
endif()
