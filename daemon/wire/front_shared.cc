#include "daemon/wire/front_shared.h"

namespace terrace {

std::string_view VerbName(v1::Method method) {
  switch (method) {
    case v1::METHOD_HELLO:
      return "Hello";
    case v1::METHOD_OPEN_NAMESPACE:
      return "OpenNamespace";
    case v1::METHOD_CLEAR_NAMESPACE:
      return "ClearNamespace";
    case v1::METHOD_REGISTER_REGION:
      return "RegisterRegion";
    case v1::METHOD_UNREGISTER_REGION:
      return "UnregisterRegion";
    case v1::METHOD_PROBE:
      return "Probe";
    case v1::METHOD_PREFETCH:
      return "Prefetch";
    case v1::METHOD_TICKET:
      return "Ticket";
    case v1::METHOD_GET:
      return "Get";
    case v1::METHOD_RELEASE:
      return "Release";
    case v1::METHOD_PUT:
      return "Put";
    case v1::METHOD_FLUSH:
      return "Flush";
    case v1::METHOD_DELETE:
      return "Delete";
    case v1::METHOD_PIN:
      return "Pin";
    case v1::METHOD_UNPIN:
      return "Unpin";
    case v1::METHOD_CANCEL:
      return "Cancel";
    case v1::METHOD_WATCH:
      return "Watch";
    case v1::METHOD_MAP_SLAB:
      return "MapSlab";
    case v1::METHOD_PING:
      return "Ping";
    default:
      return "other";
  }
}

}  // namespace terrace
