/* One call of the driver, and none of the others. */
__attribute__((visibility("default"))) int cuInit(unsigned flags) {
  (void)flags;
  return 0;
}
