#include <unistd.h>

void Drop(int fd) { ::close(fd); }
