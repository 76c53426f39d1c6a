#ifndef DESCRIPTOR_H
#define DESCRIPTOR_H
// Says #pragma once only in a comment.
#endif
