// The worker that ships: terraced itself, in its other role.
#include <cstring>
#include <memory>
#include <string>

#include <gtest/gtest.h>

#include "daemon/worker/worker_pool_files.h"
#include "tests/doubles/private_folder.h"
#include "tiers/shared/pool_files.h"

namespace terrace {
namespace {

TEST(TerracedAsAWorker, MakesTheCallsOfAPool) {
  const doubles::PrivateFolder folder;
  WorkerPoolFilesOptions options;
  options.name = "g4";
  options.root = folder.path();
  options.program = TERRACED_PATH;
  const std::unique_ptr<PoolFiles> files = *MakeWorkerPoolFiles(options, {&BootClock(), nullptr});
  PoolCall create;
  create.op = PoolOp::kCreate;
  create.path = "a";
  create.length = 5;
  create.buffer = files->TakeBuffer(5);
  std::memcpy(create.buffer->memory().data(), "hello", 5);
  ASSERT_TRUE(files->Call(std::move(create)).status.ok());
  PoolCall read;
  read.op = PoolOp::kRead;
  read.path = "a";
  read.length = 4096;
  read.buffer = files->TakeBuffer(4096);
  const std::shared_ptr<PoolBuffer> buffer = read.buffer;
  const PoolReply reply = files->Call(std::move(read));
  ASSERT_TRUE(reply.status.ok()) << reply.status;
  EXPECT_EQ(std::string(buffer->memory().data(), reply.bytes), "hello");
  EXPECT_EQ(files->figures().starts, 1U);
}

}  // namespace
}  // namespace terrace
