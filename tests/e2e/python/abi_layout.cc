// Prints size and offsets of the structs of terrace.h and watch.h, for the test that compares them
// with those of Python.
#include <cstddef>
#include <cstdio>

#include "terrace/watch.h"

#define STRUCT(name) std::printf("struct " #name " %zu\n", sizeof(name))
#define FIELD(name, field) \
  std::printf("field " #name " " #field " %zu %zu\n", offsetof(name, field), sizeof(name::field))

namespace {

void PrintClient() {
  STRUCT(terrace_slab_watch);
  FIELD(terrace_slab_watch, mapped);
  FIELD(terrace_slab_watch, unmapping);
  FIELD(terrace_slab_watch, context);
  STRUCT(terrace_options);
  FIELD(terrace_options, struct_bytes);
  FIELD(terrace_options, runtime_dir);
  FIELD(terrace_options, client_name);
  FIELD(terrace_options, default_deadline_ms);
  FIELD(terrace_options, reconnect_ms);
  FIELD(terrace_options, spin_us);
  FIELD(terrace_options, slabs);
  STRUCT(terrace_client_state);
  FIELD(terrace_client_state, struct_bytes);
  FIELD(terrace_client_state, connection);
  FIELD(terrace_client_state, boot_id);
  FIELD(terrace_client_state, reconnects);
  FIELD(terrace_client_state, calls_in_flight);
  FIELD(terrace_client_state, features);
  FIELD(terrace_client_state, leased_bytes);
  FIELD(terrace_client_state, lease_limit_bytes);
  FIELD(terrace_client_state, mapped_bytes);
  FIELD(terrace_client_state, leases_allowed);
}

void PrintNamespaces() {
  STRUCT(terrace_label);
  FIELD(terrace_label, key);
  FIELD(terrace_label, value);
  STRUCT(terrace_namespace_record);
  FIELD(terrace_namespace_record, struct_bytes);
  FIELD(terrace_namespace_record, model);
  FIELD(terrace_namespace_record, weights_revision);
  FIELD(terrace_namespace_record, kv_dtype);
  FIELD(terrace_namespace_record, quantization);
  FIELD(terrace_namespace_record, layout);
  FIELD(terrace_namespace_record, engine_format);
  FIELD(terrace_namespace_record, hash_algorithm);
  FIELD(terrace_namespace_record, hash_seed);
  FIELD(terrace_namespace_record, block_tokens);
  FIELD(terrace_namespace_record, block_bytes);
  FIELD(terrace_namespace_record, group);
  FIELD(terrace_namespace_record, group_kind);
  FIELD(terrace_namespace_record, shard_count);
  FIELD(terrace_namespace_record, shard_rank);
  FIELD(terrace_namespace_record, sharding);
  FIELD(terrace_namespace_record, parallel);
  FIELD(terrace_namespace_record, key_suffix);
  FIELD(terrace_namespace_record, key_suffix_bytes);
  FIELD(terrace_namespace_record, labels);
  FIELD(terrace_namespace_record, label_count);
}

void PrintRegions() {
  STRUCT(terrace_segment);
  FIELD(terrace_segment, offset);
  FIELD(terrace_segment, bytes);
  STRUCT(terrace_plane);
  FIELD(terrace_plane, offset);
  FIELD(terrace_plane, block_stride);
  FIELD(terrace_plane, segments);
  FIELD(terrace_plane, segment_count);
  STRUCT(terrace_region_spec);
  FIELD(terrace_region_spec, struct_bytes);
  FIELD(terrace_region_spec, fd);
  FIELD(terrace_region_spec, offset);
  FIELD(terrace_region_spec, bytes);
  FIELD(terrace_region_spec, block_count);
  FIELD(terrace_region_spec, planes);
  FIELD(terrace_region_spec, plane_count);
  FIELD(terrace_region_spec, block_bytes);
  FIELD(terrace_region_spec, read_only);
  FIELD(terrace_region_spec, memory);
  FIELD(terrace_region_spec, handle);
  FIELD(terrace_region_spec, device_uuid);
  FIELD(terrace_region_spec, allocation_bytes);
  FIELD(terrace_region_spec, planes_per_layer);
  FIELD(terrace_region_spec, canary_block);
}

void PrintCalls() {
  STRUCT(terrace_part);
  FIELD(terrace_part, struct_bytes);
  FIELD(terrace_part, ns);
  FIELD(terrace_part, rule);
  FIELD(terrace_part, salt);
  FIELD(terrace_part, salt_bytes);
  FIELD(terrace_part, keys);
  FIELD(terrace_part, key_bytes);
  FIELD(terrace_part, key_count);
  FIELD(terrace_part, first_token);
  FIELD(terrace_part, end_tokens);
  FIELD(terrace_part, window_tokens);
  FIELD(terrace_part, region);
  FIELD(terrace_part, block_indexes);
  FIELD(terrace_part, after_event);
  FIELD(terrace_part, progress_slot);
  STRUCT(terrace_call);
  FIELD(terrace_call, struct_bytes);
  FIELD(terrace_call, tag);
  FIELD(terrace_call, deadline_ms);
  FIELD(terrace_call, parts);
  FIELD(terrace_call, part_count);
  FIELD(terrace_call, request_id);
  FIELD(terrace_call, request_id_bytes);
  STRUCT(terrace_get_options);
  FIELD(terrace_get_options, struct_bytes);
  FIELD(terrace_get_options, delivery);
  FIELD(terrace_get_options, hold);
  FIELD(terrace_get_options, wait_pending);
  STRUCT(terrace_put_options);
  FIELD(terrace_put_options, struct_bytes);
  FIELD(terrace_put_options, payload_bytes);
  FIELD(terrace_put_options, parent);
  FIELD(terrace_put_options, parent_bytes);
  FIELD(terrace_put_options, wait_for);
  FIELD(terrace_put_options, output_tokens);
  FIELD(terrace_put_options, stop_reason);
  FIELD(terrace_put_options, session_end);
  FIELD(terrace_put_options, expected_return_ms);
  FIELD(terrace_put_options, compute_us);
}

void PrintCompletions() {
  STRUCT(terrace_completion);
  FIELD(terrace_completion, call_id);
  FIELD(terrace_completion, tag);
  FIELD(terrace_completion, verb);
  FIELD(terrace_completion, status);
  FIELD(terrace_completion, key_count);
  FIELD(terrace_completion, states);
  FIELD(terrace_completion, outcomes);
  FIELD(terrace_completion, reasons);
  FIELD(terrace_completion, levels);
  FIELD(terrace_completion, payload_bytes);
  FIELD(terrace_completion, data);
  FIELD(terrace_completion, lease);
  FIELD(terrace_completion, part_count);
  FIELD(terrace_completion, part_hits);
  FIELD(terrace_completion, part_boundary_keys);
  FIELD(terrace_completion, boundary_tokens);
  FIELD(terrace_completion, load_us);
  FIELD(terrace_completion, hit_bytes);
  FIELD(terrace_completion, hold);
  FIELD(terrace_completion, hold_ms);
  FIELD(terrace_completion, ticket);
  FIELD(terrace_completion, ticket_state);
  FIELD(terrace_completion, keys_total);
  FIELD(terrace_completion, keys_arrived);
  FIELD(terrace_completion, keys_failed);
  FIELD(terrace_completion, bytes_arrived);
  FIELD(terrace_completion, count);
  FIELD(terrace_completion, generation);
  FIELD(terrace_completion, error);
  FIELD(terrace_completion, recompute_us);
  FIELD(terrace_completion, worth_tokens);
}

void PrintWatch() {
  STRUCT(terrace_event);
  FIELD(terrace_event, kind);
  FIELD(terrace_event, key_count);
  FIELD(terrace_event, publisher_id);
  FIELD(terrace_event, sequence);
  FIELD(terrace_event, ns);
  FIELD(terrace_event, keys);
  FIELD(terrace_event, key_bytes);
  FIELD(terrace_event, parent_bytes);
  FIELD(terrace_event, parent);
  FIELD(terrace_event, salt);
  FIELD(terrace_event, salt_bytes);
  FIELD(terrace_event, block_tokens);
  FIELD(terrace_event, first_token);
  FIELD(terrace_event, tier);
  FIELD(terrace_event, record);
  FIELD(terrace_event, family);
  STRUCT(terrace_watch_options);
  FIELD(terrace_watch_options, struct_bytes);
  FIELD(terrace_watch_options, runtime_dir);
  FIELD(terrace_watch_options, client_name);
  FIELD(terrace_watch_options, reconnect_ms);
  FIELD(terrace_watch_options, snapshots);
  FIELD(terrace_watch_options, publisher_id);
  FIELD(terrace_watch_options, after_sequence);
  FIELD(terrace_watch_options, namespaces);
  FIELD(terrace_watch_options, namespace_count);
  FIELD(terrace_watch_options, heartbeat_ms);
  STRUCT(terrace_watch_state);
  FIELD(terrace_watch_state, struct_bytes);
  FIELD(terrace_watch_state, connection);
  FIELD(terrace_watch_state, publisher_id);
  FIELD(terrace_watch_state, sequence);
  FIELD(terrace_watch_state, complete);
  FIELD(terrace_watch_state, reconnects);
  FIELD(terrace_watch_state, error);
}

}  // namespace

int main() {
  PrintClient();
  PrintNamespaces();
  PrintRegions();
  PrintCalls();
  PrintCompletions();
  PrintWatch();
  return 0;
}
