/* The ABI's headers alone, as a C99 program sees them. */
#include "terrace/watch.h"

int terrace_header_is_c99(void) {
  terrace_options options = {0};
  options.struct_bytes = sizeof(options);
  return options.struct_bytes == sizeof(terrace_options) ? TERRACE_OK : TERRACE_INTERNAL;
}
