#include "daemon/canary.h"

int* Sing(canary_in_lower_case& canary) { return canary.Pointer(true); }
