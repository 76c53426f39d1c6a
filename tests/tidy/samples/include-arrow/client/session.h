#pragma once

#include "daemon/block_store.h"
