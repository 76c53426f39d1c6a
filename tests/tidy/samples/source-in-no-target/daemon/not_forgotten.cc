int NotForgotten() { return 1; }
