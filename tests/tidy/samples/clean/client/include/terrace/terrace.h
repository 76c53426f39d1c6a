#pragma once

#include <stdint.h>

#include "terrace/version.h"
