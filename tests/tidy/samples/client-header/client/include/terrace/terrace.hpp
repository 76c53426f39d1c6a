#pragma once

#include <vector>

#include "absl/status/status.h"
