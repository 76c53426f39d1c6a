#include "tiers/os/rooted_failure.h"

#include <errno.h>

#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"

#include "tiers/os/descriptor.h"

namespace terrace {

absl::Status RootedFailure(int error, absl::string_view what, absl::string_view path) {
  const std::string text = absl::StrCat(what, " ", path.empty() ? "the root" : path);
  char reason[128];
  const std::string explained = absl::StrCat(text, ": ", strerror_r(error, reason, sizeof(reason)));
  switch (error) {
    case ELOOP:
    case EXDEV:
    case EISDIR:
    case ENXIO:
    case ESPIPE:
    case ENAMETOOLONG:
      return absl::InvalidArgumentError(explained);
    case ENOTEMPTY:
      return absl::FailedPreconditionError(explained);
    case ESTALE:
    case ENOTCONN:
    case ESHUTDOWN:
    case ECONNABORTED:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case ETIMEDOUT:
      return absl::UnavailableError(explained);
    default:
      return StatusFromErrno(error, text);
  }
}

}  // namespace terrace
