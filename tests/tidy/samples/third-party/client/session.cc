#include "terrace/v1/cache.pb.h"
