#pragma once

#include "../os/descriptor.h"
