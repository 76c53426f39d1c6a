#include "daemon/metrics_gpu.h"

#include "daemon/concat.h"

namespace terrace {
namespace {

Labels Of(const GpuDeviceFigures& device) {
  return {Label("gpu", Concat(device.number))};
}

template <typename Number>
void AddEach(const GpuFigures& figures, const Number& number, Families* out) {
  for (const GpuDeviceFigures& device : figures.devices) {
    out->Add(Of(device), static_cast<double>(number(device)));
  }
}

void AddWorkers(const GpuFigures& figures, Families* out) {
  const auto add = [&](auto GpuDeviceFigures::*member) {
    AddEach(
        figures, [member](const GpuDeviceFigures& device) { return device.*member; }, out);
  };
  out->Gauge("gpu_worker_serving", "1 while a worker process serves the GPU.");
  add(&GpuDeviceFigures::serving);
  out->Counter("gpu_worker_starts_total", "Worker processes that were started for the GPU.");
  add(&GpuDeviceFigures::worker_starts);
  out->Counter("gpu_workers_lost_total", "Of them, that died or were killed for not answering.");
  add(&GpuDeviceFigures::workers_lost);
  out->Gauge("gpu_workers_leaving", "Workers that were killed and are not over yet.");
  add(&GpuDeviceFigures::workers_leaving);
  out->Gauge("gpu_regions", "Regions of the GPU that clients share.");
  add(&GpuDeviceFigures::regions);
  out->Gauge("gpu_copies_in_flight", "Copies that have been asked for and have not ended.");
  add(&GpuDeviceFigures::copies_in_flight);
  out->Gauge("gpu_staging_used_bytes", "Staging memory that puts on their way take.");
  add(&GpuDeviceFigures::staging_bytes_used);
}

void AddMemory(const GpuFigures& figures, Families* out) {
  out->Gauge("gpu_host_memory_bytes",
             "Memory that the present worker copies from and to, by how it is reached.");
  for (const GpuDeviceFigures& device : figures.devices) {
    for (const auto& [kind, bytes] : {std::pair("direct", device.worker.direct_memory_bytes),
                                      std::pair("ring", device.worker.ring_memory_bytes)}) {
      out->Add({Label("gpu", Concat(device.number)), Label("kind", kind)},
               static_cast<double>(bytes));
    }
  }
  out->Gauge("gpu_gathered_piece_bytes",
             "Pieces of blocks up to this size are gathered by a kernel, by direction; 0: none.");
  for (const GpuDeviceFigures& device : figures.devices) {
    for (const auto& [verb, bytes] :
         {std::pair("load", device.load_piece_bytes), std::pair("save", device.save_piece_bytes)}) {
      out->Add({Label("gpu", Concat(device.number)), Label("verb", verb)},
               static_cast<double>(bytes));
    }
  }
  out->Gauge("gpu_worker_gathered_bytes", "Bytes that the present worker copied by the kernels.");
  AddEach(
      figures, [](const GpuDeviceFigures& device) { return device.worker.bytes_gathered; }, out);
  out->Gauge("gpu_worker_copied_bytes", "Bytes that the present worker has copied, by direction.");
  for (const GpuDeviceFigures& device : figures.devices) {
    for (const auto& [verb, bytes] : {std::pair("load", device.worker.bytes_to_device),
                                      std::pair("save", device.worker.bytes_to_host)}) {
      out->Add({Label("gpu", Concat(device.number)), Label("verb", verb)},
               static_cast<double>(bytes));
    }
  }
}

}  // namespace

void AddGpus(const GpuFigures& figures, Families* out) {
  out->Counter("gpu_gets_total", "Gets into GPU regions that have ended.")
      .Add({}, static_cast<double>(figures.gets));
  out->Counter("gpu_puts_total", "Puts from GPU regions that have ended.")
      .Add({}, static_cast<double>(figures.puts));
  out->Counter("gpu_loaded_bytes_total", "Payload that gets have brought to GPUs.")
      .Add({}, static_cast<double>(figures.loaded_bytes));
  out->Counter("gpu_saved_bytes_total", "Payload that puts have brought from GPUs.")
      .Add({}, static_cast<double>(figures.saved_bytes));
  if (!figures.devices.empty()) {
    AddWorkers(figures, out);
    AddMemory(figures, out);
  }
}

}  // namespace terrace
