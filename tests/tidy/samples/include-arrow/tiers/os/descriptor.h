#pragma once

#include "tiers/dram/arena.h"
