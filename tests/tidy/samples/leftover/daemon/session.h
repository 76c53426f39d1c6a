#pragma once

// TODO: finish
