#pragma once

#include <prometheus/registry.h>
